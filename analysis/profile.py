"""The profile of one parameter: how much the objective rises when it is held at a value and all others are free.

E and the exponents of a loss law trade off along curved valleys, where an interval made from a covariance is wrong; the
profile follows the valley. Values are solved outwards from the optimum, each from where the last two point, then all
side by side from the solutions of both neighbours until none falls further, with more values where an interval ends.

Inside a fit a coefficient is told at the table's middle, where it is nearly independent of its exponent (`objective`).
To be held, it has to be the parameter itself: `Pinned` tells that one column as it stands, and takes its coordinate out
of the derivatives, so that the solver leaves it alone. E is the same in both; an exponent needs only the second half.

What rise is too much is said in two ways. `low`, `high` take rows as independent: twice the rise of a gap's objective,
which is in standard deviations, against chi-square; that of a loss law divided by the variance of its residuals
(Huber's: mean psi^2 / mean psi', psi the clipped residual), against F. The clustered ones stretch that by how much more
the parameter moves when whole clusters are left out than its curvature says, against Student's t as for other intervals
(a profile adjusted in its height: Chandler & Bate 2007). Shapes: G values, P parameters.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from analysis import table
from analysis.errors import InputError
from analysis.fitting import Fit
from analysis.intervals import LEAST_CLUSTERS, LEVEL, units
from analysis.law import Law
from analysis.laws import LAWS, named
from analysis.objective import Problem
from analysis.options import Options
from analysis.selection import select
from analysis.slopes import jackknife
from analysis.solver import Local, minimise
from analysis.stages import Fitted, fit_rows

STEPS = 4  # to where the rise is too much, if it were a parabola
MOST = 30  # steps on one side, after which the side is open
STRIDE = 1.3  # growth of steps once there are more than STEPS
SWEEPS = 20
ROUNDS = 6  # of more values about the ends of intervals
CLOSE = 0.05  # ... until the root of the rise differs by less than this share from one value to the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pinned(Problem):
    """A problem in which `symbol` stays where each start has it: a coefficient as it is, others transformed."""

    symbol: str

    @property
    def place(self) -> int:
        return self.law.symbols.index(self.symbol)

    def _reference(self, theta):
        logs = super()._reference(theta)
        return {k: np.zeros_like(log) if k == self.symbol else log for k, log in logs.items()}

    def _columns(self, theta):
        values, turns = super()._columns(theta)
        if self.symbol not in values:
            return values, turns
        plain = self.law.columns(theta, self.x)
        with np.errstate(over="ignore", invalid="ignore"):
            column = np.exp(plain.logs[self.symbol])
        values[self.symbol] = np.where(np.isfinite(column), column, np.inf)
        return values, turns | {pair: slope for pair, slope in plain.slopes.items() if pair[0] == self.symbol}

    def evaluate(self, points: np.ndarray, rows: np.ndarray) -> Local:
        local, j = super().evaluate(points, rows), self.place
        local.gradient[:, j] = 0.0
        for matrix in (local.curvature, local.majorant):
            matrix[:, j, :] = matrix[:, :, j] = 0.0
        return local


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """`values` (G,) of `symbol` in `unit`, ascending, the optimum among them; `rise` (G,) of the objective above its
    least value; `params` {symbol: (G,)}, the other parameters at each.

    The two 95% intervals are made by `rule` and `clustered_rule`. An end is a bound of the parameter where the rise
    stays too small up to there; NaN where the asked values do not reach far enough, or there are too few clusters.
    """

    law: str
    symbol: str
    unit: str
    estimate: float
    values: np.ndarray
    rise: np.ndarray
    params: dict[str, np.ndarray]
    low: float
    high: float
    rule: str
    clustered_low: float
    clustered_high: float
    clustered_rule: str
    warnings: list[str]


def profile(
    law: str | Law | Fit, frame: pd.DataFrame, symbol: str, values: Iterable[float] | None = None, **options
) -> Profile:
    """Profile `symbol` of a law fitted to `frame` with `options` (fields of `Options`), at `values` in its unit, or as
    far as its intervals reach. A `Fit` stands for its law; it must be one of this table with these options.

    Raises:
        InputError: what a fit of the law raises; no such parameter; values outside its bounds; a fit of other rows.
    """
    fitted = _fitted(law, frame, options)
    symbols = fitted.problem.law.symbols
    if symbol not in symbols:
        raise InputError(f"{symbol}: {fitted.problem.law.name} has no such parameter; use one of {', '.join(symbols)}")
    valley = _Valley(fitted, symbol)
    asked = None if values is None else valley.positions(values)
    (plain, rule), (clustered, clustered_rule) = valley.plain_limit(), valley.clustered_limit(fitted.frame)
    limits = [limit for limit in (plain, clustered) if np.isfinite(limit)]
    below = valley.walk(-1, 1.1 * max(limits), asked)
    above = valley.walk(1, 1.1 * max(limits), asked)
    at, points = zip(*reversed(below), (valley.start, valley.point), *above, strict=True)
    at, points, height = valley.relax(np.array(at), np.array(points))
    for _ in range(ROUNDS if asked is None else 0):
        more = valley.between(at, height, limits)
        if not len(more):
            break
        nearest = np.abs(at - more[:, None]).argmin(axis=1)
        joint = np.argsort(np.append(at, more), kind="stable")
        at, points, height = valley.relax(np.append(at, more)[joint], np.vstack([points, points[nearest]])[joint])
    least = min(valley.least, height.min())
    warnings = []
    if valley.least - least > 1e-6 * (valley.scale + least):
        where = f"{symbol} = {valley.natural(at[np.argmin(height)]):.6g}"
        warnings.append(f"the profile falls below the optimum of the fit, near {where}")
    order = np.argsort(valley.natural(at))
    others = valley.pinned.outside(points[order])
    ends = [valley.ends(at, height - least, limit, whole=asked is None) for limit in (plain, clustered)]
    return Profile(
        law=fitted.problem.law.name,
        symbol=symbol,
        unit=valley.parameter.unit,
        estimate=fitted.params[symbol],
        values=valley.natural(at)[order],
        rise=(height - least)[order],
        params={s: others[:, j] for j, s in enumerate(symbols) if s != symbol},
        low=ends[0][0],
        high=ends[0][1],
        rule=rule,
        clustered_low=ends[1][0],
        clustered_high=ends[1][1],
        clustered_rule=clustered_rule,
        warnings=warnings,
    )


def _fitted(law: str | Law | Fit, frame: pd.DataFrame, options: dict) -> Fitted:
    given = law if isinstance(law, Fit) else None
    if given:
        # A registered law, not the one that a table has narrowed: that would take other rows for its own.
        law = LAWS.get(given.law.name, given.law)
        objective = "squares" if given.law.response == "loss" and given.huber_delta is None else "huber"
        options = {"filter": given.filter, "huber_delta": given.huber_delta, "objective": objective} | options
    chosen = Options(**{"bootstrap": 0} | options)
    law = named(law) if isinstance(law, str) else law
    selection = select(law, table.filtered(frame, chosen.filter), bits=chosen.bits)
    fitted = fit_rows(selection.law, selection.frame, chosen)
    found = len(fitted.frame), float(fitted.solution.values.min())
    if given and not (given.rows == found[0] and np.isclose(given.value, found[1], rtol=1e-4, atol=1e-12)):
        raise InputError(
            f"{given.law.name}: the fit has {given.rows} rows and an objective of {given.value:.6g}, this table gives "
            f"{found[0]} and {found[1]:.6g}; give the table and the options of the fit"
        )
    return fitted


class _Valley:
    """Where the optimum goes when one parameter is held. `at` is that parameter on its transformed scale, or as it is
    where its estimate is zero and has no logarithm."""

    def __init__(self, fitted: Fitted, symbol: str):
        problem = fitted.problem
        self.pinned = Pinned(symbol=symbol, **{f.name: getattr(problem, f.name) for f in dataclasses.fields(Problem)})
        self.parameter = p = problem.law.ordered[self.pinned.place]
        self.point = self.pinned.inside(fitted.params)
        self.least = float(fitted.solution.values.min())
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
        turn = float(p.slope(self.natural(self.start))) if p.linear and not self.plain else 1.0
        self.direction = np.zeros(len(self.point))
        self.direction[self.free] = inverse[:, self.own] / self.variance * turn if self.variance > 0 else 0.0
        self.reach = np.sqrt(self.variance) / abs(turn) if self.variance > 0 else 0.05 * (1 + abs(self.start))
        # Variance of residuals in the units of the objective.
        residual = self.pinned.residuals(self.point[None])[0]
        clipped = np.clip(residual, -problem.delta, problem.delta)
        share = max(1, np.sum(np.abs(residual) <= problem.delta)) / len(residual)
        self.degrees = max(1, len(residual) - len(self.free))
        self.scale = float(np.sum(clipped**2) / self.degrees / share) if problem.scale == "log" else 1.0

    def scaled(self, natural):
        return np.asarray(natural, float) if self.plain else self.parameter.forward(natural)

    def natural(self, at):
        return np.asarray(at, float) if self.plain else self.parameter.backward(at)

    def plain_limit(self) -> tuple[float, str]:
        """The largest rise inside the interval, and the rule in words."""
        if self.pinned.scale == "linear":
            quantile = float(stats.chi2.ppf(LEVEL, 1))
            return (
                quantile / 2,
                f"2 x rise <= {quantile:.4g}: chi-square(1), gaps in standard deviations, rows independent",
            )
        quantile = float(stats.f.ppf(LEVEL, 1, self.degrees))
        by = f"residual variance {self.scale:.4g} of ln(loss)"
        return quantile * self.scale / 2, f"2 x rise / {by} <= {quantile:.4g}: F(1, {self.degrees}), rows independent"

    def clustered_limit(self, frame: pd.DataFrame) -> tuple[float, str]:
        kind, label, trusted = units(frame)
        k = int(label.max()) + 1
        if k < LEAST_CLUSTERS or self.variance <= 0:
            return np.nan, f"none: {k} {kind}, needs at least {LEAST_CLUSTERS}"
        parts = dataclasses.replace(self.pinned, weights=np.eye(k)[:, label])
        local = Problem.evaluate(parts, np.tile(self.point, (k, 1)), np.arange(k))
        covariance = jackknife(local.curvature[:, self.free[:, None], self.free], local.gradient[:, self.free])
        stretch = float(covariance[self.own, self.own]) / self.variance
        quantile = float(stats.t.ppf(0.5 + LEVEL / 2, k - 2)) ** 2
        by = f"jackknife over curvature variance {stretch:.4g}"
        kind += "" if trusted else ", taken as independent though they share clusters"
        return quantile * stretch / 2, f"2 x rise / {by} <= {quantile:.4g}: t({k - 2}) squared, {k} {kind}"

    def positions(self, values: Iterable[float]) -> np.ndarray:
        """Asked values on this scale, ascending."""
        asked, p = np.array(sorted({float(v) for v in values})), self.parameter
        good = np.isfinite(asked) & (asked >= p.lower) & (asked <= p.upper) & np.isfinite(self.scaled(asked))
        if not len(asked) or not good.all():
            found = f"{asked[~good][0]:g}" if len(asked) else "no value"
            raise InputError(f"{p.symbol}={found}: expected finite values from {p.lower:g} to {p.upper:g}")
        return np.sort(self.scaled(asked))

    def walk(self, sign: int, reach: float, asked: np.ndarray | None) -> list[tuple[float, np.ndarray]]:
        """Positions and points on one side, outwards: those asked for, or until the rise is more than `reach`."""
        step = max(self.reach * np.sqrt(2 * reach) / STEPS, 1e-9 * (1 + abs(self.start)))
        edge, path = self.edges[(sign + 1) // 2], [(self.start, self.point)]
        steps = sign * step * STRIDE ** np.maximum(0, np.arange(MOST) - STEPS)
        ahead = self.start + np.cumsum(steps) if asked is None else asked[sign * (asked - self.start) > 0][::sign]
        for at in ahead:
            last, point = path[-1]
            at = sign * min(sign * at, sign * edge)
            if at == last:
                break
            before, earlier = path[-2] if len(path) > 1 else (last - 1.0, point - self.direction)
            guess = point + (point - earlier) * (at - last) / (last - before)
            points, values = self._solve(np.array([guess, point]), np.full(2, at))
            path.append((at, points[values.argmin()]))
            if asked is None and not values.min() - self.least < reach:
                break
        return path[1:]

    def _solve(self, starts: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = np.array(starts)
        starts[:, self.pinned.place] = self.natural(at) if self.parameter.linear else at
        found = minimise(self.pinned.evaluate, starts, *self.pinned.box(), floats_each=self.pinned.floats_each)
        return found.points, found.values

    def relax(self, at: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, points and objectives, solved from both neighbours until none falls."""
        points, values = self._solve(points, at)
        here = np.arange(len(at))
        for _ in range(SWEEPS):
            before = values.copy()
            for neighbour in (np.maximum(here - 1, 0), np.minimum(here + 1, here[-1])):
                other, height = self._solve(points[neighbour], at)
                better = height < values
                points[better], values[better] = other[better], height[better]
            if not np.any(values < before - 1e-9 * (self.scale + self.least)):
                break
        return at, points, values

    def _crossings(self, at: np.ndarray, rise: np.ndarray, limit: float):
        """For either side the position where the rise meets `limit`, and how wide the step is there in sqrt(rise) /
        sqrt(limit); None where it does not. The root of the rise is nearly straight in `at`."""
        root, middle = np.sqrt(np.maximum(rise, 0.0) / limit), int(np.argmin(rise))
        for sign in (-1, 1):
            side = np.arange(middle, -1 if sign < 0 else len(at), sign)
            beyond = side[root[side] > 1]
            if not len(beyond):
                yield None
                continue
            out, inner = beyond[0], beyond[0] - sign
            share = (1 - root[inner]) / (root[out] - root[inner]) if np.isfinite(root[out]) else 0.5
            yield at[inner] + share * (at[out] - at[inner]), root[out] - root[inner]

    def between(self, at: np.ndarray, height: np.ndarray, limits: list[float]) -> np.ndarray:
        """More positions, where an interval ends within too wide a step."""
        rise = height - height.min()
        found = [c for limit in limits if limit > 0 for c in self._crossings(at, rise, limit) if c]
        return np.setdiff1d([place for place, width in found if width > CLOSE], at)

    def ends(self, at: np.ndarray, rise: np.ndarray, limit: float, *, whole: bool) -> tuple[float, float]:
        """The interval in the parameter's unit; an end is its bound if the walk was `whole` and found none."""
        if not limit > 0:
            return np.nan, np.nan
        found = []
        for crossing, edge, last in zip(self._crossings(at, rise, limit), self.edges, (at[0], at[-1]), strict=True):
            open_end = edge if whole or last == edge else np.nan
            found.append(float(self.natural(open_end if crossing is None else crossing[0])))
        return (found[1], found[0]) if self.parameter.transform == "reciprocal" else (found[0], found[1])
