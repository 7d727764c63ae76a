"""Profiles against brute-force refits by another solver, intervals against planted truths."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import brentq, least_squares

import analysis
from analysis.diagnostics.profile import profile
from analysis.errors import InputError
from analysis.fitting.estimate import prepare
from analysis.fitting.objective import Problem
from analysis.fitting.options import Options
from analysis.fitting.profile_likelihood import Pinned
from analysis.laws.registry import LAWS


@pytest.fixture(scope="module")
def losses(tables):
    return tables.simulate(post=())


@pytest.fixture(scope="module")
def gaps(tables):
    return tables.simulate()


def loss_cost(frame, symbol, value):
    """Least sum of squares / 2 of ln(prediction / loss) with one parameter held, over starts, by scipy."""
    names = [s for s in ("alpha", "beta", "A", "B", "E") if s != symbol]
    size, tokens, y = (np.log(frame[c].to_numpy(float)) for c in ("N", "D", "loss"))

    def residuals(free):
        p = dict(zip(names, free, strict=True)) | {symbol: np.log(value) if symbol in "AB" else value}
        return np.log(np.exp(p["A"] - p["alpha"] * size) + np.exp(p["B"] - p["beta"] * tokens) + max(p["E"], 0)) - y

    costs = []
    for alpha, beta in ((0.3, 0.4), (0.5, 0.6)):
        start = {"alpha": alpha, "beta": beta, "A": alpha * size.mean(), "B": beta * tokens.mean(), "E": 0.8}
        at = [start[s] for s in names]
        costs.append(least_squares(residuals, at, x_scale="jac", xtol=1e-13, ftol=1e-13, gtol=1e-13).cost)
    return min(costs)


@pytest.mark.parametrize("symbol", ["E", "A", "alpha"])
def test_profile_of_a_loss_law_is_that_of_brute_force(tables, losses, symbol):
    made = profile("chinchilla", losses, symbol, objective="squares")
    truth = tables.LOSS[symbol] * (tables.loss_share() ** -tables.LOSS["alpha"] if symbol == "A" else 1)
    assert made.low < truth < made.high
    assert made.clustered_low < truth < made.clustered_high
    assert (np.diff(made.values) > 0).all() and made.values[0] < made.low < made.estimate < made.high < made.values[-1]
    least = loss_cost(losses, symbol, made.estimate)
    picked = slice(None, None, 5)
    expected = [loss_cost(losses, symbol, v) - least for v in made.values[picked]]
    np.testing.assert_allclose(made.rise[picked], expected, rtol=1e-6, atol=1e-12)
    # An end of the interval by root finding on refits: F(1, n - P) of the residual variance.
    allowed = stats.f.ppf(0.95, 1, 24 - 5) * (2 * least / (24 - 5)) / 2
    end = brentq(lambda v: loss_cost(losses, symbol, v) - least - allowed, made.estimate, made.values[-1], rtol=1e-6)
    assert made.high == pytest.approx(end, rel=1e-3)
    assert "F(1, 19)" in made.rule and "6 clusters" in made.clustered_rule
    middle = int(np.flatnonzero(made.rise == made.rise.min())[0])
    fit = analysis.fit("chinchilla", losses, objective="squares", bootstrap=0)
    for other, along in made.params.items():
        assert along[middle] == pytest.approx(fit.params[other], rel=1e-5)


@pytest.mark.parametrize("symbol", ["C_T", "gamma_D", "gamma_post"])
def test_profile_of_a_gap_law_is_that_of_brute_force(gaps, symbol):
    """With the standard deviations that the fit ends with."""
    law = LAWS["kumar_ptq"]
    fitted = prepare(law, gaps, Options(bootstrap=0))
    names = [s for s in law.symbols if s != symbol]
    moved = {p.symbol: p for p in law.parameters}

    def cost(value):
        def residuals(free):
            params = {s: float(moved[s].backward(v)) for s, v in zip(names, free, strict=True)} | {symbol: value}
            return (law.predict(params, fitted.frame) - fitted.frame["gap"]) / fitted.problem.sd

        start = [float(moved[s].forward(fitted.params[s])) for s in names]
        return least_squares(residuals, start, x_scale="jac", xtol=1e-13, ftol=1e-13, gtol=1e-13).cost

    made = profile(law, gaps, symbol)
    least = cost(made.estimate)
    picked = slice(None, None, 6)
    np.testing.assert_allclose(made.rise[picked], [cost(v) - least for v in made.values[picked]], rtol=1e-5, atol=1e-8)
    assert np.interp(made.low, made.values, made.rise) == pytest.approx(stats.chi2.ppf(0.95, 1) / 2, rel=0.02)
    assert np.interp(made.high, made.values, made.rise) == pytest.approx(stats.chi2.ppf(0.95, 1) / 2, rel=0.02)
    assert made.rule.startswith("2 x rise <= 3.841: chi-square(1)")
    assert made.clustered_low < made.estimate < made.clustered_high


def test_huber_profile_holds_the_parameter(losses):
    """Held values are held, and no point of the profile is better than a fit started there."""
    made = profile("chinchilla", losses, "B")
    fit = analysis.fit("chinchilla", losses, bootstrap=0)
    names = list(fit.params)
    for i in range(0, len(made.values), 4):
        params = {s: made.params[s][i] for s in names if s != "B"} | {"B": made.values[i]}
        residual = np.abs(np.log(fit.law.predict(params, losses)) - np.log(losses["loss"]))
        delta = fit.huber_delta or 1e-3
        value = np.sum(np.where(residual <= delta, residual**2 / 2, delta * (residual - delta / 2)))
        assert value - fit.value == pytest.approx(made.rise[i], rel=1e-6, abs=1e-12)
    assert "residual variance" in made.rule


def test_intervals_by_cluster_cover_the_truth(tables):
    """12 studies whose chains share their luck: of intervals that take rows as independent too many miss gamma_N."""
    found = [profile("kumar_ptq", tables.simulate(seed=seed), "gamma_N") for seed in range(12)]
    truth = tables.GAP["gamma_N"]
    assert sum(p.clustered_low < truth < p.clustered_high for p in found) >= 11
    assert sum(p.low < truth < p.high for p in found) <= 10


def test_irreducible_loss_at_zero():
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)], columns=["N", "D"])
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(frame)))
    frame["loss"] = (40 * frame["N"] ** -0.2 + 50 * frame["D"] ** -0.2 - 0.05) * noise
    made = profile("chinchilla_tied", frame, "E", objective="squares")
    assert made.estimate == made.low == made.values[0] == 0
    assert 0 < made.high < 1
    assert (np.diff(made.rise) > 0).all()


def test_a_parameter_that_the_table_lacks_is_open():
    """Losses that do not depend on D say nothing of beta: its interval ends at its bounds."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)] * 2, columns=["N", "D"])
    frame["loss"] = (40 * frame["N"] ** -0.3 + 1.2) * np.exp(0.003 * draw.standard_normal(len(frame)))
    made = profile("chinchilla", frame, "beta", objective="squares")
    assert (made.low, made.high) == (0.01, 10.0)


