"""Intervals by leaving groups of runs out, and draws for what follows from a fit.

Runs of one (N, seed) chain share their noise, and all runs of one size share what a law lacks at that size. So the
interval of a parameter is a jackknife: the law is refitted without each group in turn, groups being the sizes where
there are at least four of them and none holds most rows, else the chains. Its standard error is read against
Student's t with one degree of freedom less than sizes, two less than chains (`coverage` measures how often that holds
the truth; reweighting a group understates what it does to a fit that depends on few groups, leaving it out does not).

What follows from several parameters together is computed for each of a number of draws: refits of copies in which
chains are weighed by independent exponential variates (the Bayesian bootstrap; drawing whole chains with replacement
would lose one of two sizes in every eighth draw of four chains, and with it the exponent of N). Draws keep parameters
together that are barely identified, but scatter too little. By how much, the jackknife says of the predictions for the
table's own rows: that factor, their median, stretches whatever is computed from draws.

Of more than thirty chains none weighs much, and a jackknife of an objective that is nearly a sum of absolute values
(Huber's with a small delta) does not converge to anything: there the draws make the intervals of parameters too,
stretched by sqrt((k + 1) / (k - 2)) and read against Student's t with k - 2 degrees of freedom.

Two or three chains say next to nothing about their own scatter: then runs are taken as if they were independent, and
the interval is marked as not to be trusted. One chain, such as the checkpoints of one training, has no interval: what
its runs share is in all of them.
"""

import dataclasses
import math

import numpy as np
import pandas as pd
from scipy import stats

from analysis.fitting.estimate import Fitted
from analysis.fitting.noise import gap_errors
from analysis.fitting.objective import Problem
from analysis.fitting.solver import minimise
from analysis.laws.law import Parameter

