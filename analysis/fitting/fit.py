"""The entry point, `fit(law, table, options)`, one fitter for all laws: the estimate, its diagnosis, and intervals.

Nothing about a fit is left to be guessed: `Fit` carries the objective and its delta, which rows were used and why the
others were not, how many starts agree, how well the parameters are determined and every reason for doubt.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import notebook
from analysis.errors import InputError
from analysis.fitting import quality
from analysis.fitting.estimate import Fitted, prepare
from analysis.fitting.intervals import Bootstrap, Interval, uncertainty
from analysis.fitting.noise import GapNoise
from analysis.fitting.options import Options
from analysis.fitting.profile_likelihood import ProfileLikelihood
from analysis.fitting.summary import Summary, residuals, summary
from analysis.laws.law import Law, Parameter

IRREDUCIBLE = "E"  # what laws call the loss that is left however large N and D are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(quality.Diagnosis):
    """A fitted law and its diagnosis. `params`, `intervals`: by symbol, in the units that the law states."""

    law: Law
    params: dict[str, float]
    intervals: dict[str, Interval]
    draws: np.ndarray | None
    """(S, P) refitted parameters in the law's order and in natural units, or None without intervals."""
    bootstrap: Bootstrap
    objective: str
    huber_delta: float | None
    value: float
    """The objective at the optimum."""
    noise: GapNoise | None
    options: Options
    rows: int
    filter: str
    left_out: dict[str, int]
    ranges: dict[str, tuple[float, float]]
    fitted: Fitted | None = dataclasses.field(default=None, repr=False, compare=False)
    """What was fitted, rows and objective; None of a fit that was read from a file."""

    @property
    def given(self) -> str:
        """What intervals and predictions take for granted, in words: parameters that were held."""
        held = ", ".join(f"{symbol} = {value:g}" for symbol, value in self.options.hold.items())
        return f" given {held}" if held else ""

    def interval(self, symbol: str) -> tuple[float, float]:
        """The 95% interval of a parameter, (NaN, NaN) where the table is too small for one.

        Raises:
            InputError: the law has no such parameter.
        """
        if symbol not in self.params:
            raise InputError(f"{symbol}: {self.law.name} has no such parameter; use one of {', '.join(self.params)}")
        interval = self.intervals.get(symbol)
        return (interval.low, interval.high) if interval else (np.nan, np.nan)

    def to_frame(self) -> pd.DataFrame:
        """A row a parameter, by symbol: value, its 95% interval low to high, se (NaN where there is none), unit."""
        nothing = Interval(value=np.nan)
        ends = {s: dataclasses.asdict(self.intervals.get(s, nothing)) | {"value": self.params[s]} for s in self.params}
        units = pd.Series({p.symbol: p.unit for p in self.law.ordered})
        return pd.DataFrame.from_dict(ends, orient="index").assign(unit=units).rename_axis("parameter")

    def __repr__(self) -> str:
        return f"{self.law.name}: {', '.join(map(self._stated, self.params))}; {self.rows} rows, {self.status}"

    def _stated(self, symbol: str) -> str:
        low, high = self.interval(symbol)
        return f"{symbol} = {self.params[symbol]:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low == low else "")

    def _repr_html_(self) -> str:
        title = f"{self.law.name}: {self.law.equation}"
        quality = f"{self.rows} rows, R2 {self.r2:.4f}, status {self.status}"
        notes = [quality, f"95% intervals{self.given}: {self.bootstrap.describe()}", *self.warnings]
        return notebook.page(title, self.to_frame(), notes)

    def plot(self, frame: pd.DataFrame | None = None, path: Path | str | None = None):
        """Measured and predicted values of the rows of the fit: a matplotlib figure, written to `path` if there is one.
        A fit that was read from a file needs the table that it was made of. `summary().plot()` shows residuals.

        Raises:
            InputError: no table, or another one; `path` is no picture, or cannot be written.
        """
        rows = residuals(self._fitted(frame))
        return notebook.written(
            notebook.predictions(rows, f"{self.law.name}: {self.rows} rows", self.law.response), path
        )

    def _fitted(self, frame: pd.DataFrame | None) -> Fitted:
        if frame is None and self.fitted is None:
            raise InputError(f"{self.law.name}: was read from a file; expected its table, as in fit.summary(table)")
        return self.fitted if frame is None else self.again(frame)

    def summary(self, frame: pd.DataFrame | None = None) -> Summary:
        """Clustered standard errors, correlations, errors on groups held out, and residuals. A fit that was read from a
        file needs the table that it was made of.

        Raises:
            InputError: no table, or another one.
        """
        return summary(self._fitted(frame), self.given)

    def again(self, frame: pd.DataFrame, **options) -> Fitted:
        """The law fitted to the table that this fit was made of, with its options or others.

        Raises:
            InputError: what a fit of the law raises; it is another table.
        """
        own = {**dataclasses.asdict(self.options), "huber_delta": self.huber_delta, "bootstrap": 0}
        fitted = prepare(self.law, frame, Options(**own | options))
        rows, value = len(fitted.frame), fitted.value
        if not (self.rows == rows and np.isclose(self.value, value, rtol=1e-4, atol=1e-12)):
            raise InputError(
                f"{self.law.name}: the fit has {self.rows} rows and an objective of {self.value:.6g}, this table gives "
                f"{rows} and {value:.6g}; give the table and the options of the fit"
            )
        return fitted

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Predicted loss or gap (n,) in nats; NaN where the law leaves no effective parameters."""
        return self.law.predict(self.params, frame)

    def predict_se(self, frame: pd.DataFrame) -> np.ndarray:
        """Standard error (n,) of the prediction in nats, from the predictions of the draws; NaN without any."""
        return self.se_at(self.law.inputs(frame))

    def se_at(self, x: Mapping[str, np.ndarray]) -> np.ndarray:
        """As `predict_se`, of the law's variables (n,) as `Law.inputs` gives them."""
        size = len(next(iter(x.values())))
        if self.draws is None:
            return np.full(size, np.nan)
        drawn = self.law.each({s: self.draws[:, [j]] for j, s in enumerate(self.law.symbols)}, x)
        return np.nanstd(drawn, axis=0, ddof=1) * self.bootstrap.stretch

    def scatter(self, prediction: float) -> float:
        """Standard deviation in nats of a run about this prediction of the law, as its rows scatter about it. Of a gap
        it is that of the runs, without the error of measuring it on a few windows."""
        if self.noise is not None:
            return float(self.noise.sd(np.array(prediction), np.zeros(())))
        return self.rmse * math.sqrt(self.rows / max(1, self.rows - len(self.law.free))) if self.rows else math.nan


