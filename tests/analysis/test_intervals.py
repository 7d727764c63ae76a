"""Intervals: what is drawn, that copies of rows add nothing, that few clusters are told, that the truth is covered."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.intervals import units


def test_what_is_drawn():
    frame = pd.DataFrame({"N": range(12), "run_id": list("aabbccddeeff"), "cluster": list("ppppqqqqrrrr")})
    kind, labels, trusted = units(frame)
    assert (kind, trusted, labels.max()) == ("runs", False, 5)
    kind, labels, trusted = units(frame.assign(cluster=list("pppqqqrrrsss")))
    assert (kind, trusted, labels.tolist()) == ("clusters", True, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
    assert units(frame.drop(columns="cluster"))[0::2] == ("runs", True)
    assert units(frame[["N"]])[0::2] == ("rows", True)


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


def test_copies_of_rows_within_a_cluster_add_no_certainty(tables):
    frame = tables.simulate()
    once = analysis.fit("kumar_ptq", frame, bootstrap=200)
    again = analysis.fit("kumar_ptq", pd.concat([frame] * 3), bootstrap=200)
    widths = [np.diff(fit.interval("gamma_D"))[0] for fit in (once, again)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_same_seed_same_interval(tables):
    frame = tables.simulate()
    one, same, other = (analysis.fit("kumar_ptq", frame, bootstrap=50, seed=s).interval("gamma_N") for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_noise_free_intervals_have_no_width(tables):
    found = analysis.fit("chinchilla", tables.simulate(noise=0, post=()), bootstrap=50)
    for symbol, value in found.params.items():
        assert found.interval(symbol) == pytest.approx((value, value), rel=1e-5)


def test_a_parameter_that_the_table_lacks_has_an_open_interval():
    """Losses that do not depend on D leave B without a lower end and beta without any information."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)] * 2, columns=["N", "D"])
    frame["loss"] = (40 * frame["N"] ** -0.3 + 1.2) * np.exp(0.003 * draw.standard_normal(len(frame)))
    found = analysis.fit("chinchilla", frame, bootstrap=200)
    assert found.interval("B")[0] < 1e-6 or found.interval("B")[1] > 1e6
    low, high = found.interval("beta")
    assert high - low > 1
    assert 0.01 <= low <= high <= 3.0


def test_intervals_cover_the_truth(tables):
    """20 simulated studies with run, bit, chain and window noise; 95% of 60 intervals is 57."""
    hits = 0
    for seed in range(20):
        found = analysis.fit("kumar_ptq", tables.simulate(seed=seed), bootstrap=100)
        for symbol in ("gamma_D", "gamma_N", "gamma_post"):
            low, high = found.interval(symbol)
            hits += low <= tables.GAP[symbol] <= high
    assert hits >= 49


def test_prediction_errors_come_from_the_covariance(tables):
    """At the middle of the table a prediction is far surer than at 100 times the tokens."""
    found = analysis.fit("kumar_ptq", tables.simulate(), bootstrap=200)
    frame = pd.DataFrame({"N": [82_900.0] * 2, "D": [3e6, 3e8], "P_post": [4.0] * 2})
    relative = found.predict_se(frame) / found.predict(frame)
    assert 0.01 < relative[0] < 0.15
    assert relative[1] > 1.5 * relative[0]
    slope = np.log(100) * found.intervals["gamma_D"].se
    assert relative[1] == pytest.approx(np.hypot(relative[0], slope), rel=0.5)


def test_prediction_errors_where_parameters_are_barely_told_apart(tables):
    """E and A trade off along a curve here: their covariance would say several times what the draws scatter."""
    sizes, tokens = (23_600, 30_000, 40_000), (1e6, 2e6, 4e6)
    found = analysis.fit("chinchilla", tables.simulate(sizes=sizes, tokens=tokens, post=()), bootstrap=200)
    frame = pd.DataFrame({"N": [30_000.0], "D": [2e6]})
    error = found.predict_se(frame)[0]
    slopes = found.law.gradient(found.params, frame)[1]
    assert error < 0.02 * found.predict(frame)[0]
    refitted = [found.law.predict(dict(zip(found.law.symbols, d, strict=True)), frame)[0] for d in found.draws]
    assert error == pytest.approx(np.std(refitted, ddof=1) * found.bootstrap.stretch)
    assert np.sqrt(slopes[0] @ found.covariance @ slopes[0]) > error
