"""Predicted against measured loss of training in low precision. Fig. 5 of Kumar et al. 2024 (arXiv 2411.04330).

A panel for the runs in which one part was in low precision, for those in which several were, and for all runs, all with
one fit of the N_eff law (joint). The runs with several parts stand there once more with a fit that saw none of them:
what it knows of a part comes from the runs in which that part was alone, for the parts of such runs share A, B, E and
the exponents and nothing else, and the parts' factors are multiplied. If low precision of one part makes another's no
worse, both do as well. R2 and mean squared error are of the runs in the panel, in nats; the grey line is equality.
"""

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.fitting.selection import rows_of
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

COLUMNS = 3
SEVERAL, APART, ALL = "several parts", "several parts, fitted apart", "all runs"
TITLES = {SEVERAL: "several parts, joint fit", APART: "several parts, product of\nparts fitted apart"}


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` must hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: neither law was fitted.
    """
    fit = shared.first_of(fits, LOW_LAWS)
    if fit is None:
        raise InputError(f"no N_eff law was fitted; expected one of {', '.join(LOW_LAWS)}")
    rows = rows_of(fit.law, fit.filter, frame).frame
    full = {part: FULL_BITS for part in PARTS if part not in rows}
    rows = rows.assign(**full, predicted=fit.predict(rows)).reset_index(drop=True)
    rows = rows[np.isfinite(rows["predicted"])]
    rows = rows.assign(part=_parts(rows), lowest=rows[list(PARTS)].min(axis=1))
    shown = {k: rows[rows["part"] == k] for k in (*shared.NAMES.values(), SEVERAL)}
    apart = fitted_apart(rows, fit)
    if apart is not None:
        shown[APART] = _by(apart, shown[SEVERAL])
    shown = {k: group for k, group in shown.items() if len(group)} | {ALL: rows}
    panels = list(shown)
    widths = sorted(rows["lowest"].unique())
    below = [b for b in widths if b < FULL_BITS]
    colours = dict(zip(below, style.shades(len(below)), strict=True)) | {FULL_BITS: "0.6"}
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    size = {"width": min(style.PAGE, 0.5 + 2.17 * columns), "height": 0.75 + 2.05 * lines}
    figure, axes = style.canvas(lines, columns, **size, sharex=True, sharey=True)
    plotted = []
    for panel, kind in zip(axes.flat, panels, strict=False):
        plotted += _panel(panel, kind, shown[kind], colours)
    for panel in axes.flat[len(panels) :]:
        panel.remove()
    for panel in axes.flat[max(0, len(panels) - columns) : len(panels)]:
        panel.tick_params(labelbottom=True)
    seen = pd.concat(shown.values())[["loss", "predicted"]]
    ends = np.array([seen.min().min(), seen.max().max()])
    ends = ends + 0.04 * (ends[1] - ends[0]) * np.array([-1, 1])
    for axis, limit in ((axes[0, 0].xaxis, axes[0, 0].set_xlim), (axes[0, 0].yaxis, axes[0, 0].set_ylim)):
        limit(*ends)
        axis.set_major_locator(ticker.MaxNLocator(5))
    figure.supxlabel("measured loss (nats per token)" + _constants(fit, apart), fontsize=8)
    figure.supylabel("predicted loss (nats per token)", fontsize=8)
    handles = [
        Line2D([], [], color=c, marker="o", linestyle="none", label="16 bits" if b >= FULL_BITS else f"{b:g}")
        for b, c in colours.items()
        if b in widths
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(8, len(handles)), title="lowest precision in training",
        title_fontsize=7, columnspacing=1.2, handletextpad=0.2,
    )  # fmt: skip
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def fitted_apart(rows: pd.DataFrame, fit: Fit) -> Fit | None:
    """The law of `fit`, fitted to those of `rows` with at most one part in low precision; None without others or where
    they are too few."""
    alone = (rows[list(PARTS)] < FULL_BITS).sum(axis=1) <= 1
    if alone.all():
        return None
    chosen = {"objective": fit.options.objective, "huber_delta": fit.options.huber_delta}
    return shared.own_fit(rows[alone], {}, fit.law.name, **chosen)


def _by(fit: Fit, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `rows` of which `fit` knows all parts in low precision, with what it predicts."""
    rows = rows_of(fit.law, fit.filter, rows).frame
    rows = rows.assign(predicted=fit.predict(rows))
    return rows[np.isfinite(rows["predicted"])]


def _constants(fit: Fit, apart: Fit | None) -> str:
    """gamma of each part, jointly and apart."""
    if apart is None:
        return ""
    known = [(gamma, part) for part, (gamma, _) in PARTS.items() if {gamma} <= {*fit.params} & {*apart.params}]
    told = (
        rf"$\gamma_\mathrm{{{part.removeprefix('P_')}}}$ = {fit.params[gamma]:.2f}, apart {apart.params[gamma]:.2f}"
        for gamma, part in known
    )
    return "\n" + ";   ".join(told) + " (bits)"


def _parts(rows: pd.DataFrame) -> np.ndarray:
    """Which part of each run was in low precision, SEVERAL, or nothing."""
    below = (rows[list(PARTS)] < FULL_BITS).to_numpy()
    names = np.array(list(shared.NAMES.values()))[below.argmax(axis=1)]
    return np.where(below.sum(axis=1) > 1, SEVERAL, np.where(below.any(axis=1), names, ""))


def _panel(axes, kind: str, rows: pd.DataFrame, colours: dict) -> list[dict]:
    r2, mse = shared.r2(rows["loss"], rows["predicted"]), float(((rows["loss"] - rows["predicted"]) ** 2).mean())
    axes.set_title(TITLES.get(kind, kind))
    axes.set_box_aspect(1)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8, zorder=2)
    for bits, group in sorted(rows.groupby("lowest"), reverse=True):
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.3}
        axes.plot(group["loss"], group["predicted"], "o", color=colours[bits], zorder=3, **edge)
    told = (
        f"MSE = {mse:.2g}\nn = {len(rows)}" if np.isnan(r2) else f"$R^2$ = {r2:.3f}\nMSE = {mse:.2g}\nn = {len(rows)}"
    )
    axes.text(0.04, 0.97, told, transform=axes.transAxes, va="top", fontsize=7, linespacing=1.3)
    return [
        {
            "panel": kind, "N": r.N, "D": r.D, "P_w": r.P_w, "P_a": r.P_a, "P_kv": r.P_kv, "loss": r.loss,
            "predicted": r.predicted, "r2": r2, "mse": mse,
        }
        for r in rows.itertuples()
    ]  # fmt: skip
