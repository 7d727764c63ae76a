"""The best size for a compute from the rows alone: the lowest loss of each budget, and how N* and D* grow with C.

Rows of nearly one C make a budget (an IsoFLOP curve: Hoffmann et al. 2022, approach 2, arXiv 2203.15556). Where its
loss is lowest is found on an Akima interpolant of ln loss in ln N, which bends where the rows do (Porian et al. 2024,
arXiv 2406.19146), or on a parabola, which is biased where a curve is not symmetric. A budget whose lowest loss is at
the edge of its sizes has no optimum and is left out, with the reason. The exponents of N* and D* are slopes in ln C,
weighted by how well the optimum of each budget is known: by how far it moves when losses scatter as runs do.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.interpolate import Akima1DInterpolator

from analysis import filters, table
from analysis.errors import InputError
from analysis.files import replacing
from analysis.fitting.intervals import LEVEL, Interval
from analysis.fitting.selection import applicable_rows
from analysis.laws.registry import LAWS

METHODS = ("akima", "parabola")
TOLERANCE = 0.1  # of C, within which rows are of one budget
ALIKE = 0.02  # of N, within which rows are of one size
LEAST_SIZES = {"akima": 4, "parabola": 3}  # of a budget
GRID = 2001  # sizes at which an interpolant is looked at
SMALLEST_SHARE = 0.5  # of draws in which a budget has an optimum, or it has none
FLOOR = 1e-3  # least standard deviation of ln N*, of the range of sizes of a budget: none is known exactly


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """One IsoFLOP curve: its compute in operations, how many sizes and rows it has, and its optimum."""

    C: float
    sizes: int
    rows: int
    N: Interval
    D: float
    loss: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class IsoFlop:
    """`N`, `D`: exponents of N* and D* in C, and `N_front` by which N* = N_front C^N. `noise`: the standard deviation
    of ln loss that intervals are made with, and where it is from; NaN where nothing determines it. `left_out`: budgets
    without an optimum, and why. `rule`: how intervals were made."""

    method: str
    budgets: list[Budget]
    N: Interval
    D: Interval
    N_front: float
    noise: float
    noise_from: str
    rule: str
    left_out: dict[float, str]
    warnings: list[str]


def isoflop(
    frame: pd.DataFrame,
    *,
    method: str = "akima",
    tolerance: float = TOLERANCE,
    noise: float | None = None,
    best: bool = False,
    filter: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> IsoFlop:
    """Optima of the budgets in `frame` (columns N, loss, and D or C, else C = 6 N D) and their exponents.

    `noise`: the standard deviation of ln loss between runs alike; None: from runs of one size and budget, else from
    how rows scatter about their curves. `best`: of runs of one size and budget the lowest loss, not their mean, as for
    sweeps of learning rates.

    Raises:
        InputError: an option out of range, a missing or bad column, or fewer than two budgets with an optimum.
    """
    if method not in METHODS:
        raise InputError(f"method={method}: use one of {', '.join(METHODS)}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance={tolerance:g}: expected a share of C between 0 and 1")
    if noise is not None and not 0 <= noise < np.inf:
        raise InputError(f"noise={noise:g}: expected a standard deviation of ln(loss) of zero or more")
    if draws < 0 or draws == 1 or seed < 0:
        raise InputError(f"draws={draws}, seed={seed}: expected 0 (no intervals) or at least 2 draws, and a seed >= 0")
    rows = _rows(filters.filtered(frame, filter))
    curves, left_out, replicates = _curves(rows, tolerance, best, LEAST_SIZES[method])
    sd, source = _noise(noise, replicates, curves)
    random, budgets, scattered = np.random.default_rng(seed), [], []
    for curve in curves:
        optimum = _optimum(curve["x"], curve["y"], method)
        if isinstance(optimum, str):
            left_out[curve["C"]] = optimum
            continue
        moved = _moved(curve, method, sd, draws if sd > 0 else 0, random)
        if moved is not None and np.isfinite(moved).mean() < SMALLEST_SHARE:
            left_out[curve["C"]] = "the lowest loss is at the edge in most draws of the noise"
            continue
        budgets.append(_budget(curve, optimum, moved))
        scattered.append(moved)
    if len(budgets) < 2:
        reasons = "; ".join(f"C = {C:.3g}: {why}" for C, why in sorted(left_out.items())[:3]) or "no budget"
        raise InputError(f"isoflop: {len(budgets)} budgets with an optimum, needs at least 2 ({reasons})")
    return _exponents(method, budgets, scattered, sd, source, left_out)


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """N, C, D and loss of the runs in 16 bits, in an order of their own."""
    if "D" not in frame and {"N", "C"} <= set(frame):
        frame = frame.assign(
            D=table.numbers(frame, "C", positive=True) / (6 * table.numbers(frame, "N", positive=True))
        )
    rows = table.ordered(applicable_rows(LAWS["compute"], frame).frame)
    return pd.DataFrame({name: table.numbers(rows, name, positive=True) for name in ("C", "N", "D", "loss")})


def _curves(rows: pd.DataFrame, tolerance: float, best: bool, least: int):
    """Curves as dictionaries of ln N, ln loss and ln D by size; budgets with too few sizes; and how far ln losses of
    runs of one size and budget lie from their mean, with the degrees of freedom."""
    curves, left_out, squares, degrees = [], {}, 0.0, 0
    for _, part in rows.groupby(_runs_of(np.log(rows["C"].to_numpy()), tolerance)):
        C = float(np.exp(np.log(part["C"]).mean()))
        logs = np.log(part[["N", "D", "loss"]]).groupby(_runs_of(np.log(part["N"].to_numpy()), ALIKE))
        squares += float(((np.log(part["loss"]) - logs["loss"].transform("mean")) ** 2).sum())
        degrees += len(part) - len(logs)
        middle = logs.mean().assign(loss=logs["loss"].min() if best else logs["loss"].mean())
        if len(middle) < least:
            left_out[C] = f"{len(middle)} size{'s' * (len(middle) > 1)}, needs at least {least}"
            continue
        curves.append(
            {"C": C, "rows": len(part)} | dict(zip("xdy", middle[["N", "D", "loss"]].to_numpy().T, strict=True))
        )
    return curves, left_out, (squares, 0 if best else degrees)


def _runs_of(log: np.ndarray, tolerance: float) -> np.ndarray:
    """The number (n,) of the run of neighbouring values that each is in: they lie less than `tolerance` apart."""
    order, label = np.argsort(log, kind="stable"), np.empty(len(log), int)
    label[order] = np.cumsum(np.diff(log[order], prepend=log[order][:1]) > np.log1p(tolerance))
    return label


def _noise(given: float | None, replicates: tuple[float, int], curves: list[dict]) -> tuple[float, str]:
    """The standard deviation of ln loss between runs alike, and where it is from."""
    if given is not None:
        return given, "as given"
    squares, degrees = replicates
    if degrees >= 3:
        return float(np.sqrt(squares / degrees)), f"runs of one size and budget, {degrees} degrees of freedom"
    squares, degrees = 0.0, 0
    for curve in curves:
        if len(curve["x"]) > 4:
            x = curve["x"] - curve["x"].mean()
            rest = curve["y"] - np.polyval(np.polyfit(x, curve["y"], 3), x)
            squares, degrees = squares + float(rest @ rest), degrees + len(rest) - 4
    if degrees >= 3:
        return float(np.sqrt(squares / degrees)), f"rows about cubics of their budgets, {degrees} degrees of freedom"
    return np.nan, "nothing determines it"


def _optimum(x: np.ndarray, y: np.ndarray, method: str) -> tuple[float, float] | str:
    """ln N and ln loss at the lowest point of a curve, or why there is none."""
    edge = "the lowest loss is at the {} size: the optimum lies beyond"
    if method == "parabola":
        middle = x.mean()
        a, b, c = np.polyfit(x - middle, y, 2)
        if a <= 0:
            return "its parabola has no lowest point"
        place = -b / (2 * a)
        if not x[0] < middle + place < x[-1]:
            return edge.format("largest" if place > 0 else "smallest")
        return float(middle + place), float(c - b**2 / (4 * a))
    curve = Akima1DInterpolator(x, y)
    grid = np.linspace(x[0], x[-1], GRID)
    at = int(np.argmin(curve(grid)))
    if at in (0, GRID - 1):
        return edge.format("largest" if at else "smallest")
    # A parabola through the three lowest points of the grid.
    low, here, high = curve(grid[at - 1 : at + 2])
    bend = low - 2 * here + high
    shift = 0.5 * (low - high) / bend if bend > 0 else 0.0
    return float(grid[at] + shift * (grid[1] - grid[0])), float(here - 0.25 * (low - high) * shift)


def _moved(curve: dict, method: str, sd: float, draws: int, random: np.random.Generator) -> np.ndarray | None:
    """ln N* (S,) with losses scattered by `sd`, NaN where there is no optimum; None without draws."""
    if not draws:
        return None
    noisy = curve["y"] + sd * random.standard_normal((draws, len(curve["y"])))
    optima = [_optimum(curve["x"], y, method) for y in noisy]
    return np.array([np.nan if isinstance(optimum, str) else optimum[0] for optimum in optima])


def _budget(curve: dict, optimum: tuple[float, float], moved: np.ndarray | None) -> Budget:
    at, loss = optimum
    size = float(np.exp(at))
    interval = Interval(value=size)
    if moved is not None:
        low, high = np.exp(np.nanquantile(moved, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
        se = float(np.nanstd(moved) * size)
        interval = Interval(value=size, low=min(float(low), size), high=max(float(high), size), se=se)
    D = float(np.exp(np.interp(at, curve["x"], curve["d"])))
    return Budget(C=curve["C"], sizes=len(curve["x"]), rows=curve["rows"], N=interval, D=D, loss=float(np.exp(loss)))


def _exponents(
    method: str, budgets: list[Budget], moved: list, sd: float, source: str, left_out: dict[float, str]
) -> IsoFlop:
    C, N, D = np.log([(b.C, b.N.value, b.D) for b in budgets]).T
    drawn = moved[0] is not None
    weights = np.ones(len(C))
    if drawn:
        spread = np.array([np.nanstd(m) / np.sqrt(np.isfinite(m).mean()) for m in moved])
        weights = 1 / np.maximum(spread, FLOOR) ** 2
    slope, front = _line(C, N, weights)
    by_draw = None
    if drawn:
        together = np.stack(moved, axis=1)
        together = np.where(np.isfinite(together), together, N)
        by_draw = float(np.std([_line(C, one, weights)[0] for one in together], ddof=1))
    by_rest = _slope_se(C, N - slope * C - front, weights)
    rule, se, t = _rule(by_draw, by_rest, len(C))
    warnings = []
    if len(C) < 4:
        warnings.append(f"only {len(C)} budgets: an exponent over so few says little")
    if np.ptp(C) < np.log(10):
        warnings.append("budgets span less than a factor of ten")
    exponents = [Interval(value=v, low=v - t * se, high=v + t * se, se=se) for v in (slope, _line(C, D, weights)[0])]
    return IsoFlop(
        method=method,
        budgets=budgets,
        N=exponents[0],
        D=exponents[1],
        N_front=float(np.exp(front)),
        noise=sd,
        noise_from=source,
        rule=rule,
        left_out=left_out,
        warnings=warnings,
    )


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of weighted least squares."""
    middle = np.average(x, weights=weights)
    slope = float(np.sum(weights * (x - middle) * y) / np.sum(weights * (x - middle) ** 2))
    return slope, float(np.average(y, weights=weights) - slope * middle)


