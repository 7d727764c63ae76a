"""A folder of results leads nowhere else, and a table brings no formula into the tables that are made of it."""

import shutil
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.errors import InputError
from analysis.figures.study import make
from analysis.files import inside
from analysis.report.evidence.tables import Tables
from analysis.table import load

DEMO = Path(__file__).parents[2] / "results" / "demo"


def test_what_lies_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "out").symlink_to(tmp_path.parent)
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name in ("a", "b", "b/new.csv", "new", "a/../a"):
        assert inside(tmp_path / name, tmp_path) == tmp_path / name
    for name in ("..", "../x", "out", "out/x", "a/../../x", "/etc/passwd", "round"):
        with pytest.raises(InputError, match="expected a name in"):
            inside(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["runs.csv", "fits.json", "figures"])
def test_links_out_of_a_study_are_refused(tmp_path, name):
    folder, elsewhere = tmp_path / "results" / "demo", tmp_path / "elsewhere"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    shutil.copy(DEMO / "runs.csv", elsewhere if name == "runs.csv" else folder)
    (folder / name).symlink_to(elsewhere / name if name == "runs.csv" else elsewhere)
    with pytest.raises(InputError, match=f"{name}: leads to"):
        make(folder, draws=0, seed=0, progress=print)
    assert {path.name for path in elsewhere.iterdir()} <= {"runs.csv"}


@pytest.mark.parametrize("study", ["../elsewhere", "linked"])
def test_figures_of_a_study_elsewhere_are_refused(tmp_path, capsys, study):
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results" / "linked").symlink_to(tmp_path / "elsewhere")
    shutil.copy(DEMO / "runs.csv", tmp_path / "elsewhere")
    assert main(["figures", study, "--results", str(tmp_path / "results")]) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "expected a name in" in said[0]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_the_report_reads_no_table_from_elsewhere(tmp_path):
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / "runs.csv").symlink_to(DEMO / "runs.csv")
    tables = Tables(tmp_path / "results", ("demo",), draws=0, seed=0, progress=print)
    assert not tables.frames and "leads to" in tables.faults["demo"]


@pytest.mark.parametrize("text", ["=cmd|x", "+1+1", "-2+3", "@SUM(A1)"])
def test_formulas_in_a_table_are_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(f"N,D,loss,study\n1,2,-3,a-b=c\n1,2,3,{text}\n")
    with pytest.raises(InputError) as fault:
        load(tmp_path / "t.csv")
    assert str(fault.value) == f"study: line 3 holds {text}; expected a text that begins with none of = + - @"


def test_committed_tables_can_be_read():
    for path in DEMO.parent.glob("*/runs.csv"):
        assert len(load(path))
