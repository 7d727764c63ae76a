"""Intervals: what is left out and drawn, against fits of the remaining rows, and that the truth is covered."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.fitting.estimate import prepare
from analysis.fitting.intervals import clusters, groups, jackknife_intervals, leave_out
from analysis.fitting.options import Options
from analysis.fitting.profile_likelihood import ProfileLikelihood
from analysis.fitting.solver import minimise
from analysis.laws.registry import LAWS
from analysis.validation.coverage_designs import DESIGNS, NOISES, simulated

LADDER = DESIGNS[0]


def test_what_is_drawn():
    frame = pd.DataFrame({"N": range(12), "run_id": list("aabbccddeeff"), "cluster": list("ppppqqqqrrrr")})
    found = clusters(frame)
    assert (found.kind, found.trusted, found.count) == ("runs", False, 6)
    found = clusters(frame.assign(cluster=list("pppqqqrrrsss")))
    assert (found.kind, found.trusted, found.labels.tolist()) == (
        "clusters",
        True,
        [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3,
    )
    found = clusters(frame.assign(cluster="p"))
    assert (found.kind, found.count) == ("clusters", 1)
    found = clusters(frame.drop(columns="cluster"))
    assert (found.kind, found.trusted) == ("runs", True)
    assert clusters(frame[["N"]]).kind == "rows"


@pytest.mark.parametrize(
    ("sizes", "kind", "count", "degrees"),
    [
        ((4, 3, 2, 1), "sizes", 4, 3),
        ((4, 4, 2, 2), "clusters", 6, 4),  # three sizes
        ((4, 4, 4, 4), "clusters", 6, 4),  # one size
        ((9, 8, 7, 6, 5, 4), "clusters", 6, 4),  # a size is a chain: what is left out is the same
    ],
)
def test_what_is_left_out(sizes, kind, count, degrees):
    """Sizes where there are four or more and they hold more than one chain each; else chains."""
    chains = 6
    frame = pd.DataFrame({"cluster": np.repeat(range(chains), 2), "run_id": range(2 * chains)})
    frame["N"] = [float(sizes[c % len(sizes)]) for c in frame["cluster"]]
    found = groups(frame)
    assert (found.kind, found.count, found.degrees) == (kind, count, degrees)
    assert (frame.groupby(found.labels)["N"].nunique() == 1).all()


def test_a_size_that_holds_most_rows_is_not_left_out():
    frame = pd.DataFrame({"cluster": range(20), "N": [1.0] * 11 + [2.0] * 3 + [3.0] * 3 + [4.0] * 3})
    assert groups(frame).kind == "clusters"
    assert groups(frame.iloc[2:]).kind == "sizes"


def test_few_clusters_are_not_trusted(tables):
    found = analysis.fit("kumar_ptq", tables.simulate(sizes=(23_600, 82_900), seeds=1), bootstrap=100)
    assert found.bootstrap.kind == "runs"
    assert not found.bootstrap.trusted
    assert any("do not trust their width" in warning for warning in found.warnings)


def test_too_few_runs_have_no_interval(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), seeds=1, tokens=(1e6, 4e6))
    found = analysis.fit("kumar_ptq", frame[frame["run_id"] != frame["run_id"].iloc[-1]], bootstrap=100)
    assert found.bootstrap.kind == "none"
    assert np.isnan(found.interval("gamma_D")).all()
    assert any("no intervals: only 3 runs" in warning for warning in found.warnings)


def test_checkpoints_of_one_training_have_no_interval(tables):
    """However many there are: what they share is in all of them, and no scatter among them shows it."""
    frame = tables.simulate(sizes=(82_900,), seeds=1, tokens=tuple(1e6 * 2**k for k in range(8)))
    found = analysis.fit("kumar_ptq", frame, hold={"gamma_N": 0.5}, bootstrap=100)
    assert found.bootstrap.kind == "none" and np.isnan(found.interval("gamma_D")).all()
    assert any("no intervals: all rows are of one chain" in warning for warning in found.warnings)


def test_copies_of_rows_within_a_cluster_add_no_certainty(tables):
    frame = tables.simulate()
    once = analysis.fit("kumar_ptq", frame, bootstrap=200)
    again = analysis.fit("kumar_ptq", pd.concat([frame] * 3), bootstrap=200)
    widths = [np.diff(fit.interval("gamma_D"))[0] for fit in (once, again)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_same_seed_same_draws(tables):
    """The interval of a parameter hangs on no seed, that of a prediction on the draws."""
    frame = tables.simulate()
    at = pd.DataFrame({"N": [1e5], "D": [1e8], "P_post": [4.0]})
    one, same, other = (analysis.fit("kumar_ptq", frame, bootstrap=50, seed=s) for s in (1, 1, 2))
    assert one.interval("gamma_N") == same.interval("gamma_N") == other.interval("gamma_N")
    assert one.predict_se(at) == same.predict_se(at) != other.predict_se(at)


@pytest.fixture(scope="module")
def fitted():
    return prepare("kumar_ptq", simulated(LADDER, NOISES[0], np.random.default_rng(0)), Options())


@pytest.mark.parametrize("kind", ["clusters", "sizes"])
def test_each_group_is_left_out(fitted, kind):
    """Against fits of the tables without a group, on the same standard deviations."""
    frame = fitted.frame
    made = clusters(frame) if kind == "clusters" else groups(frame)
    assert made.kind == kind
    logs = []
    for k in range(made.count):
        keep = made.labels != k
        part = dataclasses.replace(
            fitted.problem,
            x={name: values[keep] for name, values in fitted.problem.x.items()},
            y=fitted.problem.y[keep],
            sd=fitted.problem.sd[keep],
        )
        start = part.inside(fitted.params)[None]
        point = minimise(part.evaluate, start, *part.box(), floats_each=part.floats_each).points
        logs.append(np.log(part.outside(point)[0, -1]))
    k = {"clusters": 10, "sizes": 5}[kind]
    se = np.sqrt((k - 1) / k * np.sum((np.array(logs) - np.mean(logs)) ** 2))
    half = stats.t.ppf(0.975, {"clusters": 8, "sizes": 4}[kind]) * se
    found = jackknife_intervals(fitted, leave_out(fitted, made.labels), kind)["C_T"]
    centre = np.log(fitted.params["C_T"])
    assert (np.log(found.low), np.log(found.high)) == pytest.approx((centre - half, centre + half), rel=1e-5)
    assert found.se == pytest.approx(se * fitted.params["C_T"], rel=1e-5)


def test_a_group_without_word_on_a_parameter_does_not_count(fitted):
    """Five groups of which only three move a parameter are three groups for it."""
    point, k = fitted.best, 5
    place = fitted.problem.law.symbols.index("gamma_D")
    without = np.tile(point, (k, 1))
    without[:3, place] += [0.01, -0.02, 0.03]
    found = jackknife_intervals(fitted, without, "sizes")["gamma_D"]
    se = np.sqrt(2 / 3 * np.sum((np.array([0.01, -0.02, 0.03]) - 0.02 / 3) ** 2))
    assert found.se == pytest.approx(se, rel=1e-6)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * se, rel=1e-6)


def test_a_coefficient_that_vanishes_without_a_group_has_a_finite_interval(tables):
    """E is zero in some refits: its logarithm would make the interval NaN or everything."""
    frame = tables.simulate(post=(), noise=3.0, seed=3)
    made = prepare("chinchilla", frame, Options())
    without = np.tile(made.best, (4, 1))
    place = made.problem.law.symbols.index("E")
    without[:2, place] = 0.0
    without[2:, place] *= 1.5
    interval = jackknife_intervals(made, without, "clusters")["E"]
    assert interval.low == 0
    assert made.params["E"] < interval.high < 50 * max(made.params["E"], 0.1)


def test_intervals_of_many_groups_are_those_of_the_draws():
    """Sixty runs without clusters: quantiles of the draws, stretched about the estimate on the parameter's scale."""
    frame = simulated(LADDER, NOISES[0], np.random.default_rng(0)).drop(columns="cluster")
    found = analysis.fit("kumar_ptq", frame, bootstrap=100, seed=5)
    k = 60
    assert (found.bootstrap.kind, found.bootstrap.clusters, found.bootstrap.left_out) == ("runs", k, "none")
    reach = np.sqrt((k + 1) / (k - 2)) * stats.t.ppf(0.975, k - 2) / stats.norm.ppf(0.975)
    assert found.bootstrap.reach == pytest.approx(reach)
    for j, p in enumerate(found.law.ordered):
        ends = p.forward(np.quantile(found.draws[:, j], [0.025, 0.975], method="nearest"))
        centre = p.forward(found.params[p.symbol])
        stretched = np.sort(p.backward(centre + reach * (ends - centre)))
        assert found.interval(p.symbol) == pytest.approx(tuple(stretched), rel=1e-6), p.symbol


