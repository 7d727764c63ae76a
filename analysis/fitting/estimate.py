"""How each kind of response is fitted: losses once, gaps together with their error model.

A loss law is one robust fit. A gap law is a fixed point: the rows that count are those with a small enough predicted
gap, their standard deviations are those at the predicted gap, and both are known only once the law is fitted. Iteration
starts from all rows with equal weights and ends when nothing changes.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fitting import noise
from analysis.fitting.noise import GapNoise, gap_errors
from analysis.fitting.objective import Problem
from analysis.fitting.options import Options
from analysis.fitting.selection import enough
from analysis.fitting.solver import Solution, minimise
from analysis.laws.law import Law

PUBLISHED_DELTA = 1e-3  # Huber's delta in log loss where a table has no replicates (Hoffmann et al. 2022)
STARTS = 64  # starts that are polished: the best of the law's grid
REWEIGHTINGS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """The final problem, its rows, the solutions from all starts, and the error model of a gap law."""

    problem: Problem
    frame: pd.DataFrame
    solution: Solution
    noise: GapNoise | None
    left_out: dict[str, int]

    @property
    def best(self) -> np.ndarray:
        """The point (P,) with the smallest objective."""
        return self.solution.points[np.argmin(self.solution.values)]

    @property
    def params(self) -> dict[str, float]:
        values = self.problem.outside(self.best[None])[0]
        return dict(zip(self.problem.law.symbols, map(float, values), strict=True))


def fit_rows(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    """The optimum of `law` on `frame`, which holds only rows that belong to it.

    Raises:
        InputError: no start is feasible, or too few rows are left below `options.gap_below`.
    """
    return _fit_loss(law, frame, options) if law.response == "loss" else _fit_gap(law, frame, options)


def _polish(problem: Problem, starts: np.ndarray) -> Solution:
    lower, upper = problem.box()
    solution = minimise(problem.evaluate, starts, lower, upper, floats_each=problem.floats_each)
    if not np.isfinite(solution.values).any():
        raise InputError(f"{problem.law.name}: no start gives every row a prediction; leave out the lowest widths")
    return solution


def _fit_loss(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    delta = np.inf
    if options.objective == "huber":
        sd = noise.seed_sd(frame)
        delta = options.huber_delta or (PUBLISHED_DELTA if sd is None else noise.HUBER_OF_SD * sd)
    y = frame["loss"].to_numpy(float)
    problem = Problem(law=law, x=law.inputs(frame), y=y, scale="log", delta=delta)
    solution = _polish(problem, problem.projected_starts(STARTS))
    return Fitted(problem=problem, frame=frame, solution=solution, noise=None, left_out={})


def _fit_gap(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    inside, seen = np.ones(len(frame), bool), []
    while not any(np.array_equal(inside, earlier) for earlier in seen):
        seen.append(inside)
        fitted = _reweighted(law, frame[inside])
        inside = law.predict(fitted.params, frame) < options.gap_below
        enough(law, frame[inside], left_out=int((~inside).sum()))
    beyond = int((~seen[-1]).sum())
    reason = f"predicted gap of {options.gap_below:g} nats or more"
    return dataclasses.replace(fitted, left_out={reason: beyond} if beyond else {})


def _reweighted(law: Law, frame: pd.DataFrame) -> Fitted:
    gap, errors = frame[law.response].to_numpy(float), gap_errors(frame, law.response)
    equal = np.full(len(gap), np.sqrt(np.mean(gap**2)))
    problem = Problem(law=law, x=law.inputs(frame), y=gap, scale="linear", sd=equal)
    starts = problem.projected_starts(STARTS)
    solution = _polish(problem, starts)
    best = solution.points[np.argmin(solution.values)]
    for _ in range(REWEIGHTINGS):
        prediction = problem.predict(best[None])[0]
        model = noise.estimate(gap, prediction, errors, len(law.parameters))
        problem = dataclasses.replace(problem, sd=model.sd(prediction, errors))
        before, best = best, _polish(problem, best[None]).points[0]
        if np.allclose(before, best, rtol=1e-9, atol=1e-12):
            break
    solution = _polish(problem, np.vstack([starts, best]))
    return Fitted(problem=problem, frame=frame, solution=solution, noise=model, left_out={})