def test_asked_values(losses):
    made = profile("chinchilla", losses, "E", values=[1.0, 0.9, 0.95, 0.9])
    assert made.values.tolist() == sorted([0.9, 0.95, 1.0, made.estimate])
    assert np.isnan([made.low, made.high]).all()  # none of them is far enough
    assert made.rise[made.values == made.estimate] == pytest.approx(0, abs=1e-12)
    whole = profile("chinchilla", losses, "E")
    again = profile("chinchilla", losses, "E", values=whole.values)
    np.testing.assert_allclose(again.rise, whole.rise, rtol=1e-6, atol=1e-12)
    assert (again.low, again.high) == pytest.approx((whole.low, whole.high), rel=1e-4)


def test_a_fit_stands_for_its_law(tables, losses):
    fit = analysis.fit("chinchilla", losses, objective="squares", bootstrap=0, filter="D > 1e6")
    made = profile(fit, losses, "E")
    same = profile("chinchilla", losses, "E", objective="squares", filter="D > 1e6")
    assert (made.estimate, made.low, made.high) == (same.estimate, same.low, same.high)
    with pytest.raises(InputError, match=r"chinchilla: the fit has 18 rows and an objective of .* this table gives 24"):
        profile(fit, losses, "E", filter=None)
    trained = tables.simulate(
        noise=0.5, seeds=1, post=(), trained=((16, 16, 16), (3, 16, 16), (4, 16, 16), (16, 4, 16))
    )
    narrowed = analysis.fit("kumar_neff_tied", trained, bootstrap=0)
    assert profile(narrowed, trained, "E").estimate == pytest.approx(narrowed.params["E"], rel=1e-9)


def test_order_of_rows_does_not_matter(gaps):
    once, again = (profile("kumar_ptq", t, "C_T") for t in (gaps, gaps.sample(frac=1, random_state=1)))
    for end in ("low", "high", "clustered_low", "clustered_high"):
        assert getattr(again, end) == pytest.approx(getattr(once, end), rel=1e-4)


def test_pinned_coordinates_are_the_parameter_itself(tables, losses):
    """Its slopes are those of the plain problem along a held coefficient, by finite differences."""
    law = LAWS["chinchilla"]
    x = {v: losses[v].to_numpy(float) for v in law.variables}
    plain = Problem(law=law, x=x, y=losses["loss"].to_numpy(), scale="log", delta=0.01)
    pinned = Pinned(symbol="A", **{f.name: getattr(plain, f.name) for f in dataclasses.fields(Problem)})
    point = pinned.inside(tables.LOSS)
    assert point[law.symbols.index("A")] == tables.LOSS["A"]
    assert pinned.outside(point[None])[0] == pytest.approx([tables.LOSS[s] for s in law.symbols])
    np.testing.assert_allclose(pinned.predict(point[None])[0], law.predict(tables.LOSS, losses), rtol=1e-12)
    local = pinned.evaluate(point[None], np.zeros(1, int))
    for j, p in enumerate(law.ordered):
        if p.symbol == "A":
            assert local.gradient[0, j] == 0 and not local.majorant[0, j].any() and not local.curvature[0, :, j].any()
            continue
        ends = []
        for sign in (-1, 1):
            moved = point.copy()
            moved[j] += sign * 1e-6
            ends.append(pinned.evaluate(moved[None], np.zeros(1, int)).value[0])
        assert local.gradient[0, j] == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("symbol", "values", "line"),
    [
        ("gamma", None, "gamma: chinchilla has no such parameter; use one of alpha, beta, A, B, E"),
        ("alpha", [0.2, 15.0], "alpha=15: expected finite values from 0.01 to 10"),
        ("E", [-1.0], "E=-1: expected finite values from 0 to inf"),
        ("A", [0.0], "A=0: expected"),
        ("E", [np.inf], "E=inf: expected"),
        ("E", [], "E=no value: expected"),
    ],
)
def test_faults_are_one_line(losses, symbol, values, line):
    with pytest.raises(InputError) as fault:
        profile("chinchilla", losses, symbol, values)
    assert str(fault.value).startswith(line)
