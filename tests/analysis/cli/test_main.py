"""The command line: what it prints, what it leaves on the disk, and one line for each fault."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.planning.predict import paper, predict

pytestmark = pytest.mark.usefixtures("few_starts")


@pytest.fixture
def study(tmp_path, tables):
    folder = tmp_path / "results" / "toy"
    folder.mkdir(parents=True)
    tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 4e6)).to_csv(folder / "runs.csv", index=False)
    return folder


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_loads_nothing_heavy():
    check = "import sys, analysis.__main__ as m; m._parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "pandas", "matplotlib", "numpy"} & set(loaded)


def test_laws_are_listed(capsys):
    status, out, _ = run(capsys, "laws")
    assert status == 0
    for text in ("chinchilla_tied", "kumar_ptq", "gamma_post", "0.18", "arXiv 2411.04330"):
        assert text in out


def test_figures_fit_draw_and_say_where(capsys, study, undrawn):
    arguments = ("figures", "toy", "--results", study.parent, "--bootstrap", 20)
    status, out, err = run(capsys, *arguments)
    assert status == 0
    stored = json.loads((study / "fits.json").read_text())
    params = stored["fits"]["kumar_ptq"]["params"]["gamma_D"]
    assert out.splitlines()[-1] == f"gamma_D = {params['value']:.3f} [{params['low']:.3f}, {params['high']:.3f}]"
    assert f"figure: {study / 'figures' / 'degradation.png'}" in out
    assert f"table: {study / 'runs.csv'}" in out
    assert out.startswith("figure: ")
    (skipped,) = (line for line in out.splitlines() if line.startswith("skipped"))
    assert {"kumar_neff", "weight_precision"} <= set(skipped.partition(": ")[2].split(", "))
    drawn = {p.name for p in (study / "figures").iterdir()}
    assert {f"{name}.{s}" for name in ("degradation", "predicted_gap") for s in ("csv", "pdf", "png")} <= drawn
    assert not any(name.startswith("weight_precision") for name in drawn)
    assert "bootstrap draws" in err

    before = {p: p.read_bytes() for p in study.rglob("*.*")}
    _, reasons, err = run(capsys, *arguments, "--why")
    assert "bootstrap draws" not in err  # nothing was stale
    assert "skipped kumar_neff: kumar_neff: too few runs trained in low precision" in reasons
    assert "skipped weight_precision: " in reasons
    (study / "fits.json").write_text("damaged")
    run(capsys, *arguments)
    assert {p: p.read_bytes() for p in study.rglob("*.*")} == before  # made again, byte for byte


def test_a_changed_table_is_fitted_again(capsys, study, undrawn):
    arguments = ("figures", "toy", "--results", study.parent, "--bootstrap", 0)
    _, first, _ = run(capsys, *arguments)
    frame = pd.read_csv(study / "runs.csv")
    frame["gap"] *= (frame["D"] / 1e6) ** 0.2
    frame.to_csv(study / "runs.csv", index=False)
    _, second, _ = run(capsys, *arguments)
    slopes = [float(out.splitlines()[-1].split()[2]) for out in (first, second)]
    assert slopes[1] == pytest.approx(slopes[0] + 0.2, abs=0.01)


def test_fit_keeps_the_other_laws_of_the_same_table(capsys, study, tmp_path):
    out = tmp_path / "fits.json"
    assert run(capsys, "fit", "chinchilla_tied", study / "runs.csv", "--out", out, "--bootstrap", 0)[0] == 0
    status, text, _ = run(
        capsys, "fit", "kumar_ptq", study / "runs.csv", "--out", out, "--bootstrap", 20, "--filter", "seed_init >= 0"
    )
    assert status == 0
    assert "gamma_D" in text
    stored = json.loads(out.read_text())
    assert set(stored["fits"]) == {"chinchilla_tied", "kumar_ptq"}
    assert stored["fits"]["kumar_ptq"]["filter"] == "seed_init >= 0"
    other = tmp_path / "other.csv"
    pd.read_csv(study / "runs.csv").head(60).to_csv(other, index=False)
    before = out.read_bytes()
    status, _, err = run(capsys, "fit", "kumar_ptq", other, "--out", out, "--bootstrap", 0)
    assert (status, out.read_bytes()) == (1, before)
    assert "holds fits of another table" in err


def test_predict_from_paper_and_from_a_file(capsys, study, tmp_path):
    status, out, _ = run(capsys, "predict", "paper", "--N", "27.95e6", "--D", "2.619e10", "--post", "int3")
    assert status == 0
    assert float(out.splitlines()[1].split()[3]) == pytest.approx(0.603, abs=0.002)
    stored = tmp_path / "fits.json"
    for law in ("chinchilla_tied", "kumar_ptq"):
        run(capsys, "fit", law, study / "runs.csv", "--out", stored, "--bootstrap", 30)
    status, out, _ = run(capsys, "predict", stored, "--N", "5e4", "--D", "2e6", "--post", "4")
    assert status == 0
    assert out.count("[") == 3


def test_a_plan_is_predicted_row_by_row(capsys, tmp_path):
    cells, out = tmp_path / "cells.csv", tmp_path / "predictions.csv"
    cells.write_text("N,D,P_a\n1e9,1e11,16\n1e9,1e11,4\n1e9,1e11,3\n")
    status, said, _ = run(capsys, "predict", "paper", "--cells", cells, "--post", "int3,6", "--out", out)
    assert status == 0
    # Trained at 4 bits there is no law of what 3 or 6 bits add; at 3 bits no parameter is left.
    frame = pd.read_csv(out)
    assert frame[["P_a", "P_post"]].to_numpy().tolist() == [[16, 16], [16, 3], [16, 6], [4, 16]]
    assert "post=6: not below P_a=4 in training" in said and "no effective parameters" in said
    expected = predict(paper(), N=1e9, D=1e11, widths={}, post=3.0)
    assert frame["gap"].iloc[1] == pytest.approx(expected.gap.value, rel=1e-5)
    assert frame["loss"].iloc[1] == pytest.approx(expected.total.value, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("predict", "paper", "--N", "1", "--D", "1", "--filter", "N > 1"),
            "predict: expected --N and --D, or --cells and --out",
        ),
        (("predict", "paper", "--cells", "{table}"), "predict: --cells: expected --out beside it"),
        (("predict", "paper", "--cells", "none.csv", "--out", "o.csv"), "predict: none.csv: no such table"),
        (("fit", "nope", "{table}", "--out", "{out}"), "fit: nope: no such law; use one of"),
        (("fit", "chinchilla", "none.csv", "--out", "{out}"), "fit: none.csv: no such table"),
        (("fit", "chinchilla", "{table}", "--out", "{out}"), "fit: chinchilla: N has 2 different values"),
        (("fit", "kumar_ptq", "{table}", "--out", "{out}", "--filter", "Q > 1"), "fit: filter 'Q > 1': "),
        (("fit", "kumar_ptq", "{table}", "--out", "{out}", "--bootstrap", "-1"), "fit: bootstrap=-1: expected"),
        (("figures", "absent", "--results", "{results}"), "figures: "),
        (("figures", "toy", "--results", "{results}", "--bootstrap", "1"), "figures: bootstrap=1: expected"),
        (("figures", "toy", "--results", "{results}", "--against", "nope"), "figures: nope/toy: has no fits.json"),
        (("predict", "none.json", "--N", "1", "--D", "1"), "predict: none.json: no such file"),
        (("predict", "paper", "--N", "1e8", "--D", "1e9", "--post", "in4"), "predict: in4: not a format"),
    ],
)
def test_faults_are_one_line(capsys, study, tmp_path, arguments, line):
    places = {"table": study / "runs.csv", "out": tmp_path / "fits.json", "results": study.parent}
    status, _, err = run(capsys, *(a.format(**places) for a in arguments))
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith(f"python -m analysis {line}"), err
    assert "Traceback" not in err
    assert not (tmp_path / "fits.json").exists()


def test_numbers_may_end_in_a_suffix(capsys):
    long = run(capsys, "predict", "paper", "--N", "200000", "--D", "2.5e9", "--post", "int4")
    assert long[0] == 0
    assert run(capsys, "predict", "paper", "--N", "200k", "--D", "2.5B", "--post", "int4") == long
    with pytest.raises(SystemExit):
        main(["predict", "paper", "--N", "200q", "--D", "2.5B"])
    assert "argument --N: invalid number value: '200q'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "chinchilla", "a.csv", "--out", "b.json", "--seed", "1.5"])
    assert "argument --seed: invalid whole value: '1.5'" in capsys.readouterr().err


def test_fit_without_out_only_prints(capsys, study, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    printed = run(capsys, "fit", "chinchilla_tied", study / "runs.csv", "--bootstrap", 0)
    assert printed[0] == 0 and "  E " in printed[1] and "fit:" not in printed[1]
    assert sorted(tmp_path.rglob("*")) == before
