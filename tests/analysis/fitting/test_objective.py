"""The objective's value by hand, its derivatives by finite differences, its starts by another least-squares solver."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from analysis.fitting.objective import Problem, huber
from analysis.laws.registry import LAWS

CASES = ("chinchilla", "chinchilla_tied", "kumar_ptq", "kumar_neff")


def problem_of(name, tables, delta=0.01):
    law = LAWS[name]
    frame = tables.simulate(seeds=1, trained=tables.TRAINED if name == "kumar_neff" else ((16, 16, 16),))
    frame = frame[frame["gap"].notna() if law.response == "gap" else frame["gap"].isna()]
    x = {v: frame[v].to_numpy(float) for v in law.variables}
    draw = np.random.default_rng(5)
    if law.response == "gap":
        sd = draw.uniform(0.01, 0.1, len(frame))
        return Problem(law=law, x=x, y=frame["gap"].to_numpy(), scale="linear", sd=sd)
    return Problem(law=law, x=x, y=frame["loss"].to_numpy(), scale="log", delta=delta)


def test_huber_by_hand():
    np.testing.assert_allclose(huber(np.array([0.5, -1.0, 3.0, -3.0]), 1.0), [0.125, 0.5, 2.5, 2.5])
    np.testing.assert_allclose(huber(np.array([3.0]), np.inf), [4.5])


@pytest.mark.parametrize("name", CASES)
def test_gradient_matches_finite_differences(name, tables):
    problem = problem_of(name, tables)
    truth = tables.LOSS | tables.GAP | tables.PARTS
    points = problem.inside({s: truth[s] for s in problem.law.symbols}) * np.linspace(0.9, 1.1, 3)[:, None]
    weights = np.random.default_rng(3).exponential(size=(3, len(problem.y)))
    problem = dataclasses.replace(problem, weights=weights)
    rows = np.arange(3)
    local = problem.evaluate(points, rows)
    for j in range(points.shape[1]):
        step = 1e-6 * np.maximum(np.abs(points[:, j]), 1e-3)
        ends = []
        for sign in (-1, 1):
            moved = points.copy()
            moved[:, j] += sign * step
            ends.append(problem.evaluate(moved, rows).value)
        np.testing.assert_allclose(local.gradient[:, j], (ends[1] - ends[0]) / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_points_and_natural_values_are_inverse(name, tables):
    problem = problem_of(name, tables)
    truth = tables.LOSS | tables.GAP | tables.PARTS
    values = {s: truth[s] for s in problem.law.symbols}
    point = problem.inside(values)
    np.testing.assert_allclose(problem.outside(point[None])[0], list(values.values()), rtol=1e-12)
    frame = problem.x
    np.testing.assert_allclose(problem.predict(point[None])[0], problem.law.predict(values, frame), rtol=1e-12)


def test_majorant_is_at_least_the_curvature(tables):
    problem = problem_of("chinchilla", tables, delta=1e-4)
    point = problem.projected_starts(1)
    local = problem.evaluate(point, np.zeros(1, int))
    difference = local.majorant[0] - local.curvature[0]
    assert np.linalg.eigvalsh(difference).min() > -1e-9 * np.abs(difference).max()
    assert np.linalg.eigvalsh(local.majorant[0]).min() > 0


def test_starts_project_the_coefficients(tables):
    """Each start's coefficients are the best non-negative ones for its exponents, and the best starts come first."""
    problem = problem_of("chinchilla", tables)
    starts = problem.projected_starts(1000)
    assert len(starts) == 64
    costs = []
    for point in starts:
        alpha, beta = np.exp(0) * point[:2]
        middle = {k: np.exp(np.log(v).mean()) for k, v in problem.x.items()}
        matrix = np.column_stack(
            [
                (problem.x["N"] / middle["N"]) ** -alpha,
                (problem.x["D"] / middle["D"]) ** -beta,
                np.ones(len(problem.y)),
            ]
        )
        best = lsq_linear(matrix / problem.y[:, None], np.ones(len(problem.y)), bounds=(0, np.inf), tol=1e-14)
        cost = np.sum((matrix @ point[2:] / problem.y - 1) ** 2)
        assert cost <= 2 * best.cost * (1 + 1e-6) + 1e-12
        assert (point[2:] >= 0).all()
        costs.append(cost)
    assert np.all(np.diff(costs) >= -1e-12)


def test_infeasible_grid_points_are_dropped(tables):
    """With activations at 1 bit part of the grid of (gamma, n) leaves no effective parameters."""
    law = LAWS["kumar_neff"]
    trained = tuple((16, b, 16) for b in (4, 6, 16))
    frame = tables.simulate(seeds=1, trained=trained, post=())
    frame.loc[frame.index[::3], "P_a"] = 1
    law = law.without({"P_w", "P_kv"})
    x = {v: frame[v].to_numpy(float) for v in law.variables}
    problem = Problem(law=law, x=x, y=frame["loss"].to_numpy(), scale="log")
    starts = problem.projected_starts(10_000)
    gammas, shifts = starts[:, 2], starts[:, 3]
    assert 0 < len(starts) < 4 * 4 * 6
    assert (np.exp(-1 * gammas + shifts) < 1).all()
