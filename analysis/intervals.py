"""Intervals by bootstrap of clusters, corrected for how few there are.

Runs of one (N, seed) chain share their luck, so chains and not rows are what is drawn. Each draw weighs the clusters
by independent exponential variates (the Bayesian bootstrap): with four clusters of two model sizes, drawing whole
clusters with replacement would lose one size in every eighth draw, and with it the exponent of N. All draws are
refitted from the optimum, side by side.

With k clusters the scatter of draws understates the error, so it is stretched by sqrt((k + 1) / (k - 2)) and read
against Student's t with k - 2 degrees of freedom. Three clusters or fewer say nothing about their own scatter: then
runs are drawn as if they were independent, and the interval is marked as not to be trusted.
"""

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from analysis.law import Parameter
from analysis.noise import GapNoise, gap_errors
from analysis.objective import Problem
from analysis.solver import minimise

LEAST_CLUSTERS = 4
KEPT = 200  # draws that are kept with a fit
LEVEL = 0.95
REWEIGHTINGS = 2  # rounds in which a draw's own predictions set the standard deviations of gaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals were made. `kind` is what was drawn: clusters, runs, rows, or none for no intervals.

    `t` is Student's quantile by which a standard error is multiplied, 0 without intervals. `trusted` is false where
    runs of one cluster were taken as independent, so that the interval is likely too narrow.
    """

    kind: str
    clusters: int
    draws: int
    seed: int
    level: float = LEVEL
    t: float
    trusted: bool

    @property
    def stretch(self) -> float:
        """By how much the scatter of draws of so few clusters understates the standard error; NaN without draws."""
        return float(np.sqrt((self.clusters + 1) / (self.clusters - 2))) if self.draws else float("nan")

    @property
    def reach(self) -> float:
        """Half the width of an interval over that of the middle 95% of the draws."""
        return self.stretch * self.t / float(stats.norm.ppf(0.5 + self.level / 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95% interval and a standard error, in the parameter's unit."""

    low: float
    high: float
    se: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Intervals by symbol, and the covariance (P, P) of the transformed parameters in the law's order."""

    bootstrap: Bootstrap
    intervals: dict[str, Interval]
    covariance: np.ndarray | None
    draws: np.ndarray | None
    """(<= KEPT, P) refitted parameters in natural units, as they were found: not stretched. What follows from a fit is
    computed for each of them: a covariance cannot say how parameters that are barely told apart go together."""
    warnings: list[str]


def bootstrap(
    problem: Problem, point: np.ndarray, frame: pd.DataFrame, *, draws: int, seed: int, noise: GapNoise | None
) -> Spread:
    """Refit `draws` reweighted copies of `problem` from its optimum `point` (P,)."""
    kind, labels, trusted = units(frame)
    k = int(labels.max()) + 1
    if draws == 0 or k < LEAST_CLUSTERS:
        made = Bootstrap(kind="none", clusters=k, draws=0, seed=seed, t=0.0, trusted=False)
        warnings = [f"no intervals: only {k} {kind} to draw from, needs at least {LEAST_CLUSTERS}"] if draws else []
        return Spread(bootstrap=made, intervals={}, covariance=None, draws=None, warnings=warnings)
    values = problem.outside(_refit(problem, point, _weights(labels, draws, seed), frame, noise))
    best = problem.outside(point[None])[0]
    t = float(stats.t.ppf(0.5 + LEVEL / 2, k - 2))
    stretch = float(np.sqrt((k + 1) / (k - 2)))
    moved = np.column_stack([p.forward(values[:, j]) for j, p in enumerate(problem.law.ordered)])
    finite = np.isfinite(moved).all(axis=1)  # a coefficient of zero has no logarithm
    warnings = []
    if not trusted:
        warnings.append(
            f"fewer than {LEAST_CLUSTERS} clusters: intervals take {k} runs as independent, do not trust their width"
        )
    return Spread(
        bootstrap=Bootstrap(kind=kind, clusters=k, draws=draws, seed=seed, t=t, trusted=trusted),
        intervals={
            p.symbol: _interval(p, moved[:, j], float(best[j]), stretch, t) for j, p in enumerate(problem.law.ordered)
        },
        covariance=np.cov(moved[finite], rowvar=False) * stretch**2 if finite.sum() > 1 else None,
        draws=values[:KEPT],
        warnings=warnings,
    )


def units(frame: pd.DataFrame) -> tuple[str, np.ndarray, bool]:
    """What to draw: its kind, the number (n,) of each row's unit, and whether units are independent."""
    named = [c for c in ("cluster", "run_id") if c in frame and frame[c].notna().all()]
    if not named:
        return "rows", np.arange(len(frame)), True
    labels = pd.factorize(frame[named[0]])[0]
    # A table without clusters does not say that its runs share anything.
    if named[0] == "run_id":
        return "runs", labels, True
    if labels.max() + 1 < LEAST_CLUSTERS and "run_id" in named:
        return "runs", pd.factorize(frame["run_id"])[0], False
    return "clusters", labels, True


def _weights(labels: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, n): the weight of each row in each draw, one a unit on average."""
    each = np.random.default_rng(seed).standard_exponential((draws, int(labels.max()) + 1))
    return (each / each.mean(axis=1, keepdims=True))[:, labels]


def _refit(problem, point, weights, frame, noise) -> np.ndarray:
    lower, upper = problem.box()
    points = np.tile(point, (len(weights), 1))
    for _ in range(1 if noise is None else REWEIGHTINGS):
        sd = None if noise is None else noise.sd(problem.predict(points), gap_errors(frame, problem.law.response))
        trial = dataclasses.replace(problem, sd=sd, weights=weights)
        points = minimise(
            trial.evaluate, points, lower, upper, floats_each=trial.floats_each, iterations=60, tolerance=1e-8
        ).points
    return points


def _interval(parameter: Parameter, moved: np.ndarray, value: float, stretch: float, t: float) -> Interval:
    """Quantiles of the draws `moved` (transformed), stretched about the estimate `value` (natural)."""
    centre = float(parameter.forward(value))
    # "nearest": a draw at minus infinity must not turn the quantile next to it into NaN.
    tails = np.quantile(moved, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], method="nearest")
    if not np.isfinite(centre):  # the estimate is zero: no scale to stretch on
        return Interval(low=0.0, high=float(parameter.backward(tails[1])), se=float("nan"))
    factor = stretch * t / float(stats.norm.ppf(0.5 + LEVEL / 2))
    with np.errstate(over="ignore", divide="ignore"):
        edges = np.sort(parameter.forward(np.array([parameter.lower, parameter.upper])))
        low, high = np.sort(parameter.backward(np.clip(centre + (tails - centre) * factor, *edges)))
    finite = moved[np.isfinite(moved)]
    se = float(np.std(finite, ddof=1) * stretch * abs(parameter.slope(np.array(value)))) if len(finite) > 1 else np.nan
    return Interval(low=float(low), high=float(high), se=se)
