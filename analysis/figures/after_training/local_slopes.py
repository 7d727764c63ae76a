"""Is delta_PTQ a power of D? Its slope d ln delta_PTQ / d ln D from one D to the next, within each bit width.

A panel a width, and one for all together. Bars go from D to D, with 95% intervals from leaving clusters out where at
least four tell the slope (open points: fewer); an interval that leaves the panel goes on beyond it. The dashed line is
the one slope that fits all D best, its band the interval of that; the dotted line is the exponent of the fitted law.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.diagnostics.slopes import Slopes, numbers, slopes_by_width
from analysis.figures import style
from analysis.figures.rows import first_of
from analysis.fitting.fit import Fit

LAW = "kumar_ptq"
ROOM = 0.75  # how far panels reach beyond the steepest and the flattest slope


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `frame` is a tidy table, `fits` may hold kumar_ptq.

    Raises:
        InputError: kumar_ptq cannot be fitted to the table, or no rows of one model and width differ in D.
    """
    found = slopes_by_width(LAW, frame)
    panels = {f"{bits:g} bits": slopes for bits, slopes in found.widths.items()} | {"all together": found.together}
    colours = [*style.shades(len(found.widths)), "black"]
    rows = int(np.ceil(len(panels) / 5))
    columns = int(np.ceil(len(panels) / rows))
    width = min(style.PAGE, 1.0 + 1.25 * columns)
    figure, axes = style.canvas(rows, columns, width=width, height=0.7 + 1.9 * rows, sharex=True, sharey=True)
    fit = first_of(fits, (LAW,))
    for panel, (title, slopes), colour in zip(axes.flat, panels.items(), colours, strict=False):
        panel.set_title(title)
        _panel(panel, slopes, colour)
        if fit is not None:
            panel.axhline(fit.params["gamma_D"], color="0.35", linestyle=":", linewidth=0.9, zorder=2)
    for spare in axes.flat[len(panels) :]:
        spare.set_axis_off()
    _limits(axes, [e for slopes in panels.values() for e in (*slopes.local, slopes.constant)])
    figure.supxlabel("D (tokens)", fontsize=8)
    figure.supylabel(r"$d\,\ln\,\delta_\mathrm{PTQ}\;/\;d\,\ln D$", fontsize=8)
    few = any(e.low != e.low for slopes in panels.values() for e in slopes.local)
    _legend(figure, fit, few=few, narrow=columns < 3)
    return style.Drawn(figure=figure, numbers=numbers(found))


def _panel(axes, slopes: Slopes, colour) -> None:
    axes.set_xscale("log")
    for e in (e for e in slopes.local if e.clusters):
        known = e.low == e.low
        middle = np.sqrt(e.low_D * e.high_D)
        axes.plot([e.low_D, e.high_D], [e.value, e.value], color=colour, zorder=4)
        if known:
            axes.plot([middle, middle], [e.low, e.high], color=colour, linewidth=0.9, zorder=4)
        axes.plot(middle, e.value, "o", color=colour, markerfacecolor=colour if known else "white", zorder=5)
    constant = slopes.constant
    axes.plot([constant.low_D, constant.high_D], [constant.value] * 2, color=colour, linestyle=style.DASHES, zorder=3)
    if constant.low == constant.low:
        ends = constant.low_D, constant.high_D
        axes.fill_between(ends, constant.low, constant.high, color=colour, alpha=0.12, linewidth=0, zorder=1)


def _limits(axes, estimates: list) -> None:
    values = np.array([e.value for e in estimates if e.clusters])
    ends = np.array([end for e in estimates for end in (e.low, e.high) if end == end] or values)
    low = max(min(values.min(), ends.min()), values.min() - ROOM)
    high = min(max(values.max(), ends.max()), values.max() + ROOM)
    room = 0.05 * (high - low) or 0.1
    axes[0, 0].set_ylim(low - room, high + room)
    left, right = style.span([e.low_D for e in estimates] + [e.high_D for e in estimates])
    axes[0, 0].set_xlim(left, right)
    for panel in axes.flat:
        style.log_ticks(panel.xaxis, left, right, most=3, text=style.magnitude)


def _legend(figure, fit: Fit | None, *, few: bool, narrow: bool) -> None:
    grey = {"color": "0.35"}
    handles = [Line2D([], [], marker="o", label="from one D to the next", **grey)]
    if few:
        handles.append(
            Line2D([], [], marker="o", markerfacecolor="white", label="too few clusters for an interval", **grey)
        )
    handles.append(Line2D([], [], linestyle=style.DASHES, label="one slope for all D", **grey))
    if fit is not None:
        handles.append(Line2D([], [], linestyle=":", label=r"$\gamma_D$ of the law", **grey))
    figure.legend(handles=handles, loc="outside upper center", ncols=1 if narrow else len(handles))
