"""The profile likelihood of one parameter: where the optimum goes, and how far it rises, when that parameter is held.

Values are solved outwards from the optimum, each from where the last two point, then all side by side from the
solutions of both neighbours until none falls further, with more values where an interval ends.

Inside a fit a coefficient is stated at the table's middle, where it hardly depends on its exponent (`objective`). To
be held, it has to be the parameter itself: in `Pinned` that one is unscaled, and its coordinate is taken out of the
derivatives, so that the solver leaves it alone. E is the same in both; an exponent needs only the second half.

What rise is too much is said in two ways. The plain limit takes rows as independent: twice the rise of a gap's
objective, which is in standard deviations, against chi-square; that of a loss law divided by the variance of its
residuals (Huber's: mean psi^2 / mean psi', psi the clipped residual), against F. The clustered one stretches that by
how much more the parameter moves when whole sizes or chains are left out than its curvature says, against Student's t
as for other intervals (a profile adjusted in its height: Chandler & Bate 2007). Shapes: G values, P parameters.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy import stats

from analysis.errors import InputError
from analysis.fitting.estimate import Fitted
from analysis.fitting.intervals import LEAST_CLUSTERS, LEVEL, groups, quantile
from analysis.fitting.jackknife import one_step_jackknife
from analysis.fitting.objective import Problem
from analysis.fitting.solver import Local, minimise

STEPS = 4  # to where the rise is too much, if it were a parabola
MOST_STEPS = 30  # steps on one side, after which the side is open
STRIDE = 1.3  # growth of steps once there are more than STEPS
SWEEPS = 20
ROUNDS = 6  # of more values about the ends of intervals
CLOSE = 0.05  # ... until the root of the rise differs by less than this share from one value to the next
ENOUGH = 1e-4  # share of the largest rise inside an interval that does not move its ends
NEAR = 0.01  # ... or the end is as near to a value as this share of its step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pinned(Problem):
    """A problem in which `symbol` stays where each start has it: a coefficient as it is, others transformed."""

    symbol: str
    at_middle: bool = False
    """Whether a coefficient stays as it is stated at the table's middle."""

    @property
    def place(self) -> int:
        return self.law.symbols.index(self.symbol)

    @property
    def unscaled(self):
        return super().unscaled if self.at_middle else super().unscaled | {self.symbol}

    def evaluate(self, points: np.ndarray, rows: np.ndarray) -> Local:
        local, j = super().evaluate(points, rows), self.place
        local.gradient[:, j] = 0.0
        for matrix in (local.curvature, local.majorant):
            matrix[:, j, :] = matrix[:, :, j] = 0.0
        return local


