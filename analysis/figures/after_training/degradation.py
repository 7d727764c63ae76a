"""What quantization after training costs as training goes on. Fig. 2 of Kumar et al. 2024 (arXiv 2411.04330).

A column a model size. Top: loss after quantization against D/N, a line a bit width through the mean over seeds. Bottom:
delta_PTQ with its standard errors, and the fitted law. Filled points were fitted, open ones were not (too few bits, or
a predicted gap where the law no longer holds); triangles at an edge are losses above the
axis, and gaps below it, zero or less.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.fitting.selection import applicable_rows
from analysis.laws.law import FULL_BITS
from analysis.laws.registry import LAWS
from analysis.table import nominal_tokens, numbers

SYMBOLS = {"gamma_D": r"$\gamma_D$", "gamma_N": r"$\gamma_N$", "gamma_post": r"$\gamma_\mathrm{post}$"}
HIGHEST = 1.15  # top panels end this far above the 3-bit losses: 2 bits would press all others into one line
COLUMNS = ["panel", "kind", "N", "D", "P_post", "value", "se", "fitted"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_ptq.

    Raises:
        InputError: the table has no model that was quantized after training, or a gap that is not a number.
    """
    after = applicable_rows(LAWS["kumar_ptq"], frame).frame
    if after.empty:
        raise InputError("no row is quantized after training; expected rows with ptq, P_post and gap")
    for column in ("P_post", "gap", "loss"):
        numbers(after, column)
    before = applicable_rows(LAWS["chinchilla"], frame).frame.assign(P_post=np.nan)
    fit = fits.get("kumar_ptq")
    after = after.assign(fitted=True if fit is None else shared.was_fitted(after, fit.predict(after)))
    after, before = (rows.assign(D=nominal_tokens) for rows in (after, before))
    widths, parts = sorted(after["P_post"].unique()), []
    for size, rows in after.groupby("N"):
        for group in (*(shared.at(rows, P_post=bits) for bits in widths), shared.at(before, N=size)):
            means = group.groupby("D", as_index=False)[["N", "P_post", "loss"]].mean()
            each = group.drop(columns="fitted", errors="ignore").assign(kind="point"), means.assign(kind="mean")
            parts += [part.assign(panel="loss", value=part["loss"]) for part in each]
        for bits in widths:
            group = shared.at(rows, P_post=bits)
            parts.append(group.assign(panel="gap", kind="point", value=group["gap"], se=group.get("gap_se", np.nan)))
            if fit is not None:
                tokens = np.geomspace(*style.span(rows["D"]), 40)
                parts.append(shared.curve(fit, "value", N=size, D=tokens, P_post=bits).assign(panel="gap"))
    parts = [part for part in parts if len(part)]
    return shared.together(parts, COLUMNS, law=shared.stated(fit, SYMBOLS, ",  "))


def draw(data: pd.DataFrame) -> style.Figure:
    """A column for each N: losses above, gaps below."""
    losses, gaps = shared.at(data, panel="loss").fillna({"P_post": FULL_BITS}), shared.at(data, panel="gap")
    gap_points, loss_points = shared.at(gaps, kind="point"), shared.at(losses, kind="point")
    sizes, looks = sorted(gap_points["N"].unique()), palettes.looks(sorted(gap_points["P_post"].unique()))
    base = shared.at(loss_points, P_post=FULL_BITS)
    shown = loss_points[loss_points["P_post"].between(min(3, max(looks)), max(looks))]["value"]
    low, high = np.nanmin([shown.min(), base["value"].min()]), shown.max()
    low, high = low - 0.06 * (high - low), low + HIGHEST * (high - low)
    columns = len(sizes)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 1.2 + 1.75 * columns)
    figure, axes = style.subplots(2, columns, width=width, height=4.0, sharex="col", sharey="row")
    for (top, bottom), size in zip(axes.T, sizes, strict=True):
        top.set_title(style.size_label(size))
        _losses(top, shared.at(losses, N=size), looks, high)
        _gaps(bottom, shared.at(gaps, N=size), looks)
        ratios = shared.at(gap_points, N=size)["D"] / size
        style.log_axis_of(bottom, "x", ratios, most=5 if columns < 4 else 4, text=style.magnitude)
    axes[0, 0].set_ylabel("loss after quantization\n(nats per token)")
    axes[1, 0].set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    axes[0, 0].set_ylim(low, high)
    positive = gap_points.loc[gap_points["value"] > shared.LOWEST, "value"]
    if len(positive):
        style.log_axis(axes[1, 0], "y", *style.span(positive))
    figure.supxlabel(f"D/N (tokens per parameter)\n{data.attrs['law']}".strip(), fontsize=8)
    handles = style.keys(looks, style.bits_label)
    if len(base):
        look = {"color": "black", "linestyle": style.DASHES, "marker": "o", "markersize": 2.4}
        handles.append(style.key("unquantized", **look))
    if not gap_points["fitted"].all():
        handles.append(style.key("not fitted", color="0.4", linestyle="none", marker="o", markerfacecolor="white"))
    beyond = {"below": (gap_points["value"] <= shared.LOWEST).any(), "above": (loss_points["value"] > high).any()}
    style.legend(figure, handles, {1: 3, 2: 4}.get(columns, 6), **beyond)
    return figure


def _losses(axes, rows: pd.DataFrame, looks: dict, high: float) -> None:
    for bits, (colour, marker) in (looks | {FULL_BITS: ("black", "o")}).items():
        points, means = (shared.at(rows, P_post=bits, kind=kind) for kind in ("point", "mean"))
        dashes = style.DASHES if bits == FULL_BITS else "-"
        axes.plot(means["D"] / means["N"], means["value"], color=colour, linestyle=dashes, zorder=3)
        axes.plot(points["D"] / points["N"], points["value"], marker, markersize=2.4, color=colour, zorder=3)
        above = points[points["value"] > high]
        # Without its marker, which would pass for a loss there: only the fewest bits are so far above.
        style.at_edge(axes, "upper", above["D"] / above["N"], colour=colour)


def _gaps(axes, rows: pd.DataFrame, looks: dict) -> None:
    """Points, and the law: whole where rows of that width were fitted, dotted where it is only continued."""
    axes.set_yscale("log")
    for bits, (colour, marker) in looks.items():
        points, law = (shared.at(rows, P_post=bits, kind=kind) for kind in ("point", "law"))
        for fitted, part in points.groupby("fitted"):
            edge = {"markeredgecolor": colour, "markerfacecolor": colour if fitted else "white", "markeredgewidth": 0.8}
            place = part["D"] / part["N"], part["value"], part["se"]
            style.points_above(axes, *place, shared.LOWEST, colour=colour, marker=marker, markersize=3.2, **edge)
        dashes = "-" if points["fitted"].any() else ":"
        axes.plot(law["D"] / law["N"], law["value"], color=colour, linestyle=dashes, linewidth=1.0, zorder=3)