def test_draws_are_stretched_to_the_jackknife(tables):
    """On the rows of the table: half of the predictions' standard errors are above the jackknife's, half below."""
    frame = simulated(LADDER, NOISES[1], np.random.default_rng(4))
    found = analysis.fit("kumar_ptq", frame, bootstrap=200)
    assert (found.bootstrap.kind, found.bootstrap.clusters) == ("clusters", 10)
    assert (found.bootstrap.left_out, found.bootstrap.groups) == ("sizes", 5)
    assert found.bootstrap.t == pytest.approx(stats.t.ppf(0.975, 4))
    fitted = prepare("kumar_ptq", frame, Options())
    predicted = fitted.problem.predict(leave_out(fitted, groups(fitted.frame).labels))
    jack = np.sqrt(4 / 5 * np.sum((predicted - predicted.mean(axis=0)) ** 2, axis=0))
    assert np.median(found.predict_se(fitted.frame) / jack) == pytest.approx(1.0, rel=1e-3)


def test_noise_free_intervals_have_no_width(tables):
    found = analysis.fit("chinchilla", tables.simulate(noise=0, post=()), bootstrap=50)
    for symbol, value in found.params.items():
        assert found.interval(symbol) == pytest.approx((value, value), rel=1e-5)


def test_a_parameter_that_the_table_lacks_has_an_open_interval():
    """Losses that do not depend on D leave B without a lower end and say nothing about beta: it has no interval."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)] * 2, columns=["N", "D"])
    frame["loss"] = (40 * frame["N"] ** -0.3 + 1.2) * np.exp(0.003 * draw.standard_normal(len(frame)))
    found = analysis.fit("chinchilla", frame, bootstrap=200)
    assert found.interval("B")[0] < 1e-6 or found.interval("B")[1] > 1e6
    assert found.status == "unidentified" and np.isnan(found.interval("beta")).all()


@pytest.mark.slow
def test_intervals_cover_the_truth(tables):
    """20 simulated studies with run, bit, chain and window noise; 95% of 60 intervals is 57."""
    hits = 0
    for seed in range(20):
        found = analysis.fit("kumar_ptq", tables.simulate(seed=seed), bootstrap=100)
        for symbol in ("gamma_D", "gamma_N", "gamma_post"):
            low, high = found.interval(symbol)
            hits += low <= tables.GAP[symbol] <= high
    assert hits >= 49


def test_prediction_errors_grow_beyond_the_table(tables):
    """At the middle of the table a prediction is far surer than at 100 times the tokens."""
    found = analysis.fit("kumar_ptq", tables.simulate(), bootstrap=200)
    frame = pd.DataFrame({"N": [82_900.0] * 2, "D": [3e6, 3e8], "P_post": [4.0] * 2})
    relative = found.predict_se(frame) / found.predict(frame)
    assert 0.01 < relative[0] < 0.15
    assert relative[1] > 1.5 * relative[0]
    slope = np.log(100) * found.intervals["gamma_D"].se
    assert relative[1] == pytest.approx(np.hypot(relative[0], slope), rel=0.5)


def test_prediction_errors_where_parameters_are_poorly_identified(tables):
    """E and A trade off along a curve here: errors of parameters say nothing of the prediction."""
    sizes, tokens = (23_600, 30_000, 40_000), (1e6, 2e6, 4e6)
    found = analysis.fit("chinchilla", tables.simulate(sizes=sizes, tokens=tokens, post=()), bootstrap=200)
    frame = pd.DataFrame({"N": [30_000.0], "D": [2e6]})
    error = found.predict_se(frame)[0]
    assert error < 0.02 * found.predict(frame)[0]
    refitted = [found.law.predict(dict(zip(found.law.symbols, d, strict=True)), frame)[0] for d in found.draws]
    assert error == pytest.approx(np.std(refitted, ddof=1) * found.bootstrap.stretch)


def test_a_coefficient_that_is_always_zero_has_an_upper_end(tables):
    """With an E below zero no refit moves it; its upper end is where a fit that holds E is worse by the rule."""
    frame = tables.simulate(post=(), seed=1)
    frame["loss"] -= tables.LOSS["E"] + 0.05
    found = analysis.fit("chinchilla", frame, bootstrap=50)
    low, high = found.interval("E")
    assert (found.params["E"], low) == (0, 0) and 0 < high < 1
    limit, _ = ProfileLikelihood(prepare("chinchilla", frame, Options()), "E").clustered_limit()
    law = LAWS["chinchilla"]
    held = tuple(dataclasses.replace(p, lower=high, upper=high) if p.symbol == "E" else p for p in law.parameters)
    held = analysis.fit(dataclasses.replace(law, parameters=held), frame, bootstrap=0)
    assert held.params["E"] == pytest.approx(high)
    assert held.value - found.value == pytest.approx(limit, rel=0.05)
