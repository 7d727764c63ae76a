"""Whether N or N_eff says what quantization after low-precision training costs. Fig. 21 of Kumar et al. 2024
(arXiv 2411.04330).

Predicted against measured delta_PTQ of models trained in any precision, by the unified law (Eq. 9) with N and with
N_eff = N f(P_w) f(P_a) f(P_kv): a model trained in low precision acts as a smaller one, and its tokens overtrain it
more. Same rows, same objective. R2 is of the rows that both were fitted on, and not held out: N_eff has more
parameters, as many as the title says. The paper gives no constants for either.
"""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.after_training.predicted_gap import draw, side_by_side, usable
from analysis.fitting.fit import Fit

TITLES = {"kumar_unified_n": "with $N$", "kumar_unified": r"with $N_\mathrm{eff}$"}
__all__ = ["data", "draw", "same_rows"]


def data(frame: pd.DataFrame, fits: Mapping[str, Fit]) -> pd.DataFrame:
    """What `fits` lacks of kumar_unified and kumar_unified_n is fitted here.

    Raises:
        InputError: too few rows of models trained in low precision and quantized further.
    """
    known = shared.first_of(fits, tuple(TITLES))
    options = {} if known is None else dataclasses.asdict(known.options) | {"bootstrap": 0}
    own_fits = {name: shared.own_fit(frame, fits, name, **options) for name in TITLES}
    if None in own_fits.values():
        raise InputError("too few models were trained in low precision and quantized further for the unified gap law")
    rows, titles = same_rows({name: usable(frame, fit) for name, fit in own_fits.items()}), {}
    for name, fit in own_fits.items():
        low = rows[name][rows[name]["fitted"] & shared.low(rows[name])]
        r2 = shared.r2(low["gap"], low["predicted"])
        stated = f"\ntrained in low precision: $R^2$ = {r2:.3f}" if r2 == r2 else ""
        titles[name] = f"{TITLES[name]}: {len(fit.law.parameters)} parameters{stated}"
    return side_by_side(rows, titles)


def same_rows(rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Those of which both laws have a value; `fitted` are those that both were fitted on."""
    one, two = rows.values()
    shown = one.index.intersection(two.index)
    fitted = one.loc[shown, "fitted"] & two.loc[shown, "fitted"]
    return {name: group.loc[shown].assign(fitted=fitted) for name, group in rows.items()}