class ProfileLikelihood:
    """The profile of one parameter of a fit. `at` is that parameter on its transformed scale, or as it is where its
    estimate is zero and has no logarithm; with `at_middle` it is what a coefficient is worth at the table's middle."""

    def __init__(self, fitted: Fitted, symbol: str, *, at_middle: bool = False):
        problem, self.groups = fitted.problem, groups(fitted.frame)
        same = {f.name: getattr(problem, f.name) for f in dataclasses.fields(Problem)}
        self.pinned = Pinned(symbol=symbol, at_middle=at_middle, **same)
        self.parameter = p = problem.law.ordered[self.pinned.place]
        self.point = self.pinned.inside(fitted.params)
        self.least = fitted.value
        self.plain = p.linear and p.transform == "log" and fitted.params[symbol] <= 0
        self.start = float(self.scaled(fitted.params[symbol]))
        self.edges = np.sort(self.scaled(np.array([p.lower, p.upper])))
        # Curvature at the optimum: how far to walk, and which way the others go.
        lower, upper = self.pinned.box()
        inner = (self.point > lower) & (self.point < upper)
        inner[self.pinned.place] = True
        self.free, self.own = np.flatnonzero(inner), int(inner[: self.pinned.place].sum())
        curvature = Problem.evaluate(self.pinned, self.point[None], np.zeros(1, int)).curvature[0]
        curvature = curvature[np.ix_(self.free, self.free)]
        unit = 1 / np.sqrt(np.maximum(np.diag(curvature), np.finfo(float).tiny))
        inverse = np.linalg.pinv(curvature * np.outer(unit, unit), rcond=1e-12, hermitian=True) * np.outer(unit, unit)
        self.variance = float(inverse[self.own, self.own])  # of the coordinate, were the objective a log likelihood
        slope = float(p.slope(self.natural(self.start))) if p.linear and not self.plain else 1.0
        self.direction = np.zeros(len(self.point))
        self.direction[self.free] = inverse[:, self.own] / self.variance * slope if self.variance > 0 else 0.0
        self.reach = np.sqrt(self.variance) / abs(slope) if self.variance > 0 else 0.05 * (1 + abs(self.start))
        # Variance of residuals in the units of the objective.
        residual = self.pinned.residuals(self.point[None])[0]
        clipped = np.clip(residual, -problem.delta, problem.delta)
        share = max(1, np.sum(np.abs(residual) <= problem.delta)) / len(residual)
        self.degrees = max(1, len(residual) - len(self.free))
        weights = 1.0 if problem.row_weights is None else problem.row_weights
        self.scale = float(np.sum(weights * clipped**2) / self.degrees / share) if problem.sd is None else 1.0
        self.enough = 1e-9 * (self.scale + self.least)  # by how much an objective has to fall to be solved again

    def scaled(self, natural):
        return np.asarray(natural, float) if self.plain else self.parameter.forward(natural)

    def natural(self, at):
        return np.asarray(at, float) if self.plain else self.parameter.backward(at)

    def plain_limit(self) -> tuple[float, str]:
        """The largest rise inside the interval, and the rule in words."""
        if self.pinned.sd is not None:
            quantile = float(stats.chi2.ppf(LEVEL, 1))
            return (
                quantile / 2,
                f"2 x rise <= {quantile:.4g}: chi-square(1), gaps in standard deviations, rows independent",
            )
        most = float(stats.f.ppf(LEVEL, 1, self.degrees))
        by = f"residual variance {self.scale:.4g} of {'ln(loss)' if self.pinned.scale == 'log' else 'loss'}"
        return most * self.scale / 2, f"2 x rise / {by} <= {most:.4g}: F(1, {self.degrees}), rows independent"

    def clustered_limit(self) -> tuple[float, str]:
        """The largest rise inside the interval that leaves groups out, and the rule in words; NaN with too few."""
        kind, k, freedom = self.groups.kind, self.groups.count, self.groups.degrees
        if k < LEAST_CLUSTERS or self.variance <= 0:
            return np.nan, f"none: {k} {kind}, needs at least {LEAST_CLUSTERS}"
        parts = dataclasses.replace(self.pinned, weights=np.eye(k)[:, self.groups.labels])
        local = Problem.evaluate(parts, np.tile(self.point, (k, 1)), np.arange(k))
        covariance = one_step_jackknife(local.curvature[:, self.free[:, None], self.free], local.gradient[:, self.free])
        stretch = float(covariance[self.own, self.own]) / self.variance
        most = quantile(freedom) ** 2
        by = f"jackknife over curvature variance {stretch:.4g}"
        kind += "" if self.groups.trusted else ", taken as independent though they share clusters"
        return most * stretch / 2, f"2 x rise / {by} <= {most:.4g}: t({freedom}) squared, {k} {kind}"

    def positions(self, values: Iterable[float]) -> np.ndarray:
        """Asked values on this scale, ascending."""
        asked, p = np.array(sorted({float(v) for v in values})), self.parameter
        good = np.isfinite(asked) & (asked >= p.lower) & (asked <= p.upper) & np.isfinite(self.scaled(asked))
        if not len(asked) or not good.all():
            given = f"{asked[~good][0]:g}" if len(asked) else "no value"
            raise InputError(f"{p.symbol}={given}: expected finite values from {p.lower:g} to {p.upper:g}")
        return np.sort(self.scaled(asked))

    def trace(self, limits: list[float], places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (G,), points (G, P) and objectives (G,) at `places`, or until the rise is above all
        `limits`, with more of them where it passes one."""
        reach = 1.1 * max(limits)
        below, above = self._walk(-1, reach, places), self._walk(1, reach, places)
        at, points = zip(*reversed(below), (self.start, self.point), *above, strict=True)
        at, points, height = self._relax(np.array(at), np.array(points))
        for _ in range(ROUNDS if places is None else 0):
            more = self._between(at, height, limits)
            if not len(more):
                break
            nearest = np.abs(at - more[:, None]).argmin(axis=1)
            joint = np.argsort(np.append(at, more), kind="stable")
            at, points, height = self._relax(np.append(at, more)[joint], np.vstack([points, points[nearest]])[joint])
        return at, points, height

    def interval(self) -> tuple[float, float]:
        """The clustered interval in the parameter's unit, the plain one where groups are too few; NaN where neither
        says anything, since nothing scatters."""
        limit = next((limit for limit, _ in (self.clustered_limit(), self.plain_limit()) if limit > 0), None)
        if limit is None:
            return np.nan, np.nan
        self.enough = ENOUGH * limit
        at, points, height = self.trace([limit])
        low, high = self.ends(at, height - min(self.least, height.min()), limit, whole=True)
        if self.pinned.at_middle and np.isfinite(high):  # in its own unit, with the exponents that it has there
            nearest = points[[np.abs(at - high).argmin()]]
            nearest[:, self.pinned.place] = high
            high = float(self.pinned.outside(nearest)[0, self.pinned.place])
        return low, high

    def _walk(self, sign: int, reach: float, places: np.ndarray | None) -> list[tuple[float, np.ndarray]]:
        """Positions and points on one side, outwards: those asked for, or until the rise is more than `reach`."""
        step = max(self.reach * np.sqrt(2 * reach) / STEPS, 1e-9 * (1 + abs(self.start)))
        edge, path = self.edges[(sign + 1) // 2], [(self.start, self.point)]
        steps = sign * step * STRIDE ** np.maximum(0, np.arange(MOST_STEPS) - STEPS)
        ahead = self.start + np.cumsum(steps) if places is None else places[sign * (places - self.start) > 0][::sign]
        for at in ahead:
            last, point = path[-1]
            at = sign * min(sign * at, sign * edge)
            if at == last:
                break
            before, earlier = path[-2] if len(path) > 1 else (last - 1.0, point - self.direction)
            guess = point + (point - earlier) * (at - last) / (last - before)
            points, values = self._solve(np.array([guess, point]), np.full(2, at))
            path.append((at, points[values.argmin()]))
            if places is None and not values.min() - self.least < reach:
                break
        return path[1:]

    def _solve(self, starts: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = np.array(starts)
        starts[:, self.pinned.place] = self.natural(at) if self.parameter.linear else at
        solution = minimise(self.pinned.evaluate, starts, *self.pinned.box(), floats_each=self.pinned.floats_each)
        return solution.points, solution.values

    def _relax(self, at: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, points and objectives, solved from both neighbours until none falls."""
        points, values = self._solve(points, at)
        here = np.arange(len(at))
        for _ in range(SWEEPS):
            before = values.copy()
            for neighbour in (np.maximum(here - 1, 0), np.minimum(here + 1, here[-1])):
                other, height = self._solve(points[neighbour], at)
                better = height < values
                points[better], values[better] = other[better], height[better]
            if not np.any(values < before - self.enough):
                break
        return at, points, values

    def _crossings(self, at: np.ndarray, rise: np.ndarray, limit: float):
        """For either side the position where the rise meets `limit`, and how wide the step is there in sqrt(rise) /
        sqrt(limit), or zero where it is all but at one of the places; None where it does not. The root of the rise
        is nearly straight in `at`."""
        root, middle = np.sqrt(np.maximum(rise, 0.0) / limit), int(np.argmin(rise))
        for sign in (-1, 1):
            side = np.arange(middle, -1 if sign < 0 else len(at), sign)
            beyond = side[root[side] > 1]
            if not len(beyond):
                yield None
                continue
            if beyond[0] == middle:  # a limit of rounding errors
                yield at[middle], 0.0
                continue
            out, inner = beyond[0], beyond[0] - sign
            share = (1 - root[inner]) / (root[out] - root[inner]) if np.isfinite(root[out]) else 0.5
            width = root[out] - root[inner] if NEAR < share < 1 - NEAR else 0.0
            yield at[inner] + share * (at[out] - at[inner]), width

    def _between(self, at: np.ndarray, height: np.ndarray, limits: list[float]) -> np.ndarray:
        """More places, where an interval ends within too wide a step."""
        rise = height - height.min()
        crossings = [c for limit in limits if limit > 0 for c in self._crossings(at, rise, limit) if c]
        return np.setdiff1d([place for place, width in crossings if width > CLOSE], at)

    def ends(self, at: np.ndarray, rise: np.ndarray, limit: float, *, whole: bool) -> tuple[float, float]:
        """The interval in the parameter's unit; an end is its bound if the walk was `whole` and met none."""
        if not limit > 0:
            return np.nan, np.nan
        ends = []
        for crossing, edge, last in zip(self._crossings(at, rise, limit), self.edges, (at[0], at[-1]), strict=True):
            open_end = edge if whole or last == edge else np.nan
            ends.append(float(self.natural(open_end if crossing is None else crossing[0])))
        return (ends[1], ends[0]) if self.parameter.transform == "reciprocal" else (ends[0], ends[1])
