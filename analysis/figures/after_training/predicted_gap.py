"""Predicted against measured delta_PTQ. Fig. 7 left and Fig. 19 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a gap law. Filled points were fitted, open ones were not (too few or too many bits, or a large predicted gap).
Triangles at an edge are gaps below the axis, zero or less. Bits alone explain most of a gap, so R2 is told within each
width as well, of the fitted points, in linear space as it was fitted; the grey line is equality.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS

LAWS_SHOWN = {"kumar_ptq": "trained in 16 bits", "kumar_unified": "trained in any precision"}
LEAST_ROWS = 3


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` must hold kumar_ptq or kumar_unified.

    Raises:
        InputError: neither law was fitted, or the table has no usable gap.
    """
    found = {name: fits[name] for name in LAWS_SHOWN if name in fits}
    if not found:
        raise InputError(f"no gap law was fitted; expected one of {', '.join(LAWS_SHOWN)}")
    return side_by_side({name: usable(frame, fit) for name, fit in found.items()}, LAWS_SHOWN)


def side_by_side(rows: dict[str, pd.DataFrame], titles: dict[str, str]) -> style.Drawn:
    """A panel a law with the `usable` rows of its fit, both by the law's name; a title where there are several."""
    both = pd.concat(rows.values())
    widths = sorted(both["P_post"].unique())
    colours = dict(zip(widths, style.shades(len(widths)), strict=True))
    shown = both[["gap", "predicted"]].to_numpy()
    low, high = style.span(shown[shown > shared.LOWEST])
    columns = len(rows)
    size = {"width": style.COLUMN if columns == 1 else 5.6, "height": 3.6 if columns == 1 else 3.35}
    figure, axes = style.canvas(1, columns, **size, sharex=True, sharey=True)
    plotted = []
    for panel, (name, group) in zip(axes[0], rows.items(), strict=True):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_box_aspect(1)
        if columns > 1:
            panel.set_title(titles[name])
        plotted += _points(panel, name, group, colours, low)
        _state(panel, group)
    first = axes[0, 0]
    for axis, limit in ((first.xaxis, first.set_xlim), (first.yaxis, first.set_ylim)):
        limit(low, high)
        style.log_ticks(axis, low, high, most=5)
    figure.supxlabel(r"measured $\delta_\mathrm{PTQ}$ (nats per token)", fontsize=8)
    first.set_ylabel(r"predicted $\delta_\mathrm{PTQ}$ (nats per token)")
    _legend(figure, colours, both, low, columns)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def usable(frame: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Rows of which the law speaks and has a value, with `predicted`, and whether they were `fitted`."""
    rows = shared.quantized(frame, fit)
    rows = rows.assign(predicted=fit.predict(rows))
    # Zero is what the unified law says of models trained in no more bits than are left, for which it is not meant.
    rows = rows[np.isfinite(rows["predicted"]) & (rows["predicted"] > 0)]
    return rows.assign(fitted=shared.was_fitted(rows, rows["predicted"].to_numpy()))


def _points(axes, law: str, rows: pd.DataFrame, colours: dict, low: float) -> list[dict]:
    axes.axline((low, low), (1, 1), color="0.6", linewidth=0.8, zorder=2)
    for (bits, fitted), group in rows.groupby(["P_post", "fitted"]):
        colour = colours[bits]
        face = {"markerfacecolor": colour if fitted else "white", "markeredgewidth": 0.7, "markersize": 3}
        inside = group[(group["gap"] >= low) & (group["predicted"] >= low)]
        error = [np.minimum(inside["gap_se"], 0.9 * inside["gap"]), inside["gap_se"]]
        axes.errorbar(
            inside["gap"], inside["predicted"], xerr=error, fmt="o", color=colour, elinewidth=0.6, zorder=4, **face
        )
        left, under = group[group["gap"] < low], group[(group["gap"] >= low) & (group["predicted"] < low)]
        if len(left):
            height = np.maximum(left["predicted"], low * 1.1)
            where = {"transform": axes.get_yaxis_transform(), "clip_on": False}
            axes.plot(np.full(len(left), style.EDGE), height, "<", color=colour, zorder=5, **face, **where)
        style.at_lower_edge(axes, under["gap"], colour, **face)
    columns = [c for c in ("N", "D", *PARTS, "P_post", "gap", "gap_se", "predicted", "fitted") if c in rows]
    return rows[columns].assign(law=law).to_dict("records")


def within(rows: pd.DataFrame) -> dict[float, float]:
    """R2 of the fitted rows by P_post, of widths with three of them or more."""
    groups = rows[rows["fitted"]].groupby("P_post")
    return {bits: shared.r2(g["gap"], g["predicted"]) for bits, g in groups if len(g) >= LEAST_ROWS}


def _state(axes, rows: pd.DataFrame) -> None:
    fitted = rows[rows["fitted"]]
    told = f"$R^2$ = {shared.r2(fitted['gap'], fitted['predicted']):.2f}, n = {len(fitted)}\n$R^2$ within"
    told += "".join(f"\n  {bits:g} bits  {value:.2f}" for bits, value in within(rows).items())
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.text(0.05, 0.97, told, transform=axes.transAxes, va="top", fontsize=6.5, zorder=6, bbox=box)


def _legend(figure, colours: dict, rows: pd.DataFrame, low: float, columns: int) -> None:
    plain = {"linestyle": "none", "markersize": 3.5}
    handles = [Line2D([], [], color=c, marker="o", label=f"{b:g} bits", **plain) for b, c in colours.items()]
    if not rows["fitted"].all():
        handles.append(Line2D([], [], color="0.4", marker="o", markerfacecolor="white", label="not fitted", **plain))
    if (rows[["gap", "predicted"]] < low).any().any():
        handles.append(Line2D([], [], color="0.4", marker="v", label="below the axis", **plain))
    ncols = min(len(handles), 4 if columns == 1 else 5)
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols, columnspacing=1.0, handletextpad=0.2)
