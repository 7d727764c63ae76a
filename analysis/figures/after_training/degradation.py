"""What quantization after training costs as training goes on. Fig. 2 of Kumar et al. 2024 (arXiv 2411.04330).

A column a model size. Top: loss after quantization against D/N, a line a bit width through the mean over seeds. Bottom:
delta_PTQ with its standard errors, and the fitted law. Filled points were fitted, open ones were not (too few bits, or
a predicted gap where the law no longer holds); a triangle at the lower edge is a gap below the axis, zero or less.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import style
from analysis.figures.rows import LOWEST, was_fitted
from analysis.fitting.fit import Fit
from analysis.fitting.selection import applicable_rows
from analysis.laws.registry import LAWS
from analysis.table import numbers

UNQUANTIZED = (0, (4, 2))  # dashes
SYMBOLS = {"gamma_D": r"$\gamma_D$", "gamma_N": r"$\gamma_N$", "gamma_post": r"$\gamma_\mathrm{post}$"}
HIGHEST = 1.15  # top panels end this far above the 3-bit losses: 2 bits would press all others into one line


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `frame` is a tidy table, `fits` may hold kumar_ptq.

    Raises:
        InputError: the table has no model that was quantized after training, or a gap that is not a number.
    """
    after = applicable_rows(LAWS["kumar_ptq"], frame).frame
    if after.empty:
        raise InputError("no row is quantized after training; expected rows with ptq, P_post and gap")
    for column in ("P_post", "gap", "loss"):
        numbers(after, column)
    before = applicable_rows(LAWS["chinchilla"], frame).frame
    fit = fits.get("kumar_ptq")
    after = _with_law(after.reset_index(drop=True), fit)
    sizes, widths = sorted(after["N"].unique()), sorted(after["P_post"].unique())
    colours = dict(zip(widths, style.shades(len(widths)), strict=True))
    columns = len(sizes)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 1.2 + 1.75 * columns)
    figure, axes = style.canvas(2, columns, width=width, height=4.0, sharex="col", sharey="row")
    plotted = []
    for column, size in enumerate(sizes):
        top, bottom = axes[:, column]
        rows, base = after[after["N"] == size], before[before["N"] == size]
        plotted += _losses(top, base, rows, colours)
        plotted += _gaps(bottom, rows, colours, fit)
        top.set_title(f"N = {style.magnitude(size)}")
        ratio = rows["D"] / rows["N"]
        bottom.set_xscale("log")
        low, high = style.span(ratio)
        bottom.set_xlim(low, high)
        style.log_ticks(bottom.xaxis, low, high, most=5 if columns < 4 else 4, text=style.magnitude)
    axes[0, 0].set_ylabel("loss after quantization\n(nats per token)")
    axes[1, 0].set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    _limits(axes, before, after)
    figure.supxlabel("D/N (tokens per parameter)" + _caption(fit), fontsize=8)
    unfitted, lost = not after["fitted"].all(), bool((after["gap"] <= LOWEST).any())
    _legend(figure, colours, columns, base=len(before) > 0, unfitted=unfitted, lost=lost)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _with_law(after: pd.DataFrame, fit: Fit | None) -> pd.DataFrame:
    return after.assign(fitted=True if fit is None else was_fitted(after, fit.predict(after)))


def _losses(axes, base: pd.DataFrame, rows: pd.DataFrame, colours: dict) -> list[dict]:
    plotted = []
    groups = [(bits, rows[rows["P_post"] == bits]) for bits in colours] + [(np.nan, base)]
    for bits, group in groups:
        quantized = np.isfinite(bits)
        look = {"color": colours[bits]} if quantized else {"color": "black", "linestyle": UNQUANTIZED}
        means = group.groupby("D")["loss"].mean()
        if means.empty:
            continue
        size = group["N"].iloc[0]
        axes.plot(means.index / size, means.to_numpy(), zorder=3, **look)
        axes.plot(group["D"] / size, group["loss"], "o", markersize=2.4, zorder=3, color=look["color"], clip_on=True)
        plotted += [
            {"panel": "loss", "kind": "point", "N": r.N, "D": r.D, "P_post": bits, "value": r.loss}
            for r in group.itertuples()
        ]
        plotted += [
            {"panel": "loss", "kind": "mean", "N": size, "D": d, "P_post": bits, "value": v} for d, v in means.items()
        ]
    return plotted


