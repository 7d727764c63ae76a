"""`python -m analysis profile` on tables with planted constants: what it prints, writes and draws, and its faults."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.diagnostics.profile import profile
from analysis.figures.profile import draw, mathematical

pytestmark = pytest.mark.usefixtures("few_starts")


@pytest.fixture
def runs(tmp_path, tables):
    tables.simulate().to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path / "runs.csv"


def run(capsys, *arguments):
    status = main(["profile", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def ends(line):
    return [float(v) for v in line.split("[")[1].split("]")[0].split(",")]


@pytest.mark.parametrize(("law", "symbol", "truth"), [("kumar_ptq", "gamma_D", 0.5), ("chinchilla", "E", 0.9)])
def test_a_planted_constant_is_inside(capsys, runs, tmp_path, law, symbol, truth):
    out = tmp_path / "new" / "profile.csv"
    status, text, err = run(capsys, law, runs, "--parameter", symbol, "--out", out)
    assert status == 0 and err == f"{law}: fitting, then following {symbol}\n"
    lines = text.splitlines()
    assert lines[0].startswith(f"{law}: {symbol} = ")
    plain, clustered = (line for line in lines if "95% interval" in line)
    assert "rows independent" in plain and "6 clusters" in clustered
    written = pd.read_csv(out)
    limits = written.set_index("kind")["value"]
    for line, low, high in ((plain, "low", "high"), (clustered, "clustered_low", "clustered_high")):
        assert ends(line) == pytest.approx([limits[low], limits[high]], rel=1e-4)
        assert limits[low] < truth < limits[high]
    # The table on the screen is that of the file: the same values, the estimate marked once, others beside it.
    begin = next(i for i, line in enumerate(lines) if line.split()[:2] == [symbol, "rise"])
    end = next(i for i, line in enumerate(lines) if line.startswith("* the estimate"))
    shown = [line.split() for line in lines[begin + 1 : end]]
    marked = [cells for cells in shown if cells[0] == "*"]
    values = written[written["kind"].isin(["value", "estimate"])]
    assert len(shown) == len(values) and len(marked) == 1
    estimate = written[written["kind"] == "estimate"].iloc[0]
    assert [float(v) for v in marked[0][1:3]] == pytest.approx([estimate["value"], estimate["rise"]], rel=1e-4)
    assert len(marked[0]) == len(written.columns) - 2 and estimate["rise"] == values["rise"].min()
    assert (np.diff(values["value"]) > 0).all()
    drawn = {p.name for p in out.parent.iterdir()}
    assert drawn == {"profile.csv", "profile.pdf", "profile.png"}
    assert matplotlib.image.imread(out.with_suffix(".png")).std() > 0.05  # something is drawn


def test_both_limits_are_drawn_where_they_are(tables):
    made = profile("kumar_ptq", tables.simulate(), "gamma_N")
    (axes,) = draw(made).figure.axes
    flat = {
        line.get_label(): line for line in axes.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2
    }
    for label, limit, low, high in (
        ("rows independent", made.limit, made.low, made.high),
        ("by clusters", made.clustered_limit, made.clustered_low, made.clustered_high),
    ):
        assert flat[label].get_ydata()[0] == limit
        assert list(flat[label].get_xdata()) == pytest.approx([low, high])
    curve = max(axes.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(np.interp(made.values, *curve.get_data()), made.rise, rtol=0.02, atol=0.02)
    assert np.interp(made.clustered_high, *curve.get_data()) == pytest.approx(made.clustered_limit, rel=0.02)


def test_a_coefficient_is_drawn_over_decades(tables):
    made = profile("kumar_ptq", tables.simulate(noise=2), "C_T")
    (axes,) = draw(made).figure.axes
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert low < made.clustered_low < made.clustered_high < high


def test_profiles_without_a_width_or_an_end_are_drawn(tables):
    """Losses without noise, and values that reach neither end."""
    exact = draw(profile("chinchilla", tables.simulate(post=(), noise=0), "E"))
    assert exact.numbers["value"].between(0.89, 0.91).all()
    asked = draw(profile("chinchilla", tables.simulate(post=()), "E", values=[0.9, 0.92]))
    assert set(asked.numbers["kind"]) == {"value", "estimate"}


def test_asked_values_and_options(capsys, runs, tmp_path):
    out = tmp_path / "profile.csv"
    options = ("--objective", "squares", "--filter", "D > 1e6", "--values", 0.85, 0.95, "--out", out)
    status, text, _ = run(capsys, "chinchilla", runs, "--parameter", "E", *options)
    assert status == 0
    made = profile("chinchilla", pd.read_csv(runs), "E", [0.85, 0.95], objective="squares", filter="D > 1e6")
    written = pd.read_csv(out)
    values = written[written["kind"].isin(["value", "estimate"])]
    np.testing.assert_allclose(values["rise"], made.rise, rtol=1e-4, atol=1e-9)
    assert set(np.round(written.loc[written["kind"] == "value", "value"], 6)) == {0.85, 0.95}
    assert text.startswith(f"chinchilla: E = {made.estimate:.5g} (nats), 18 rows\n")
    assert "beyond the values" in text
    assert "left out: 168 rows" in text or "left out: 126 rows" in text


def test_ends_at_a_bound_and_too_few_clusters_are_said(capsys, tmp_path):
    """Losses that do not depend on D say nothing of beta; a table of one run each has no clusters."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)] * 2, columns=["N", "D"])
    frame["loss"] = (40 * frame["N"] ** -0.3 + 1.2) * np.exp(0.003 * draw.standard_normal(len(frame)))
    path = tmp_path / "runs.csv"
    frame.assign(cluster=np.arange(len(frame)) % 3).to_csv(path, index=False)
    status, text, _ = run(capsys, "chinchilla", path, "--parameter", "beta", "--objective", "squares")
    assert status == 0
    assert "[0.01 (bound), 10 (bound)]" in text
    assert "95% interval none: 3 clusters, needs at least 4" in text