LEAST_CLUSTERS = 4
LEAST_SIZES = 4
MOST_GROUPS = 30  # that are left out in turn
STORED_DRAWS = 200  # stored with a fit
LEVEL = 0.95
DRAW_REWEIGHTINGS = 2  # rounds in which a draw's own predictions set the standard deviations of gaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """Rows that stand or fall together: `labels` (n,) numbers each row's group from zero, `kind` says what a group is.

    Not `trusted` where runs of one chain are taken as independent, so that intervals are likely too narrow.
    """

    kind: str
    labels: np.ndarray
    trusted: bool = True

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def degrees(self) -> int:
        """Of freedom of a jackknife over all of them."""
        return degrees(self.kind, self.count)


def degrees(kind: str, count: int) -> int:
    """Degrees of freedom of a jackknife over so many groups. Chains are not quite independent of each other."""
    return max(1, count - (1 if kind == "sizes" else 2))


def quantile(freedom: int) -> float:
    """Student's t that a standard error is multiplied by."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals were made.

    `kind` is what was drawn: clusters, runs, rows, or none for no intervals, `clusters` how many there are; `left_out`
    what was left out in turn (none: the draws are all there is) and `groups` how many of those. `t` is Student's
    quantile by which a standard error is multiplied, 0 without intervals; `stretch` by how much the scatter of draws
    understates it. `trusted` is false where runs of one cluster were taken as independent, so that the interval is
    likely too narrow.
    """

    kind: str
    clusters: int
    left_out: str
    groups: int
    draws: int
    seed: int
    level: float = LEVEL
    t: float
    stretch: float
    trusted: bool

    @classmethod
    def none(cls, *, clusters: int = 0, seed: int = 0) -> "Bootstrap":
        """Without intervals."""
        return cls(
            kind="none",
            clusters=clusters,
            left_out="none",
            groups=0,
            draws=0,
            seed=seed,
            t=0.0,
            stretch=math.nan,
            trusted=False,
        )

    @property
    def freedom(self) -> int:
        """Degrees of freedom of `t`."""
        return degrees(self.left_out, self.groups) if self.groups else degrees(self.kind, self.clusters)

    def describe(self) -> str:
        """How intervals were made, in words."""
        if not self.draws:
            return "none"
        how = f"each of {self.groups} {self.left_out} left out" if self.groups else f"{self.clusters} {self.kind} drawn"
        return f"{how}, Student's t with {self.freedom} degrees of freedom"

    @property
    def reach(self) -> float:
        """Half the width of an interval over that of the middle 95% of the draws."""
        return self.stretch * self.t / float(stats.norm.ppf(0.5 + self.level / 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95% interval and its standard error, all in one unit; NaN where the table is too small for
    them."""

    value: float
    low: float = math.nan
    high: float = math.nan
    se: float = math.nan

    @property
    def sure(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Intervals by symbol, and the refits from which all other intervals follow."""

    bootstrap: Bootstrap
    intervals: dict[str, Interval]
    draws: np.ndarray | None
    """(<= STORED_DRAWS, P) refitted parameters in natural units, not stretched. What follows from a fit is computed for
    each of them: a covariance cannot say how parameters that are barely identified go together."""
    warnings: list[str]


def uncertainty(fitted: Fitted) -> Uncertainty:
    """Refit a law from its optimum without each group, and so many reweighted copies of its problem as the options
    say."""
    problem, draws, seed = fitted.problem, fitted.options.bootstrap, fitted.options.seed
    chains, left_out = clusters(fitted.frame), groups(fitted.frame)
    if draws == 0 or chains.count < LEAST_CLUSTERS:
        what = f"only {chains.count} {chains.kind} to draw from"
        if chains.kind == "clusters" and chains.count == 1:
            what = "all rows are of one chain (column cluster), such as the checkpoints of one training"
        lines = [f"no intervals: {what}; needs at least {LEAST_CLUSTERS}"]
        made = Bootstrap.none(clusters=chains.count, seed=seed)
        return Uncertainty(bootstrap=made, intervals={}, draws=None, warnings=lines if draws else [])
    drawn = _refit(fitted, _weights(chains.labels, draws, seed))
    few = left_out.count <= MOST_GROUPS
    without = leave_out(fitted, left_out.labels) if few else None
    made = Bootstrap(
        kind=chains.kind,
        clusters=chains.count,
        left_out=left_out.kind if few else "none",
        groups=left_out.count if few else 0,
        draws=draws,
        seed=seed,
        t=quantile((left_out if few else chains).degrees),
        stretch=_stretch(problem, without, drawn, chains.count) if few else least_stretch(chains.count),
        trusted=chains.trusted,
    )
    values = problem.outside(drawn)
    if few:
        intervals = jackknife_intervals(fitted, without, left_out.kind)
    else:
        ordered = enumerate(fitted.law.ordered)
        intervals = {p.symbol: of_draws(p, fitted.params[p.symbol], values[:, j], made) for j, p in ordered}
    lines = []
    if not chains.trusted:
        lines.append(
            f"fewer than {LEAST_CLUSTERS} clusters: intervals take {chains.count} runs as independent, do not trust "
            "their width"
        )
    return Uncertainty(bootstrap=made, intervals=intervals, draws=values[:STORED_DRAWS], warnings=lines)


def clusters(frame: pd.DataFrame) -> Groups:
    """The chains of a table: its clusters, or its runs or rows where it names none or too few."""
    named = [c for c in ("cluster", "run_id") if c in frame and frame[c].notna().all()]
    if not named:
        return Groups(kind="rows", labels=np.arange(len(frame)))
    labels = pd.factorize(frame[named[0]])[0]  # by their place among ordered rows
    # A table without clusters does not say that its runs share anything.
    if named[0] == "run_id":
        return Groups(kind="runs", labels=labels)
    if 1 < labels.max() + 1 < LEAST_CLUSTERS and "run_id" in named:
        return Groups(kind="runs", labels=pd.factorize(frame["run_id"])[0], trusted=False)
    return Groups(kind="clusters", labels=labels)


def groups(frame: pd.DataFrame) -> Groups:
    """What a jackknife leaves out in turn: sizes where there are enough of them, else chains."""
    chains = clusters(frame)
    if chains.kind != "clusters":
        return chains
    sizes, counts = np.unique(frame["N"], return_counts=True)
    if LEAST_SIZES <= len(sizes) < chains.count and 2 * counts.max() <= len(frame):
        return Groups(kind="sizes", labels=np.searchsorted(sizes, frame["N"]))
    return chains


def leave_out(fitted: Fitted, labels: np.ndarray) -> np.ndarray:
    """Optima (k, P) without each of the k groups. Standard deviations of gaps stay those of the whole table."""
    k = int(labels.max()) + 1
    left = dataclasses.replace(fitted.problem, weights=(labels != np.arange(k)[:, None]).astype(float))
    return minimise(left.evaluate, np.tile(fitted.best, (k, 1)), *left.box(), floats_each=left.floats_each).points


def jackknife_intervals(fitted: Fitted, without: np.ndarray, kind: str) -> dict[str, Interval]:
    """Intervals by symbol from the optima `without` (k, P) each group of this `kind`.

    The variance is (k - 1) / k times the sum of squares about their mean, k the groups that inform a parameter: without
    the others it does not move.
    """
    values, intervals = fitted.problem.outside(without), {}
    for j, p in enumerate(fitted.law.ordered):
        best = fitted.params[p.symbol]
        informed = ~np.isclose(values[:, j], best, rtol=1e-9, atol=0.0)
        if informed.sum() < 2:
            informed[:] = True
        t = quantile(degrees(kind, int(informed.sum())))
        intervals[p.symbol] = _interval(p, best, values[informed, j], t)
    return intervals


def _interval(p: Parameter, value: float, values: np.ndarray, t: float) -> Interval:
    scale = _Scale.of(p, value, values)
    se = float(_scatter(scale.moved))
    return scale.interval(scale.centre - t * se, scale.centre + t * se, se)


def of_draws(p: Parameter, value: float, values: np.ndarray, made: Bootstrap) -> Interval:
    """From draws (S,) of a parameter: their middle 95%, stretched about the estimate `value`."""
    scale = _Scale.of(p, value, values)
    # "nearest": a draw at infinity must not turn the quantile next to it into NaN.
    tails = np.quantile(scale.moved, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], method="nearest")
    low, high = scale.centre + (tails - scale.centre) * made.reach
    return scale.interval(low, high, float(np.std(scale.moved, ddof=1) * made.stretch))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scale:
    """Where an interval is made: on the scale on which the parameter is nearly normal, or on its own where a value of
    zero has no place there."""

    parameter: Parameter
    own: bool
    value: float
    centre: float
    moved: np.ndarray

    @classmethod
    def of(cls, p: Parameter, value: float, values: np.ndarray) -> "_Scale":
        with np.errstate(divide="ignore", over="ignore"):
            centre, moved = float(p.forward(value)), p.forward(values)
        if np.isfinite(centre) and np.isfinite(moved).all():
            return cls(parameter=p, own=False, value=value, centre=centre, moved=moved)
        return cls(parameter=p, own=True, value=value, centre=value, moved=values)

    def interval(self, low: float, high: float, se: float) -> Interval:
        p, edges = self.parameter, np.array([self.parameter.lower, self.parameter.upper])
        with np.errstate(divide="ignore", over="ignore"):
            ends = np.clip([low, high], *np.sort(edges if self.own else p.forward(edges)))
            low, high = np.sort(ends if self.own else p.backward(ends))
        se = se if self.own else float(se * abs(p.slope(np.array(self.value))))
        return Interval(value=self.value, low=float(low), high=float(high), se=se)


def _scatter(values: np.ndarray) -> np.ndarray:
    """The jackknife's standard error (...) from k values (k, ...)."""
    k = len(values)
    return np.sqrt((k - 1) / k * np.sum((values - values.mean(axis=0)) ** 2, axis=0))


def _stretch(problem: Problem, without: np.ndarray, drawn: np.ndarray, count: int) -> float:
    """The jackknife's standard error of a prediction over the draws' scatter: the median over rows."""
    least = least_stretch(count)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = _scatter(problem.predict(without)) / np.std(problem.predict(drawn), axis=0, ddof=1)
    ratio = ratio[np.isfinite(ratio)]
    return float(max(least, np.median(ratio))) if len(ratio) else least


def least_stretch(count: int) -> float:
    """By how much draws with exponential weights of k clusters understate a standard error at least."""
    return float(np.sqrt((count + 1) / (count - 2)))


def _weights(labels: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, n): the weight of each row in each draw, one a unit on average."""
    each = np.random.default_rng(seed).standard_exponential((draws, int(labels.max()) + 1))
    return (each / each.mean(axis=1, keepdims=True))[:, labels]


def _refit(fitted: Fitted, weights: np.ndarray) -> np.ndarray:
    """Optima (draws, P) with the rows weighed anew by `weights` (draws, n)."""
    problem, noise = fitted.problem, fitted.noise
    lower, upper = problem.box()
    points = np.tile(fitted.best, (len(weights), 1))
    for _ in range(1 if noise is None else DRAW_REWEIGHTINGS):
        sd = None if noise is None else noise.sd(problem.predict(points), gap_errors(fitted.frame, fitted.law.response))
        trial = dataclasses.replace(problem, sd=sd, weights=weights)
        points = minimise(
            trial.evaluate, points, lower, upper, floats_each=trial.floats_each, iterations=60, tolerance=1e-8
        ).points
    return points
