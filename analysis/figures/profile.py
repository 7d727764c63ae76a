"""A profile drawn: the rise of the objective against the value that a parameter is held at.

Points are refits. Between them the root of the rise is taken as straight, as where intervals end. Each interval is the
part of its horizontal line that lies above the curve; an end at a bound of the parameter is open.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.diagnostics.profile import Profile
from analysis.figures import style

ABOVE = 1.35  # of the higher limit: what the axis shows
WIDE = 20  # ratio of values beyond which their axis is logarithmic
LONG = 24  # letters of a unit, beyond which there is no room for it
GREEK = {"alpha", "beta", "gamma", "delta", "kappa", "tau", "sigma", "lambda", "eta", "mu", "rho", "theta"}


@style.styled
def draw(made: Profile) -> style.Drawn:
    """The figure and its numbers."""
    (figure, panel), symbol = style.single(2.7), mathematical(made.symbol)
    limits = {
        "rows independent": (made.limit, made.low, made.high, palettes.CATEGORIES[0], "-"),
        "by clusters": (
            made.clustered_limit, made.clustered_low, made.clustered_high, palettes.CATEGORIES[1], style.DASHES
        ),
    }  # fmt: skip
    limits = {label: drawn for label, drawn in limits.items() if drawn[0] > 0}
    top = ABOVE * max((limit for limit, *_ in limits.values()), default=made.rise[np.isfinite(made.rise)].max() or 1.0)
    values, rise = _curve(made)
    panel.plot(values, rise, color="black", zorder=3)
    panel.plot(made.values, made.rise, "o", color="black", markersize=2.6, zorder=3)
    panel.plot(
        made.estimate, made.rise[made.place], "o", color="black", markerfacecolor="white", zorder=5, clip_on=False
    )
    shown = np.append(values[rise <= top], made.estimate)
    low, high = float(shown.min()), float(shown.max())
    if low > 0 and high / low > WIDE:
        panel.set_xscale("log")
        low, high = style.span([low, high])
        style.log_ticks(panel.xaxis, low, high, most=5)
    else:
        room = 0.04 * (high - low) or 0.1 * (abs(low) or 1.0)
        low, high = low - room, high + room
    for label, (limit, left, right, colour, dashes) in limits.items():
        inside = [edge if np.isnan(end) else np.clip(end, low, high) for end, edge in ((left, low), (right, high))]
        panel.plot(inside, [limit, limit], color=colour, linestyle=dashes, zorder=4, label=label)
        for end in (left, right):
            if np.isfinite(end) and end not in made.bounds:
                panel.plot([end, end], [0.0, limit], color=colour, linestyle=dashes, linewidth=0.8, zorder=2)
    panel.set_xlim(low, high)
    panel.set_ylim(0.0, top)
    panel.set_xlabel(symbol if made.unit == "1" or len(made.unit) > LONG else f"{symbol} ({made.unit})")
    panel.set_ylabel("rise of the objective")
    panel.ticklabel_format(axis="y", scilimits=(-2, 3))
    figure.legend(loc="outside upper center", ncols=2, title=f"{made.law}: 95% interval", title_fontsize=7)
    return style.Drawn(figure=figure, numbers=numbers(made))


def numbers(made: Profile) -> pd.DataFrame:
    """A row a value, the estimate among them, and one for each end of an interval, whose rise is the limit unless it is
    a bound."""
    kinds = np.where(np.arange(len(made.values)) == made.place, "estimate", "value")
    rows = pd.DataFrame({"kind": kinds, "value": made.values, "rise": made.rise, **made.params})
    ends = [
        {"kind": kind, "value": end, "rise": np.nan if end in made.bounds else limit}
        for kind, end, limit in (
            ("low", made.low, made.limit),
            ("high", made.high, made.limit),
            ("clustered_low", made.clustered_low, made.clustered_limit),
            ("clustered_high", made.clustered_high, made.clustered_limit),
        )
        if end == end
    ]
    rows = pd.concat([rows, pd.DataFrame(ends)], ignore_index=True) if ends else rows
    return rows.assign(law=made.law, parameter=made.symbol)[["law", "parameter", *rows.columns]]


def mathematical(symbol: str) -> str:
    """gamma_post as matplotlib sets it; names that are no symbols as they are."""
    base, _, below = symbol.partition("_")
    if (base not in GREEK and len(base) > 1) or "[" in symbol:
        return symbol
    base = f"\\{base}" if base in GREEK else base
    if not below:
        return f"${base}$"
    return f"${base}_{below}$" if len(below) == 1 else rf"${base}_\mathrm{{{below}}}$"


def _curve(made: Profile) -> tuple[np.ndarray, np.ndarray]:
    good = np.isfinite(made.rise)
    values, root = made.values[good], np.sqrt(np.maximum(made.rise[good], 0.0))
    signed = np.where(values < values[np.argmin(root)], -root, root)
    if values[0] > 0 and values[-1] / values[0] > WIDE:
        fine = np.geomspace(values[0], values[-1], 400)
        return fine, np.interp(np.log(fine), np.log(values), signed) ** 2
    fine = np.linspace(values[0], values[-1], 400)
    return fine, np.interp(fine, values, signed) ** 2
