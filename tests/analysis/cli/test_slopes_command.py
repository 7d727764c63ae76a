"""`python -m analysis slopes` on tables with a planted slope: what it prints and writes, and a line for each fault."""

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main


@pytest.fixture
def table(tmp_path, tables):
    """A path for a table, written with a bend of this size."""

    def write(curvature=0.0, **options):
        frame = tables.simulate(seed=1, **options)
        frame["gap"] *= np.exp(curvature * np.log(frame["D"] / 3e6) ** 2)
        frame.to_csv(tmp_path / "runs.csv", index=False)
        return tmp_path / "runs.csv"

    return write


def run(capsys, *arguments):
    status = main(["slopes", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(("curvature", "verdict"), [(0.0, "constant"), (-0.15, "not constant")])
def test_a_planted_slope_is_told(capsys, table, tmp_path, curvature, verdict):
    out = tmp_path / "new" / "slopes.csv"
    status, text, err = run(capsys, "kumar_ptq", table(curvature, seeds=3), "--out", out)
    assert status == 0 and err == "kumar_ptq: fitting, then slopes within each width\n"
    written = pd.read_csv(out)
    assert written["P_post"].dropna().unique().tolist() == [3, 4, 5, 6]
    whole = written[written["P_post"].isna()].set_index("kind")
    assert whole.loc["curvature", "verdict"] == verdict
    assert whole.loc["constant", "low"] < 0.5 < whole.loc["constant", "high"]
    assert whole.loc["curvature", "low"] < curvature < whole.loc["curvature", "high"]
    local = whole.loc["local"]
    assert local["low_D"].tolist() == [1e6, 2e6, 4e6] and (local["clusters"] == 9).all()
    lines = text.splitlines()
    assert lines[-1] == f"slopes: {out}"
    assert lines[-2].startswith(f"slope of ln gap in ln D: {verdict} (from one octave of D to the next it changes by ")
    assert lines[-2].endswith(f"p = {whole.loc['curvature', 'p']:.2g})")
    blocks = [line.split(":")[0] for line in lines if line.endswith(" rows")]
    assert blocks == ["3 bits", "4 bits", "5 bits", "6 bits", "all together"]
    constant = [line for line in lines if "constant slope" in line][-1].split()
    assert float(constant[2]) == pytest.approx(whole.loc["constant", "value"], abs=5e-4)
    assert constant[-2:] == ["9", "clusters"]
    assert any("left out: 108 rows, P_post outside 3 to 6 bits" in line for line in lines)


def test_rows_options_and_bits_are_passed_on(capsys, table, tmp_path):
    path, out = table(seeds=3), tmp_path / "slopes.csv"
    assert (
        run(capsys, "kumar_ptq", path, "--bits", 4, 5, "--filter", "D < 8e6", "--only", "N > 3e4", "--out", out)[0] == 0
    )
    written = pd.read_csv(out)
    assert written["P_post"].dropna().unique().tolist() == [4, 5]
    assert written["high_D"].max() == 4e6
    assert written.loc[written["P_post"].isna(), "rows"].unique().tolist() == [2 * 3 * 3 * 2]
    first = out.read_bytes()
    run(capsys, "kumar_ptq", path, "--bits", 4, 5, "--filter", "D < 8e6", "--only", "N > 3e4", "--out", out)
    assert out.read_bytes() == first


def test_too_few_clusters_are_no_verdict_and_no_fault(capsys, table):
    status, text, _ = run(capsys, "kumar_ptq", table(sizes=(23_600, 82_900), seeds=1))
    assert status == 0
    assert text.splitlines()[-1].startswith("slope of ln gap in ln D: not decidable (too few clusters: ")
    assert "warning: too few clusters; intervals take runs as independent" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("chinchilla", "{table}"), "chinchilla: a law of losses; slopes are those of a gap law"),
        (("nope", "{table}"), "nope: no such law"),
        (("kumar_ptq", "none.csv"), "none.csv: no such table"),
        (("kumar_ptq", "{table}", "--only", "P_post == 9"), "filter 'P_post == 9': leaves none of"),
        (("kumar_ptq", "{table}", "--only", "D == 1e6"), "kumar_ptq: no rows of one N, P_post"),
        (("kumar_ptq", "{table}", "--filter", "D == 1e6"), "kumar_ptq: D has 1 different value"),
        (("kumar_ptq", "{table}", "--bits", "6", "3"), "bits=6 3: "),
        (("kumar_ptq", "{table}", "--out", "slopes.json"), "slopes.json: expected a name that ends in .csv"),
        (("kumar_ptq", "{table}", "--out", "{table}/slopes.csv"), "{table}: cannot be written to"),
    ],
)
def test_faults_are_one_line(capsys, table, arguments, line):
    path = table()
    status, text, err = run(capsys, *(a.format(table=path) for a in arguments))
    assert status == 1 and "slopes:" not in text
    assert err.splitlines()[-1].startswith(f"python -m analysis slopes: {line.format(table=path)}"), err
    assert "Traceback" not in err
