"""Predicted against measured delta_PTQ. Fig. 7 left and Fig. 19 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a gap law. Filled points were fitted, open ones were not (too few or too many bits, or a large predicted gap).
Triangles at the lower and left edge are gaps beyond the axis, zero or less. Bits alone explain most
of a gap, so R2 is given within each width as well, of the fitted points, in linear space as it was fitted; the grey
line is equality.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS

LAWS_SHOWN = {"kumar_ptq": "trained in 16 bits", "kumar_unified": "trained in any precision"}
COLUMNS = ["N", "D", *PARTS, "P_post", "gap", "gap_se", "predicted", "fitted", "law"]
LEAST_ROWS = 3


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` must hold kumar_ptq or kumar_unified.

    Raises:
        InputError: neither law was fitted, or the table has no usable gap.
    """
    rows = {name: usable(frame, fits[name]) for name in LAWS_SHOWN if name in fits}
    if not rows:
        raise InputError(f"no gap law was fitted; expected one of {', '.join(LAWS_SHOWN)}")
    return side_by_side(rows, LAWS_SHOWN)


def usable(frame: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Rows to which the law applies and for which it has a value, with `predicted`, and whether they were `fitted`."""
    rows = shared.quantized(frame, fit)
    rows = rows.assign(predicted=fit.predict(rows))
    # Zero is what the unified law predicts for models trained in no more bits than are left, for which it is not meant.
    rows = rows[np.isfinite(rows["predicted"]) & (rows["predicted"] > 0)]
    return rows.assign(fitted=shared.was_fitted(rows, rows["predicted"].to_numpy()))


def side_by_side(rows: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> pd.DataFrame:
    """The `usable` rows of each law or fit, to be drawn in a panel each, with its title where there are several."""
    both = shared.together([group.assign(law=name) for name, group in rows.items()], titles=dict(titles))
    return both[[c for c in COLUMNS if c in both]]


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each law."""
    looks, laws = palettes.looks(sorted(data["P_post"].unique())), list(dict.fromkeys(data["law"]))
    shown, columns = data[["gap", "predicted"]].to_numpy(), len(laws)
    low, high = style.span(shown[shown > shared.LOWEST])
    size = {"width": style.COLUMN if columns == 1 else 5.6, "height": 3.6 if columns == 1 else 3.35}
    figure, axes = style.subplots(1, columns, **size, sharex=True, sharey=True)
    for panel, law in zip(axes[0], laws, strict=True):
        panel.set(xscale="log", yscale="log", box_aspect=1)
        if columns > 1:
            panel.set_title(data.attrs["titles"][law])
        group = shared.at(data, law=law)
        _points(panel, group, looks, low)
        _state(panel, group[group["fitted"]])
    for which in "xy":
        style.log_axis(axes[0, 0], which, low, high, most=5)
    figure.supxlabel(r"measured $\delta_\mathrm{PTQ}$ (nats per token)", fontsize=8)
    axes[0, 0].set_ylabel(r"predicted $\delta_\mathrm{PTQ}$ (nats per token)")
    plain = {"linestyle": "none", "markersize": 3.5}
    handles = style.keys(looks, style.bits_label, **plain)
    if not data["fitted"].all():
        handles.append(style.key("not fitted", color="0.4", marker="o", markerfacecolor="white", **plain))
    left = data["gap"] < low
    beyond = {"left": left.any(), "below": (~left & (data["predicted"] < low)).any()}
    style.legend(figure, handles, 4 if columns == 1 else 5, **beyond, columnspacing=1.0, handletextpad=0.2)
    return figure


def _points(axes, rows: pd.DataFrame, looks: dict, low: float) -> None:
    axes.axline((low, low), (1, 1), color="0.6", linewidth=0.8, zorder=2)
    for (bits, fitted), group in rows.groupby(["P_post", "fitted"]):
        colour, marker = looks[bits]
        face = {"markerfacecolor": colour if fitted else "white", "markeredgewidth": 0.7, "markersize": 3}
        left, under = group[group["gap"] < low], group[(group["gap"] >= low) & (group["predicted"] < low)]
        inside = group[(group["gap"] >= low) & (group["predicted"] >= low)]
        reach = [np.minimum(inside["gap_se"], 0.9 * inside["gap"]), inside["gap_se"]]
        place = inside["gap"], inside["predicted"]
        axes.errorbar(*place, xerr=reach, fmt=marker, color=colour, elinewidth=0.6, zorder=4, **face)
        height = np.maximum(left["predicted"], low * 1.1)
        style.at_edge(axes, "left", height, colour=colour, marker=marker, **face)
        style.at_edge(axes, "lower", under["gap"], colour=colour, marker=marker, **face)


def within(rows: pd.DataFrame) -> dict[float, float]:
    """R2 of fitted rows by P_post, of widths with three of them or more."""
    groups = rows.groupby("P_post")
    return {bits: shared.r2(g["gap"], g["predicted"]) for bits, g in groups if len(g) >= LEAST_ROWS}


def _state(axes, fitted: pd.DataFrame) -> None:
    stated = f"$R^2$ = {shared.r2(fitted['gap'], fitted['predicted']):.2f}, n = {len(fitted)}\n$R^2$ within"
    stated += "".join(f"\n  {bits:g} bits  {value:.2f}" for bits, value in within(fitted).items())
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    axes.text(0.05, 0.97, stated, transform=axes.transAxes, va="top", fontsize=6.5, zorder=6, bbox=box)
