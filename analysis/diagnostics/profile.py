"""The profile of one parameter: how much the objective rises when it is held at a value and all others are free.

E and the exponents of a loss law trade off along curved valleys, where an interval made from a covariance is wrong; the
profile follows the valley (`fitting.profile_likelihood` says how, and what its two intervals are).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fitting.estimate import Fitted, prepare
from analysis.fitting.fit import Fit
from analysis.fitting.options import Options
from analysis.fitting.profile_likelihood import ProfileLikelihood
from analysis.laws.law import Law


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """`values` (G,) of `symbol` in `unit`, ascending, the optimum among them; `rise` (G,) of the objective above its
    least value; `params` {symbol: (G,)}, the other parameters at each. `bounds`: the least and the largest value that
    the law allows. `rows`, `left_out`: what was fitted, and why other rows were not.

    The two 95% intervals are where the rise is at most `limit` and `clustered_limit`, as `rule` and `clustered_rule`
    say in words. An end is a bound of the parameter where the rise stays too small up to there; NaN where the asked
    values do not reach far enough, or there are too few clusters.
    """

    law: str
    symbol: str
    unit: str
    bounds: tuple[float, float]
    rows: int
    left_out: dict[str, int]
    estimate: float
    values: np.ndarray
    rise: np.ndarray
    params: dict[str, np.ndarray]
    low: float
    high: float
    limit: float
    rule: str
    clustered_low: float
    clustered_high: float
    clustered_limit: float
    clustered_rule: str
    warnings: list[str]

    @property
    def place(self) -> int:
        """Where in `values` the estimate is, to rounding."""
        return int(np.argmin(np.abs(self.values - self.estimate)))


def profile(
    law: str | Law | Fit, frame: pd.DataFrame, symbol: str, values: Iterable[float] | None = None, **options
) -> Profile:
    """Profile `symbol` of a law fitted to `frame` with `options` (fields of `Options`), at `values` in its unit, or as
    far as its intervals reach. A `Fit` stands for its law; it must be one of this table with these options.

    Raises:
        InputError: what a fit of the law raises; no such parameter; values outside its bounds; a fit of other rows.
    """
    fitted = _fitted(law, frame, options)
    symbols = fitted.law.symbols
    if symbol not in symbols:
        raise InputError(f"{symbol}: {fitted.law.name} has no such parameter; use one of {', '.join(symbols)}")
    likelihood = ProfileLikelihood(fitted, symbol)
    places = None if values is None else likelihood.positions(values)
    (plain, rule), (clustered, clustered_rule) = likelihood.plain_limit(), likelihood.clustered_limit()
    limits = [limit for limit in (plain, clustered) if np.isfinite(limit)]
    at, points, height = likelihood.trace(limits, places)
    least = min(likelihood.least, height.min())
    warnings = list(fitted.warnings)
    if likelihood.least - least > 1e-6 * (likelihood.scale + least):
        where = f"{symbol} = {likelihood.natural(at[np.argmin(height)]):.6g}"
        warnings.append(f"the profile falls below the optimum of the fit, near {where}")
    order = np.argsort(likelihood.natural(at))
    others = likelihood.pinned.outside(points[order])
    ends = [likelihood.ends(at, height - least, limit, whole=places is None) for limit in (plain, clustered)]
    return Profile(
        law=fitted.law.name,
        symbol=symbol,
        unit=likelihood.parameter.unit,
        bounds=(likelihood.parameter.lower, likelihood.parameter.upper),
        rows=len(fitted.frame),
        left_out=fitted.left_out,
        estimate=fitted.params[symbol],
        values=likelihood.natural(at)[order],
        rise=(height - least)[order],
        params={s: others[:, j] for j, s in enumerate(symbols) if s != symbol},
        low=ends[0][0],
        high=ends[0][1],
        limit=plain,
        rule=rule,
        clustered_low=ends[1][0],
        clustered_high=ends[1][1],
        clustered_limit=clustered,
        clustered_rule=clustered_rule,
        warnings=warnings,
    )


def _fitted(law: str | Law | Fit, frame: pd.DataFrame, options: dict) -> Fitted:
    if isinstance(law, Fit):
        return law.again(frame, **options)
    return prepare(law, frame, Options(**{"bootstrap": 0} | options))
