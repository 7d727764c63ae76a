"""IsoFLOP optima: exponents that follow from a planted law, their intervals, and budgets without an optimum."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.__main__ import main
from analysis.errors import InputError
from analysis.planning.isoflop import isoflop

pytestmark = pytest.mark.usefixtures("few_starts")

A, B, E, ALPHA, BETA = 406.4, 410.7, 1.69, 0.34, 0.28
EXPONENT = BETA / (ALPHA + BETA)
"""Of N* in C, for a loss A N^-alpha + B D^-beta + E and C = 6 N D (Hoffmann et al. 2022, Eq. 4)."""
BUDGETS = np.geomspace(1e18, 1e21, 6)


def best(C):
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (C / 6) ** EXPONENT


def loss_of(N, D):
    return A * N**-ALPHA + B * D**-BETA + E


def table(noise=0.0, seed=0, span=6.0, sizes=9, shift=1.0):
    rows = [(C, N, C / (6 * N)) for C in BUDGETS for N in best(C) * shift * np.geomspace(1 / span, span, sizes)]
    frame = pd.DataFrame(rows, columns=["C", "N", "D"])
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(frame)))
    return frame.assign(loss=loss_of(frame["N"], frame["D"]) * scatter)


@pytest.mark.parametrize("method", ["akima", "parabola"])
def test_the_exponent_of_a_planted_law(method):
    made = isoflop(table(), method=method, draws=0)
    assert made.N.value == pytest.approx(EXPONENT, abs=1e-3)
    assert made.N.value + made.D.value == pytest.approx(1, abs=1e-3)
    for budget in made.budgets:
        assert budget.N.value == pytest.approx(best(budget.C), rel=0.02 if method == "akima" else 0.05)
        assert budget.loss == pytest.approx(loss_of(best(budget.C), budget.C / 6 / best(budget.C)), rel=1e-3)


def test_parabolas_are_biased_where_curves_lean_and_interpolants_are_not():
    """Grids that are not centred at the optimum (Open Athena 2026, arXiv 2603.22339)."""
    off = {m: isoflop(table(shift=2.0), method=m, draws=0).budgets[0].N.value for m in ("akima", "parabola")}
    truth = best(BUDGETS[0])
    assert abs(np.log(off["akima"] / truth)) < 0.3 * abs(np.log(off["parabola"] / truth))


def test_intervals_hold_the_truth():
    inside = 0
    for seed in range(12):
        made = isoflop(table(noise=0.003, seed=seed), draws=100, noise=0.003)
        inside += made.N.low < EXPONENT < made.N.high
        assert 0 < made.N.high - made.N.low < 0.4
    assert inside >= 10


@pytest.mark.parametrize("exponent", [0.834, 0.701, 0.604, 0.571, 0.497])
def test_exponents_from_kaplans_to_chinchillas(exponent):
    """As Porian et al. 2024 found them in five steps (arXiv 2406.19146): valleys of a given course."""
    C = np.geomspace(1e16, 1e19, 7)
    rows = [(c, n) for c in C for n in 1e7 * (c / 1e17) ** exponent * np.geomspace(1 / 8, 8, 9)]
    frame = pd.DataFrame(rows, columns=["C", "N"])
    valley = np.log(frame["N"] / (1e7 * (frame["C"] / 1e17) ** exponent))
    frame["loss"] = 20 * frame["C"] ** -0.05 * np.exp(0.02 * valley**2 + 0.002 * valley**3)
    frame["loss"] *= np.exp(0.001 * np.random.default_rng(0).standard_normal(len(frame)))
    made = isoflop(frame.assign(C=frame["C"] * 1.02), draws=200)
    assert made.N.low < exponent < made.N.high
    assert made.N.value == pytest.approx(exponent, abs=0.02)


def test_noise_comes_from_runs_alike_or_from_the_rows():
    twice = pd.concat([table(noise=0.004, seed=s) for s in range(3)])
    made = isoflop(twice, draws=50)
    assert made.noise == pytest.approx(0.004, rel=0.2) and "runs of one size and budget" in made.noise_from
    made = isoflop(table(noise=0.004), draws=50)
    assert made.noise == pytest.approx(0.004, rel=0.35) and "cubics" in made.noise_from
    lowest = isoflop(twice, best=True, draws=0)
    assert all(b.loss < m.loss for b, m in zip(lowest.budgets, isoflop(twice, draws=0).budgets, strict=True))


def test_order_of_rows_does_not_matter():
    frame = table(noise=0.003)
    once, again = (isoflop(f, draws=50) for f in (frame, frame.sample(frac=1, random_state=1)))
    assert once == again


def test_budgets_without_an_optimum_are_left_out_and_said():
    frame = table()
    first, second, third = BUDGETS[:3]
    frame = frame[~((frame["C"] == first) & (frame["N"] > best(first) * 0.9))]  # ends on the way down
    frame = frame[~((frame["C"] == second) & (frame["N"] < best(second) * 1.1))]
    frame = pd.concat([frame[frame["C"] != third], frame[frame["C"] == third].head(2)])
    made = isoflop(frame, draws=0)
    said = {round(np.log10(C), 1): why for C, why in made.left_out.items()}
    assert said[18.0].startswith("the lowest loss is at the largest size")
    assert said[18.6].startswith("the lowest loss is at the smallest size")
    assert said[19.2] == "2 sizes, needs at least 4"
    assert made.N.value == pytest.approx(EXPONENT, abs=0.01)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"method": "spline"}, "method=spline: use one of akima, parabola"),
        ({"tolerance": 0.0}, "tolerance=0: expected a share of C"),
        ({"noise": -1.0}, "noise=-1: expected a standard deviation"),
        ({"draws": 1}, "draws=1, seed=0: expected 0"),
        ({"filter": "C < 2e18"}, "isoflop: 1 budgets with an optimum, needs at least 2"),
    ],
)
def test_faults_are_one_line(options, line):
    with pytest.raises(InputError) as fault:
        isoflop(table(), **options)
    assert str(fault.value).startswith(line)


def test_the_command_writes_optima_that_a_law_of_compute_fits(tmp_path, capsys):
    path, out = tmp_path / "runs.csv", tmp_path / "optima.csv"
    table(noise=0.0).rename(columns={"N": "params", "C": "flops"})[["params", "flops", "loss"]].to_csv(
        path, index=False
    )
    assert main(["isoflop", str(path), "--out", str(out), "--bootstrap", "0"]) == 0
    said = capsys.readouterr()
    assert "N = params, C = flops, D = C / 6N" in said.err
    assert f"N* ~ C^{EXPONENT:.3f}" in said.out
    made = analysis.fit("compute", pd.read_csv(out), bootstrap=0)
    assert made.params["alpha"] == pytest.approx(ALPHA * BETA / (ALPHA + BETA), abs=2e-3)
    assert made.params["E"] == pytest.approx(E, abs=0.02)
