"""The command line on tables that others made: columns, weights, constants, and one line for what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def table(tmp_path, tables):
    path = tmp_path / "runs.csv"
    frame = tables.simulate(post=())[["N", "D", "loss", "run_id"]]
    frame.assign(steps=frame["D"] / 2000, w=np.arange(len(frame)) % 3 + 1.0).drop(columns="D").rename(
        columns={"N": "width squared", "loss": "nll"}
    ).to_csv(path, index=False)
    return path


COLUMNS = "N=width squared,D==steps*2000,loss=nll"


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def test_the_map_is_remembered(capsys, table, tmp_path):
    out = tmp_path / "fits.json"
    arguments = ("--out", out, "--bootstrap", 0)
    status, _, err = run(capsys, "fit", "chinchilla", table, *arguments)
    assert status == 1 and "D: the table has no such column" in err
    assert run(capsys, "fit", "chinchilla", table, *arguments, "--columns", COLUMNS)[0] == 0
    stored = json.loads(out.read_text())
    assert stored["table"]["columns"] == {"N": "width squared", "D": "=steps*2000", "loss": "nll"}
    status, _, err = run(capsys, "fit", "gadre", table, *arguments)
    assert status == 0 and f"{out}: --columns {COLUMNS}" in err
    assert set(json.loads(out.read_text())["fits"]) == {"chinchilla", "gadre"}
    before = out.read_bytes()
    status, _, err = run(capsys, "fit", "gadre", table, *arguments, "--columns", COLUMNS.replace("2000", "4000"))
    assert status == 1 and "holds fits with other --columns" in err and out.read_bytes() == before


@pytest.mark.parametrize("command", ["profile", "compare", "isoflop"])
def test_every_command_takes_a_map(command, capsys, table):
    more = {"profile": ("--parameter", "E", "--values", "0.9"), "compare": ("--laws", "gadre"), "isoflop": ()}
    first = ("profile", "chinchilla") if command == "profile" else (command,)
    status, out, err = run(capsys, *first, table, "--columns", COLUMNS, *more[command])
    assert status == 0 or "budgets with an optimum" in err
    assert "no such column" not in err and (out or command == "isoflop")


def test_constants_weights_and_objectives(capsys, table, tmp_path):
    out = tmp_path / "fits.json"
    arguments = ("--out", out, "--bootstrap", 20, "--columns", COLUMNS)
    status, said, _ = run(
        capsys, "fit", "chinchilla", table, *arguments, "--hold", "E=0.9,alpha=.35", "--hold", "B=900", "--weights", "w"
    )
    assert status == 0
    assert "  E          0.9  held" in said and "95% intervals given E = 0.9, alpha = 0.35, B = 900: " in said
    options = json.loads(out.read_text())["fits"]["chinchilla"]["options"]
    assert options["hold"] == {"E": 0.9, "alpha": 0.35, "B": 900} and options["weights"] == "w"
    status, said, _ = run(capsys, "fit", "gadre", table, *arguments, "--objective", "loss-squares")
    entry = json.loads(out.read_text())["fits"]["gadre"]
    assert entry["objective"] == "sum of squares / 2 of prediction - loss"
    assert "warning: the column w is not used: --weights w weighs rows by it" not in said  # a letter could be anything
    for bad, line in (
        (("--hold", "E"), "fit: hold='E': expected NAME=VALUE"),
        (("--hold", "E=x"), "fit: hold: could not convert string to float: 'x'; expected SYMBOL=NUMBER"),
        (("--hold", "E=1,E=2"), "fit: hold: E is given twice"),
        (("--hold", "Q=1"), "fit: hold=Q: chinchilla has no such parameter"),
        (("--weights", "q"), "fit: q: the table has no such column"),
        (("--objective", "cubes"), "fit: objective=cubes: use one of huber, squares, loss_squares"),
        (
            ("--base", "x", "--columns", "scheme=run_id", "--out", tmp_path / "other.json"),
            "fit: base=x: the table has no such scheme",
        ),
    ):
        law = "quest" if "--base" in bad else "chinchilla"
        status, _, err = run(capsys, "fit", law, table, *arguments, *bad)
        assert status == 1 and err.splitlines()[-1].startswith(f"python -m analysis {line}"), err


def test_an_equation_is_a_law(capsys, table, tmp_path):
    out = tmp_path / "fits.json"
    equation = "L = A*N**-alpha + B*D**-beta + E"
    status, said, _ = run(
        capsys, "fit", equation, table, "--columns", COLUMNS, "--out", out, "--bootstrap", 20, "--summary",
        "--residuals", tmp_path / "r.png",
    )  # fmt: skip
    assert status == 0 and "correlations of the estimates" in said and (tmp_path / "r.png").exists()
    status, said, _ = run(capsys, "predict", out, "--N", 5e4, "--D", 2e6, "--one-run")
    assert status == 0 and said.count("nats a token") == 1  # a loss is said once
    assert run(capsys, "plan", out, "--flops", 1e12)[0] == 0


def test_what_cannot_be_compared_is_one_short_line(capsys, tmp_path):
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": [1e6] * 8, "D": np.arange(1, 9) * 1e8, "loss": np.linspace(4, 3, 8)}).to_csv(path, index=False)
    status, _, err = run(capsys, "compare", path)
    assert status == 1
    assert len(err.splitlines()[-1]) < 400 and "other" in err and "--laws LAW says which" in err


def test_a_comparison_stands_in_columns(capsys, table):
    status, out, _ = run(capsys, "compare", table, "--columns", COLUMNS, "--laws", "chinchilla,gadre,chinchilla_tied")
    assert status == 0
    head = next(i for i, line in enumerate(out.splitlines()) if "RMSE" in line and "status" in line)
    rows = [line for line in out.splitlines()[head : head + 8] if line.strip() and not line.startswith("      ")]
    columns = [line.split() for line in rows if line.split()[-1] in ("ok", "at_bound", "unidentified", "status")]
    assert {len(row) for row in columns[1:]} == {10}


def test_standard_input_is_a_table(tmp_path, table):
    out = tmp_path / "fits.json"
    command = [sys.executable, "-m", "analysis", "fit", "chinchilla", "-", "--columns", COLUMNS, "--bootstrap", "0"]
    content = table.read_bytes()
    first = subprocess.run([*command, "--out", out], input=content, capture_output=True, check=False)
    assert first.returncode == 0, first.stderr
    again = subprocess.run(
        [*command, "--out", out], input=content.replace(b"3", b"4"), capture_output=True, check=False
    )
    assert again.returncode == 1 and b"holds fits of another table" in again.stderr


@pytest.mark.parametrize("name", ["gadre", "chinchilla_gamma", "compute"])
def test_laws_of_losses_answer_after_they_were_fitted(name, capsys, table, tmp_path):
    out = tmp_path / "fits.json"
    run(capsys, "fit", name, table, "--columns", COLUMNS, "--out", out, "--bootstrap", 20)
    status, said, _ = run(capsys, "predict", out, "--N", 5e4, "--D", 2e6)
    assert status == 0 and f"({name})" in said and len(said.splitlines()) == 1
    status, said, err = run(capsys, "plan", out, "--flops", 1e12, "--law", name)
    assert (status == 0 and f"laws: {name} for the loss" in said) or (name == "compute" and "needs a law of N" in err)


@pytest.mark.skipif(not DATA.exists(), reason="the public tables are not here")
def test_the_gamma_form_of_quartet_on_its_own_runs(capsys, tmp_path):
    out = tmp_path / "fits.json"
    runs = DATA / "quartet" / "quartet_bf16_6ddd368.csv"
    status, _, _ = run(capsys, "fit", "chinchilla_gamma", runs, "--huber-delta", 1e-4, "--out", out, "--bootstrap", 0)
    assert status == 0
    entry = json.loads(out.read_text())["fits"]["chinchilla_gamma"]
    found = {symbol: entry["params"][symbol]["value"] for symbol in ("alpha", "beta", "gamma", "E")}
    assert entry["value"] == pytest.approx(1.876209e-6, rel=1e-6)
    assert found == pytest.approx({"alpha": 0.58858, "beta": 0.54404, "gamma": 0.27393, "E": 1.34814}, abs=1e-5)


@pytest.mark.skipif(not DATA.exists(), reason="the public tables are not here")
def test_questions_to_the_public_runs_of_quest(capsys, tmp_path):
    """Their columns are w_bits and a_bits, and the base scheme is 16; fp4 runs are called 16 bits there."""
    out = tmp_path / "fits.json"
    runs = DATA / "quest" / "quest_runs.csv"
    columns = ("--columns", "P_w==16,P_a==16")
    status, said, err = run(
        capsys, "fit", "quest", runs, *columns, "--out", out, "--bootstrap", 0, "--objective", "squares"
    )
    assert status == 0 and "not quantized: 16" in said
    status, four, _ = run(capsys, "predict", out, "--N", 1e9, "--D", 1e11, "--at", "scheme=4")
    status, base, _ = run(capsys, "predict", out, "--N", 1e9, "--D", 1e11)
    assert float(four.split()[3]) > float(base.split()[3])
    status, _, err = run(capsys, "predict", out, "--N", 1e9, "--D", 1e11, "--at", "scheme=5")
    assert status == 1 and "scheme=5: the law knows 16, 1," in err
