"""Files are whole or not there, whatever ends the process or fills the disk; a folder of results leads nowhere else,
and a table brings no formula into the tables that are made of it."""

import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.errors import InputError
from analysis.figures.study import make
from analysis.files import inside, replacing, write_together
from analysis.report.evidence.tables import Tables
from analysis.table import load

DEMO = Path(__file__).parents[2] / "results" / "demo"


HOLDS = """
import sys
from pathlib import Path
from analysis.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def largest_file(size):
    """As a full disk, for files of more than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def holding(path):
    """A process that is in the midst of writing to `path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    return process


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    mine = [tmp_path / ".runs.analysis-notes.csv", tmp_path / ".fits.1234.json"]
    for path in mine:
        path.write_text("the user's")
    with holding(tmp_path / "fits.json") as living, holding(tmp_path / "degradation.png") as killed:
        assert len(list(tmp_path.iterdir())) == 4
        killed.kill()
        killed.wait()
        write_together({tmp_path / "slopes.csv": "N"})
        (left,) = {*tmp_path.iterdir()} - {*mine, tmp_path / "slopes.csv"}
        assert left.suffix == ".json"
        living.stdin.close()
        assert living.wait() == 0
    assert {*tmp_path.iterdir()} == {*mine, tmp_path / "slopes.csv", tmp_path / "fits.json"}
    assert (tmp_path / "fits.json").read_text() == "half"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "runs.csv").write_text("old")
    with (
        largest_file(4),
        pytest.raises(InputError, match=r"runs.csv: cannot be written \(File too large\); nothing"),
        replacing(tmp_path / "runs.csv") as temporary,
    ):
        temporary.write_text("longer than that")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("runs.csv", "old")]


def test_files_that_belong_together_are_all_written_or_none(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with largest_file(4), pytest.raises(InputError, match=r"b\.pdf: cannot be written"):
        write_together({tmp_path / "a.csv": "new", tmp_path / "b.pdf": b"longer than that", tmp_path / "c.png": b"c"})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


@pytest.mark.slow
def test_figures_on_a_full_disk_are_one_line_and_a_status(tmp_path, capsys):
    folder = tmp_path / "results" / "demo"
    shutil.copytree(DEMO, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with largest_file(10_000):  # slopes.csv is smaller, every picture larger
        assert main(["figures", "demo", "--results", str(tmp_path / "results")]) == 1
    out, err = capsys.readouterr()
    said = err.strip().splitlines()
    assert not out and "degradation.pdf: cannot be written (File too large); nothing was changed" in said[-1]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv"} == {
        path: content for path, content in before.items() if path.suffix != ".csv"
    }
    assert {*folder.rglob("*")} >= {*before} and not [*folder.rglob(".*")]


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
