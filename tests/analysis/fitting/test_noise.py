"""The error model of gaps from planted residuals, the scatter between seeds by hand."""

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.noise import GapNoise, estimate, gap_errors, seed_sd


def test_planted_error_model_comes_back():
    draw = np.random.default_rng(0)
    prediction = np.geomspace(1e-3, 0.5, 20_000)
    errors = 0.02 * np.sqrt(prediction) * draw.uniform(0.5, 1.5, len(prediction))
    truth = GapNoise(a=4e-4, tau=0.12, floor=0.0)
    gap = prediction + truth.sd(prediction, errors) * draw.standard_normal(len(prediction))
    found = estimate(gap, prediction, errors, parameters=4)
    assert found.tau == pytest.approx(0.12, rel=0.05)
    assert found.a == pytest.approx(4e-4, rel=0.1)


def test_no_excess_scatter_gives_zero():
    prediction = np.linspace(0.1, 0.4, 50)
    found = estimate(prediction, prediction, np.full(50, 0.1), parameters=4)
    assert (found.a, found.tau) == (0, 0)
    np.testing.assert_allclose(found.sd(np.array([0.3]), np.array([0.1])), 0.1, rtol=1e-4)


def test_sd_by_hand():
    model = GapNoise(a=0.01, tau=0.5, floor=0.1)
    # .3^2 + .01 * 4 + (.5 * 4)^2 + .1^2 = 4.14; a negative prediction adds nothing
    np.testing.assert_allclose(model.sd(np.array([4.0, -1.0]), np.array([0.3, 0.3])), np.sqrt([4.14, 0.1]))


def test_scatter_between_seeds_by_hand():
    logs = {1e4: (0.10, 0.12, 0.14), 1e5: (0.30, 0.34)}
    rows = [
        {"N": size, "D": 1e6, "seed_init": seed, "loss": np.exp(value)}
        for size, values in logs.items()
        for seed, value in enumerate(values)
    ]
    # squares: .02^2 + 0 + .02^2 with two degrees of freedom, 2 * .02^2 with one
    assert seed_sd(pd.DataFrame(rows)) == pytest.approx(np.sqrt(4 * 0.02**2 / 3))
    assert seed_sd(pd.DataFrame(rows).drop(columns="seed_init")) is None
    assert seed_sd(pd.DataFrame(rows[:3])) is None  # two degrees of freedom are not believed


def test_missing_errors_are_zero():
    assert gap_errors(pd.DataFrame({"gap": [1.0, 2.0]})).tolist() == [0, 0]
    assert gap_errors(pd.DataFrame({"gap_se": [np.nan, 0.2]})).tolist() == [0, 0.2]
