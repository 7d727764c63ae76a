"""The best parameters of a law for a table, without intervals: `prepare` is what fits, profiles and slopes start from.

A loss law is one robust fit. A gap law is a fixed point: the rows that count are those with a small enough predicted
gap, their standard deviations are those at the predicted gap, and both are known only once the law is fitted. Iteration
starts from all rows with equal weights and ends when nothing changes.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis import table as tables
from analysis.errors import InputError
from analysis.filters import filtered
from analysis.fitting import noise
from analysis.fitting.noise import GapNoise, gap_errors
from analysis.fitting.objective import Problem
from analysis.fitting.options import Options
from analysis.fitting.selection import enough, select
from analysis.fitting.solver import Solution, minimise
from analysis.laws.law import Law
from analysis.laws.nesting import special_cases
from analysis.laws.registry import named

PUBLISHED_DELTA = 1e-3  # Huber's delta in log loss where a table has no replicates (Hoffmann et al. 2022)
STARTS = 64  # starts that are polished: the best of the law's grid
REWEIGHTINGS = 50
BETTER = 1e-9  # share by which a special case has to be better to be started from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A law at its optimum for a table.

    `frame` holds the rows that were used, `left_out` says how many others were not and why, `warnings` what bears on
    that choice. `problem`: the objective on these rows, of the law without what they do not identify; `solution`: from
    all starts; `noise`: the error model of a gap law.
    """

    options: Options
    frame: pd.DataFrame
    left_out: dict[str, int]
    warnings: list[str] = dataclasses.field(default_factory=list)
    problem: Problem
    solution: Solution
    noise: GapNoise | None = None

    @property
    def law(self) -> Law:
        return self.problem.law

    @property
    def best(self) -> np.ndarray:
        """The point (P,) with the smallest objective."""
        return self.solution.points[np.argmin(self.solution.values)]

    @property
    def params(self) -> dict[str, float]:
        values = self.problem.outside(self.best[None])[0]
        return dict(zip(self.law.symbols, map(float, values), strict=True))

    @property
    def value(self) -> float:
        """The objective at `best`."""
        return float(self.solution.values.min())


def prepare(law: str | Law, table: pd.DataFrame, options: Options) -> Fitted:
    """Choose the rows of `table` that `law` describes and find the law's optimum for them.

    Raises:
        InputError: no such law, a bad filter, a missing or bad column, too few rows or different values, a parameter to
            hold that the law does not have, or no start gives every row a prediction.
    """
    law = named(law) if isinstance(law, str) else law
    rows = tables.ordered(filtered(table, options.filter))
    selection = select(law, rows, bits=options.bits, base=options.base, weights=options.weights, hold=options.hold)
    fitted = fit_rows(selection.law, selection.frame, options)
    left_out = selection.left_out | fitted.left_out
    return dataclasses.replace(fitted, left_out=left_out, warnings=selection.warnings)


def fit_rows(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    """The optimum of `law` on `frame`, which holds only rows that it describes.

    Raises:
        InputError: no start is feasible, or too few rows are left below `options.gap_below`.
    """
    return _fit_loss(law, frame, options) if law.response == "loss" else _fit_gap(law, frame, options)


def row_weights(frame: pd.DataFrame, options: Options) -> np.ndarray | None:
    """How much each row (n,) counts, one on average; None where all count alike."""
    if options.weights is None:
        return None
    weights = tables.numbers(frame, options.weights, positive=True)
    return weights / weights.mean()


def optimum(problem: Problem, starts: np.ndarray) -> Solution:
    """The problem solved from `starts`, and from the optima of the law's special cases where one is better.

    Raises:
        InputError: no start is feasible.
    """
    solution = _polish(problem, starts)
    for inner, into in special_cases(problem.law):
        case = dataclasses.replace(problem, law=inner, x={name: problem.x[name] for name in inner.variables})
        try:
            nested = optimum(case, case.projected_starts(STARTS))
        except InputError:  # nothing is feasible there
            continue
        best = np.argmin(nested.values)
        if nested.values[best] < solution.values.min() * (1 - BETTER):
            values = dict(zip(inner.symbols, case.outside(nested.points[[best]])[0], strict=True))
            lower, upper = problem.box()
            more = _polish(problem, np.clip(problem.inside(into(values)), lower, upper)[None])
            solution = Solution(
                **{
                    f.name: np.concatenate([getattr(solution, f.name), getattr(more, f.name)])
                    for f in dataclasses.fields(Solution)
                }
            )
    return solution


def _polish(problem: Problem, starts: np.ndarray) -> Solution:
    lower, upper = problem.box()
    solution = None
    if len(starts):
        solution = minimise(problem.evaluate, starts, lower, upper, floats_each=problem.floats_each)
    if solution is None or not np.isfinite(solution.values).any():
        raise InputError(f"{problem.law.name}: no start gives every row a prediction; leave out the lowest widths")
    return solution


def _fit_loss(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    delta = np.inf
    if options.objective == "huber":
        sd = noise.seed_sd(frame)
        delta = options.huber_delta or (PUBLISHED_DELTA if sd is None else noise.HUBER_OF_SD * sd)
    y, scale = frame["loss"].to_numpy(float), "linear" if options.objective == "loss_squares" else "log"
    weights = row_weights(frame, options)
    problem = Problem(law=law, x=law.inputs(frame), y=y, scale=scale, delta=delta, row_weights=weights)
    solution = optimum(problem, problem.projected_starts(STARTS))
    return Fitted(options=options, frame=frame, left_out={}, problem=problem, solution=solution)


def _fit_gap(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    inside, seen = np.ones(len(frame), bool), []
    while not any(np.array_equal(inside, earlier) for earlier in seen):
        seen.append(inside)
        fitted = _reweighted(law, frame[inside], options)
        inside = law.predict(fitted.params, frame) < options.gap_below
        enough(law, frame[inside], left_out=int((~inside).sum()))
    beyond = int((~seen[-1]).sum())
    reason = f"predicted gap of {options.gap_below:g} nats or more"
    return dataclasses.replace(fitted, left_out={reason: beyond} if beyond else {})


def _reweighted(law: Law, frame: pd.DataFrame, options: Options) -> Fitted:
    gap, errors = frame[law.response].to_numpy(float), gap_errors(frame, law.response)
    equal, weights = np.full(len(gap), np.sqrt(np.mean(gap**2))), row_weights(frame, options)
    problem = Problem(law=law, x=law.inputs(frame), y=gap, scale="linear", sd=equal, row_weights=weights)
    starts = problem.projected_starts(STARTS)
    solution = _polish(problem, starts)
    best = solution.points[np.argmin(solution.values)]
    for _ in range(REWEIGHTINGS):
        prediction = problem.predict(best[None])[0]
        model = noise.estimate(gap, prediction, errors, len(law.free), weights)
        problem = dataclasses.replace(problem, sd=model.sd(prediction, errors))
        before, best = best, _polish(problem, best[None]).points[0]
        if np.allclose(before, best, rtol=1e-9, atol=1e-12):
            break
    solution = optimum(problem, np.vstack([starts, best]))
    return Fitted(options=options, frame=frame, left_out={}, problem=problem, solution=solution, noise=model)