def fit(law: str | Law, frame: pd.DataFrame, *, progress: Callable[[str], None] = lambda _: None, **options) -> Fit:
    """Fit `law` (its name, or an equation) to the rows of `frame` that it describes; `options` are fields of `Options`.

    Raises:
        InputError: unknown law, a missing or bad column, too few rows, an option out of range.

    >>> from analysis import fit, read_table
    >>> frame = read_table("results/overtraining/runs.csv")
    >>> gap = fit("kumar_ptq", frame, filter="ptq == 'rtn' and granularity_post == 'channel'")
    >>> gap.to_frame()[["value", "low", "high"]].head(3).round(2)
                value   low  high
    parameter
    gamma_D      0.21  0.09  0.32
    gamma_N      0.37  0.06  0.67
    gamma_post   0.60  0.54  0.67
    >>> gap.status, f"{gap.r2:.2f}"
    ('ok', '0.95')
    >>> gap.summary().held_out.head(2).round(3)
      left out  group   rmse   bias  rows
    0        N  23552  0.042  0.025    36
    1        N  82944  0.028 -0.011    42
    >>> power = fit("L = B * D**-beta + E", frame, filter="N == 23552", bootstrap=0)
    >>> f"{power.params['beta']:.1f}"
    '0.4'
    """
    fitted = prepare(law, frame, Options(**options))
    problem, chosen, name = fitted.problem, fitted.options, fitted.law.name
    progress(f"{name}: fitted {len(fitted.law.free)} parameters to {len(fitted.frame)} rows")
    progress(f"{name}: {chosen.bootstrap} bootstrap draws")
    sure, diagnosis = uncertainty(fitted), quality.diagnose(fitted)
    return Fit(
        law=fitted.law,
        params=fitted.params,
        intervals=_intervals(fitted, sure.intervals),
        draws=sure.draws,
        bootstrap=sure.bootstrap,
        objective=problem.describe(),
        huber_delta=problem.delta if np.isfinite(problem.delta) else None,
        value=fitted.value,
        noise=fitted.noise,
        options=chosen,
        rows=len(fitted.frame),
        filter=chosen.filter or "",
        left_out=fitted.left_out,
        ranges={v: (float(x.min()), float(x.max())) for v, x in problem.x.items()},
        fitted=fitted,
        warnings=fitted.warnings + diagnosis.warnings + sure.warnings,
        **{f.name: getattr(diagnosis, f.name) for f in dataclasses.fields(diagnosis) if f.name != "warnings"},
    )


def _intervals(fitted: Fitted, refits: dict[str, Interval]) -> dict[str, Interval]:
    """Intervals by symbol, from what refits say. There is none for what is held, not identified by the rows, or at a
    bound in all refits.

    Of a coefficient that is zero whatever is left out refits do not show how large it could be, the rise of the
    objective does; and so of an irreducible loss that refits would let be larger than losses that were measured.
    """
    open_ends = quality.unidentified(fitted) if refits else frozenset()
    made = {p.symbol: refits[p.symbol] for p in fitted.law.free if p.symbol in refits and p.symbol not in open_ends}
    stuck = {p.symbol for p in fitted.law.free if not p.linear and _stuck(p, made.get(p.symbol))}
    made = {symbol: interval for symbol, interval in made.items() if symbol not in stuck}
    smallest = float(fitted.problem.y.min())
    for symbol, interval in made.items():
        irreducible = symbol == IRREDUCIBLE and fitted.law.response == "loss"
        highest = max(smallest, interval.value) if irreducible else np.inf
        zero = interval.high == 0
        if zero or interval.high > highest:
            # Held as it is, a coefficient that is zero would drag its exponent along: at the middle it does not.
            low, high = ProfileLikelihood(fitted, symbol, at_middle=zero).interval()
            if high != high:  # nothing scatters
                low, high = interval.low, interval.high
            se = np.nan if zero else interval.se
            made[symbol] = Interval(value=interval.value, low=min(low, highest), high=min(high, highest), se=se)
    return made


def _stuck(p: Parameter, interval: Interval | None) -> bool:
    """Whether all refits have a parameter at its bound."""
    if interval is None or interval.low != interval.high:
        return False
    return any(np.isclose(interval.value, edge, rtol=1e-9) for edge in (p.lower, p.upper))