def test_symbols_are_set_as_formulas():
    found = {s: mathematical(s) for s in ("E", "gamma_D", "gamma_post", "C_T", "alpha", "eff[4]")}
    assert found == {
        "E": "$E$",
        "gamma_D": r"$\gamma_D$",
        "gamma_post": r"$\gamma_\mathrm{post}$",
        "C_T": "$C_T$",
        "alpha": r"$\alpha$",
        "eff[4]": "eff[4]",
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("chinchilla", "{table}", "--parameter", "gamma"),
            "gamma: chinchilla has no such parameter; use one of alpha",
        ),
        (("nope", "{table}", "--parameter", "E"), "nope: no such law"),
        (("chinchilla", "none.csv", "--parameter", "E"), "none.csv: no such table"),
        (("chinchilla", "{table}", "--parameter", "E", "--values", "-1"), "E=-1: expected finite values"),
        (("chinchilla", "{table}", "--parameter", "E", "--filter", "N > 1e9"), "filter 'N > 1e9': leaves none of"),
        (("chinchilla", "{table}", "--parameter", "E", "--filter", "N < 1e5"), "chinchilla: N has 2 different values"),
        (("chinchilla", "{table}", "--parameter", "E", "--huber-delta", "0"), "huber_delta=0.0: expected"),
        (("chinchilla", "{table}", "--parameter", "E", "--objective", "l1"), "objective=l1: use one of"),
        (("chinchilla", "{table}", "--parameter", "E", "--out", "new"), "new: expected a name that ends in .csv"),
        (("chinchilla", "{table}", "--parameter", "E", "--out", "{table}/new.csv"), "{table}: cannot be written to"),
    ],
)
def test_faults_are_one_line(capsys, runs, arguments, line):
    status, text, err = run(capsys, *(a.format(table=runs) for a in arguments))
    assert status == 1 and "profile:" not in text
    assert err.splitlines()[-1].startswith(f"python -m analysis profile: {line.format(table=runs)}"), err
    assert "Traceback" not in err