def _slope_se(x: np.ndarray, rest: np.ndarray, weights: np.ndarray) -> float | None:
    """The slope's standard error from how optima lie about their line; None with two of them."""
    if len(x) < 3:
        return None
    middle = np.average(x, weights=weights)
    variance = np.sum(weights * rest**2) / (len(x) - 2)
    return float(np.sqrt(variance / np.sum(weights * (x - middle) ** 2)))


def _rule(by_draw: float | None, by_rest: float | None, count: int) -> tuple[str, float, float]:
    """How intervals are made, a standard error and the quantile that it is multiplied by: the wider of the two."""
    options = []
    if by_draw is not None:
        options.append((by_draw, float(stats.norm.ppf(0.5 + LEVEL / 2)), "from the noise of losses"))
    if by_rest is not None:
        options.append((by_rest, float(stats.t.ppf(0.5 + LEVEL / 2, count - 2)), "from the scatter about the line"))
    if not options:
        return "none: two budgets, and nothing determines the noise of losses", np.nan, np.nan
    se, t, rule = max(options, key=lambda option: option[0] * option[1])
    return rule, se, t


def write(path: Path, made: IsoFlop) -> None:
    """Write the optima to the CSV `path`, whole or not at all: a table of runs that a law of L(C) can be fitted to."""
    rows = [
        {"C": b.C, "N": b.N.value, "D": b.D, "loss": b.loss, "N_low": b.N.low, "N_high": b.N.high, "sizes": b.sizes}
        for b in made.budgets
    ]
    with replacing(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
