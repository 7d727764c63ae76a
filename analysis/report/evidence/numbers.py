"""A number with its 95% interval, how such intervals are made of few units, and how they are printed.

Three ways cover what fits do not. Units that are independent of each other (trunks, paired differences) give a mean
with Student's t. What is no mean (a ratio of sums, a slope) is computed again without each unit in turn. A difference
of few runs is judged against how much runs scatter that differ in their seeds alone.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.diagnostics.slopes import Slope, local_slopes
from analysis.errors import InputError
from analysis.figures.style import magnitude
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import LEVEL, Interval, degrees

MOST_DECIMALS = 5
UNITS = {"cluster": "chains", "run_id": "runs", "cell": "cells"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Interval):
    """An estimate with its 95% interval, beside the `paper`'s.

    `exact`: what has no interval by its nature, such as an R2 or a count; low and high are then the value. `note` says
    how the interval was made, or why there is no number. `units`: independent ones that the interval rests on, of which
    more would narrow it, with `freedom` degrees of freedom; 0 where it rests on something else.
    """

    paper: float | None = None
    unit: str = ""
    note: str = ""
    exact: bool = False
    units: int = 0
    freedom: int = 0

    @classmethod
    def of(cls, interval: Interval, **more) -> "Number":
        """An interval that was made elsewhere."""
        return cls(value=interval.value, low=interval.low, high=interval.high, **more)

    @classmethod
    def around(cls, value: float, half: float, **more) -> "Number":
        """With an interval that reaches `half` to both sides."""
        return cls(value=value, low=value - half, high=value + half, **more)

    @classmethod
    def plain(cls, value: float, **more) -> "Number":
        """Without an interval by its nature."""
        return cls(value=value, low=value, high=value, exact=True, **more)

    @classmethod
    def none(cls, reason: str) -> "Number":
        """What the table does not determine."""
        return cls(value=math.nan, note=reason)

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)

    @property
    def text(self) -> str:
        """`0.51 [0.43, 0.59]`, to two digits of half the interval's width."""
        if not self.known:
            return "not estimated"
        unit = f" {self.unit}" if self.unit else ""
        if self.exact or not self.sure:
            return f"{digits(self.value)}{unit}{'' if self.exact else ' (no interval)'}"
        half = (self.high - self.low) / 2
        sides = [side for side in (self.high - self.value, self.value - self.low) if side > 0]
        if not math.isfinite(half):
            return f"{digits(self.value)} [{digits(self.low)}, {digits(self.high)}]{unit}"
        if max(abs(self.value), half) >= 1e5:
            return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]{unit}"
        places = decimals(min(half, *sides) if sides else half)
        value, low, high = (f"{_signed(v, places):.{places}f}" for v in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]{unit}"

    def scaled(self, factor: float) -> "Number":
        """The number times a known factor above zero, without its unit."""
        low, high = self.low * factor, self.high * factor
        return dataclasses.replace(self, value=self.value * factor, low=low, high=high, paper=None, unit="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BySize(Number):
    """A number that changes its sign with N: there is no mean, but one for `each` N."""

    value: float = math.nan
    each: Mapping[float, Number]

    @property
    def known(self) -> bool:
        return any(number.known for number in self.each.values())

    @property
    def text(self) -> str:
        return "; ".join(f"{number.text} at N = {magnitude(size)}" for size, number in self.each.items())


def decimals(half: float) -> int:
    """Decimals that show half an interval's width to two digits."""
    return min(MOST_DECIMALS, max(0, 1 - math.floor(math.log10(half)))) if half > 0 else 2


def digits(value: float) -> str:
    """A number alone, to three digits."""
    if math.isnan(value):
        return "-"
    return (
        f"{value:.3g}"
        if abs(value) < 1e3 or math.isinf(value)
        else f"{value:,.0f}"
        if abs(value) < 1e6
        else f"{value:.2e}"
    )


def _signed(value: float, places: int) -> float:
    """No minus before a number that is printed as zero."""
    return 0.0 if abs(value) < 0.5 * 10**-places else value


def of_fit(fit: Fit, symbol: str) -> Number:
    """A parameter of a fit, beside the constant that its law's source published."""
    low, high = fit.interval(symbol)
    unit = {p.symbol: p.unit for p in fit.law.parameters}[symbol]
    more = {"paper": fit.law.published.get(symbol), "unit": unit if len(unit) < 12 and unit != "1" else ""}
    return Number(value=fit.params[symbol], low=low, high=high, note=fit.bootstrap.describe(), **more)


def slope_of(law: str, rows: pd.DataFrame, **options) -> Number:
    """One slope of ln gap in ln D of these rows, with the error model of that law; `options` as of `local_slopes`.

    Raises:
        InputError: as `local_slopes`.
    """
    slopes = local_slopes(law, rows, **options)
    return of_slope(slopes.constant, slopes.units)


def of_slope(slope: Slope, units: str = "clusters") -> Number:
    """A slope in ln D."""
    if not slope.clusters:
        return Number.none("no rows that can be compared")
    return Number.of(slope, note=f"{slope.clusters} {units} left out in turn")


def attempt(measure: Callable[..., Number], *args, **kwargs) -> Number:
    """The number that `measure` returns, or the reason why the table does not determine it."""
    try:
        return measure(*args, **kwargs)
    except InputError as fault:
        return Number.none(fault.brief)


def finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def log_slope(rows: pd.DataFrame, x: Hashable, y: Hashable, within: Hashable | None = None) -> float:
    """One slope of the column y in ln x, over rows that know y. Groups of rows alike in `within` have levels of their
    own; NaN where x does not vary in one."""
    rows = rows[rows[y].notna()]
    groups = pd.Series(0, rows.index) if within is None else rows[within]
    both = np.log(rows[x].astype(float)), rows[y].astype(float)
    x, y = (values - values.groupby(groups).transform("mean") for values in both)
    square = float((x**2).sum())
    return float((x * y).sum()) / square if square > 1e-9 else math.nan


def summed(top: Hashable, bottom: Hashable) -> Callable[[pd.DataFrame], float]:
    """Measures the sum of one column over that of another, which the largest rows rule."""
    return lambda rows: rows[top].sum() / rows[bottom].sum()


def log_ratios(top: pd.Series, bottom: pd.Series) -> pd.Series:
    """Logarithms of the ratio of each pair, NaN where one is not above zero: their mean is the logarithm of the
    geometric mean, in which pairs at all widths count alike."""
    top, bottom = top.astype(float), bottom.astype(float)
    return np.log(top.where(top > 0) / bottom.where(bottom > 0))


def reach(freedom: int, comparisons: int = 1) -> float:
    """Student's t that a standard error is multiplied by; of each of so many `comparisons`, so that all of their
    intervals hold at once (Bonferroni)."""
    return float(stats.t.ppf(1 - (1 - LEVEL) / 2 / comparisons, freedom))


def mean(
    values: Sequence[float], *, paper: float | None = None, unit: str = "", what: str = "units", comparisons: int = 1
) -> Number:
    """The mean of independent units with Student's t; values that are not finite do not count.

    Raises:
        InputError: there is none.
    """
    known = finite(values)
    if not len(known):
        raise InputError("no rows to estimate it from")
    centre, k = float(known.mean()), len(known)
    half = reach(k - 1, comparisons) * float(known.std(ddof=1)) / math.sqrt(k) if k > 1 else math.nan
    note = f"mean of {k} {what}, Student's t with {k - 1} degrees of freedom" if k > 1 else f"one of the {what} alone"
    return Number.around(centre, half, paper=paper, unit=unit, note=note, units=k, freedom=k - 1)


def left_out(
    measure: Callable[[pd.DataFrame], float],
    rows: pd.DataFrame,
    by: str = "cluster",
    *,
    unit: str = "",
    comparisons: int = 1,
) -> Number:
    """`measure` of `rows`, with an interval from leaving out each value of the column `by` in turn; none with fewer
    than three values.

    Raises:
        InputError: no row, or `measure` has no value for all of them.
    """
    if rows.empty:
        raise InputError("no rows to estimate it from")
    value, labels = float(measure(rows)), rows[by].unique()
    if not math.isfinite(value):
        raise InputError("the rows give no number")
    without = finite([measure(rows[rows[by] != label]) for label in labels] if len(labels) > 2 else [])
    k = len(without)
    if k < 3:
        return Number(value=value, unit=unit, note=f"{len(labels)} {UNITS[by]} are too few for an interval")
    freedom = degrees("clusters", k)
    half = reach(freedom, comparisons) * math.sqrt((k - 1) / k * float(np.sum((without - without.mean()) ** 2)))
    note = f"each of {k} {UNITS[by]} left out in turn, Student's t with {freedom} degrees of freedom"
    return Number.around(value, half, unit=unit, note=note, units=k, freedom=freedom)


def mean_or_by_size(
    rows: pd.DataFrame, value: Hashable, by: Hashable = "cluster", *, mean_of: Callable[..., Number] | None = None
) -> Number:
    """The mean of the column `value` over units, each value of `by` left out in turn; or, where it changes its sign
    with N, that of each N, with intervals that hold together. It does where its line in ln N crosses zero within the
    sizes, with a slope that is surely not zero. `mean_of(values, comparisons=)`: another interval of a mean.

    Raises:
        InputError: there is no row with a value.
    """
    rows = rows[np.isfinite(rows[value].astype(float))]

    def averaged(part: pd.DataFrame, comparisons: int = 1) -> Number:
        if mean_of is not None:
            return mean_of(part[value], comparisons=comparisons)
        return left_out(lambda r: r[value].mean(), part, by, comparisons=comparisons)

    sizes = sorted(rows["N"].unique())
    if len(sizes) < 2:
        return averaged(rows)
    slope, middle = left_out(lambda r: log_slope(r, "N", value), rows, by), np.log(rows["N"].astype(float)).mean()
    ends = [float(rows[value].mean() + slope.value * (np.log(end) - middle)) for end in (sizes[0], sizes[-1])]
    if not (slope.sure and slope.low * slope.high > 0 and min(ends) < 0 < max(ends)):
        return averaged(rows)
    each = {size: attempt(averaged, rows[rows["N"] == size], len(sizes)) for size in sizes}
    return BySize(each=each, note="its sign changes with N: no mean, but a number at each N")


def geometric_mean_or_by_size(rows: pd.DataFrame, top: Hashable, bottom: Hashable) -> Number:
    """The geometric mean over pairs of one column over another, or that of each N as `mean_or_by_size`.

    Raises:
        InputError: no pair of which both are above zero.
    """
    return of_logs(mean_or_by_size(rows.assign(log=log_ratios(rows[top], rows[bottom])), "log"))


def of_logs(number: Number) -> Number:
    """The number whose logarithm is given."""
    if isinstance(number, BySize):
        return dataclasses.replace(number, each={size: of_logs(each) for size, each in number.each.items()})
    value, low, high = (math.exp(v) for v in (number.value, number.low, number.high))
    return dataclasses.replace(number, value=value, low=low, high=high)


def quotient(top: Number, bottom: Number) -> Number:
    """The ratio of two independent numbers with their intervals, errors added in squares."""
    if unknown := [n.note for n in (top, bottom) if not n.known]:
        return Number.none("; ".join(unknown))
    value = top.value / bottom.value
    note = "errors of both added in squares"
    if all(n.sure and min(n.value, n.low) > 0 for n in (top, bottom)):  # as logarithms, which stay above zero
        down = math.hypot(math.log(top.value / top.low), math.log(bottom.high / bottom.value))
        up = math.hypot(math.log(top.high / top.value), math.log(bottom.value / bottom.low))
        return Number(value=value, low=value * math.exp(-down), high=value * math.exp(up), note=note)
    part = [(n.high - n.low) / 2 for n in (top, bottom)]
    return Number.around(value, math.hypot(part[0] / bottom.value, value * part[1] / bottom.value), note=note)


def difference(one: Number, other: Number) -> Number:
    """One independent number minus another, errors added in squares."""
    if unknown := [n.note for n in (one, other) if not n.known]:
        return Number.none("; ".join(unknown))
    half = math.hypot((one.high - one.low) / 2, (other.high - other.low) / 2)
    return Number.around(one.value - other.value, half, note="errors of both added in squares")


def spread(value: float, freedom: int) -> Number:
    """A standard deviation with the interval that its degrees of freedom leave it."""
    low, high = (value * math.sqrt(freedom / stats.chi2.ppf(p, freedom)) for p in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2))
    return Number(value=value, low=low, high=high, note=f"chi-square with {freedom} degrees of freedom")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scatter:
    """How much runs scatter that differ in their seeds alone: sd of a loss relative to it, sd of a gap at 3 and 4 bits
    relative to it, and their degrees of freedom."""

    loss: float
    gap: float
    freedom: int

    def sd(self, loss, gap=0.0):
        """Standard deviation in nats of a loss after quantization that consists of `loss` and `gap`."""
        return np.hypot(self.loss * np.asarray(loss), self.gap * np.asarray(gap))

    def noticed(self, loss: float) -> Number:
        """The standard deviation between seeds of a loss, in nats, with the interval that its degrees of freedom leave
        it."""
        return spread(self.loss * loss, self.freedom)

    def around(self, value: float, sd: float, *, comparisons: int = 1) -> Number:
        """`value` in nats with the interval that its standard deviation gives it, wider if it is the largest of so many
        `comparisons`."""
        half = reach(self.freedom, comparisons) * sd
        note = f"scatter between seeds, {self.freedom} degrees of freedom"
        note += f", corrected for {comparisons} comparisons" if comparisons > 1 else ""
        return Number.around(value, half, unit="nats", note=note)
