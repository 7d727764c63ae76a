"""Is delta_PTQ a power of D? Its slope d ln delta_PTQ / d ln D from one D to the next, within each bit width.

A panel a width, and one for all together. Bars go from D to D, with 95% intervals from leaving clusters out where at
least four determine the slope (open points: fewer); an interval that leaves the panel goes on beyond it. The dashed
line is the one slope that fits all D best, its band the interval of that; the dotted line is the exponent of the fitted
law.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.diagnostics.slopes import numbers, slopes_by_width
from analysis.figures import style
from analysis.fitting.fit import Fit

LAW = "kumar_ptq"
ROOM = 0.75  # how far panels reach beyond the steepest and the flattest slope


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_ptq, whose gamma_D is among the `attrs`.

    Raises:
        InputError: kumar_ptq cannot be fitted to the table, or no rows of one model and width differ in D.
    """
    slopes = numbers(slopes_by_width(LAW, frame))
    slopes.attrs["gamma_D"] = fits[LAW].params["gamma_D"] if LAW in fits else None
    return slopes


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each width, and one for all."""
    shown = data[data["kind"] != "curvature"]
    groups = list(shown.groupby("P_post", dropna=False))
    lines = -(-len(groups) // 5)
    figure, axes = style.wrapped(len(groups), -(-len(groups) // lines), base=(1.0, 0.7), each=(1.25, 1.9))
    colours = [*palettes.shades(len(groups) - 1), "black"]
    exponent = data.attrs["gamma_D"]
    for panel, (bits, rows), colour in zip(axes, groups, colours, strict=True):
        panel.set_title("all together" if np.isnan(bits) else f"{bits:g} bits")
        _panel(panel, rows, colour)
        if exponent is not None:
            panel.axhline(exponent, color="0.35", linestyle=":", linewidth=0.9, zorder=2)
    _limits(axes, shown)
    figure.supxlabel("D (tokens)", fontsize=8)
    figure.supylabel(r"$d\,\ln\,\delta_\mathrm{PTQ}\;/\;d\,\ln D$", fontsize=8)
    grey = {"color": "0.35"}
    handles = [style.key("from one D to the next", marker="o", **grey)]
    if shown.loc[shown["kind"] == "local", "low"].isna().any():
        few = {"marker": "o", "markerfacecolor": "white"}
        handles.append(style.key("too few clusters for an interval", **few, **grey))
    handles.append(style.key("one slope for all D", linestyle=style.DASHES, **grey))
    if exponent is not None:
        handles.append(style.key(r"$\gamma_D$ of the law", linestyle=":", **grey))
    style.legend(figure, handles, 1 if len(groups) < 3 else len(handles))
    return figure


def _panel(axes, rows: pd.DataFrame, colour) -> None:
    axes.set_xscale("log")
    for e in rows[(rows["kind"] == "local") & (rows["clusters"] > 0)].itertuples():
        known, middle = e.low == e.low, np.sqrt(e.low_D * e.high_D)
        axes.plot([e.low_D, e.high_D], [e.value, e.value], color=colour, zorder=4)
        if known:
            axes.plot([middle, middle], [e.low, e.high], color=colour, linewidth=0.9, zorder=4)
        axes.plot(middle, e.value, "o", color=colour, markerfacecolor=colour if known else "white", zorder=5)
    (constant,) = rows[rows["kind"] == "constant"].itertuples()
    ends = [constant.low_D, constant.high_D]
    axes.plot(ends, [constant.value] * 2, color=colour, linestyle=style.DASHES, zorder=3)
    if constant.low == constant.low:
        axes.fill_between(ends, constant.low, constant.high, color=colour, alpha=0.12, linewidth=0, zorder=1)


def _limits(axes, estimates: pd.DataFrame) -> None:
    values = estimates.loc[estimates["clusters"] > 0, "value"].to_numpy()
    ends = estimates[["low", "high"]].to_numpy()
    ends = ends[~np.isnan(ends)] if (~np.isnan(ends)).any() else values
    low = max(min(values.min(), ends.min()), values.min() - ROOM)
    high = min(max(values.max(), ends.max()), values.max() + ROOM)
    room = 0.05 * (high - low) or 0.1
    axes[0].set_ylim(low - room, high + room)
    left, right = style.span(estimates[["low_D", "high_D"]])
    for panel in axes:
        style.log_axis(panel, "x", left, right, most=3, text=style.magnitude)