def _gaps(axes, rows: pd.DataFrame, colours: dict, fit: Fit | None) -> list[dict]:
    plotted = []
    axes.set_yscale("log")
    for bits, colour in colours.items():
        group = rows[(rows["P_post"] == bits) & (rows["gap"] > LOWEST)]
        error = group["gap_se"].fillna(0.0) if "gap_se" in group else pd.Series(0.0, index=group.index)
        for fitted, part in group.groupby("fitted"):
            se = error[part.index]
            axes.errorbar(
                part["D"] / part["N"],
                part["gap"],
                yerr=[np.minimum(se, 0.9 * part["gap"]), se],
                fmt="o",
                color=colour,
                markerfacecolor=colour if fitted else "white",
                markersize=3.2,
                markeredgewidth=0.8,
                elinewidth=0.7,
                zorder=4,
            )
        lost = rows[(rows["P_post"] == bits) & (rows["gap"] <= LOWEST)]
        style.at_lower_edge(axes, lost["D"] / lost["N"], colour)
        for r in rows[rows["P_post"] == bits].itertuples():
            plotted.append(
                {
                    "panel": "gap", "kind": "point", "N": r.N, "D": r.D, "P_post": bits, "value": r.gap,
                    "se": getattr(r, "gap_se", np.nan), "fitted": r.fitted,
                }
            )  # fmt: skip
        if fit:
            plotted += _line(axes, rows, bits, colour, fit)
    return plotted


def _line(axes, rows: pd.DataFrame, bits: float, colour, fit: Fit) -> list[dict]:
    """The law: whole where rows of that width were fitted, dotted where it is only continued."""
    size, ends = rows["N"].iloc[0], style.span(rows["D"])
    grid = pd.DataFrame({"D": np.geomspace(*ends, 40)}).assign(N=size, P_post=bits)
    value = fit.predict(grid)
    inside = rows.loc[rows["P_post"] == bits, "fitted"].any()
    axes.plot(grid["D"] / size, value, color=colour, linestyle="-" if inside else ":", linewidth=1.0, zorder=3)
    return [
        {"panel": "gap", "kind": "law", "N": size, "D": d, "P_post": bits, "value": v}
        for d, v in zip(grid["D"], value, strict=True)
    ]


def _limits(axes, before: pd.DataFrame, after: pd.DataFrame) -> None:
    shown = after[after["P_post"] >= min(3, after["P_post"].max())]["loss"]
    low, high = min(shown.min(), before["loss"].min() if len(before) else np.inf), shown.max()
    axes[0, 0].set_ylim(low - 0.06 * (high - low), low + HIGHEST * (high - low))
    gaps = after.loc[after["gap"] > LOWEST, "gap"]
    if len(gaps):
        low, high = style.span(gaps)
        axes[1, 0].set_ylim(low, high)
        style.log_ticks(axes[1, 0].yaxis, low, high)


def _legend(figure, colours: dict, columns: int, *, base: bool, unfitted: bool, lost: bool) -> None:
    handles = [Line2D([], [], color=c, marker="o", label=f"{b:g} bits") for b, c in colours.items()]
    if base:
        dots = {"marker": "o", "markersize": 2.4}
        handles.append(Line2D([], [], color="black", linestyle=UNQUANTIZED, label="unquantized", **dots))
    plain = {"color": "0.4", "linestyle": "none"}
    if unfitted:
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="not fitted", **plain))
    if lost:
        handles.append(Line2D([], [], marker="v", label="below the axis", **plain))
    figure.legend(handles=handles, loc="outside upper center", ncols={1: 3, 2: 4}.get(columns, 6))


def _caption(fit: Fit | None) -> str:
    if fit is None:
        return ""
    return "\n" + ",  ".join(style.stated(text, fit.params[s], *fit.interval(s)) for s, text in SYMBOLS.items())
