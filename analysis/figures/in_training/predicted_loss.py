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

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.fitting.selection import rows_of
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

SEVERAL, APART, ALL = "several parts", "several parts, fitted apart", "all runs"
TITLES = {SEVERAL: "several parts, joint fit", APART: "several parts, product of\nparts fitted apart"}
COLUMNS = ["panel", "N", "D", *PARTS, "loss", "predicted", "r2", "mse"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` must hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: neither law was fitted.
    """
    fit = shared.first_of(fits, LOW_LAWS)
    if fit is None:
        raise InputError(f"no N_eff law was fitted; expected one of {', '.join(LOW_LAWS)}")
    rows = _predicted(fit, frame.assign(**{part: FULL_BITS for part in PARTS if part not in frame}))
    below = (rows[list(PARTS)] < FULL_BITS).to_numpy()
    count, names = below.sum(axis=1), np.array(list(shared.NAMES.values()))[below.argmax(axis=1)]
    shown = {name: rows[(count == 1) & (names == name)] for name in shared.NAMES.values()}
    shown[SEVERAL] = rows[count > 1]
    apart = fitted_apart(rows, fit)
    if apart is not None:
        shown[APART] = _predicted(apart, shown[SEVERAL])
    shown[ALL] = rows
    parts = [
        group.assign(
            panel=panel,
            r2=shared.r2(group["loss"], group["predicted"]),
            mse=float(((group["loss"] - group["predicted"]) ** 2).mean()),
        )
        for panel, group in shown.items()
        if len(group)
    ]
    return shared.together(parts, COLUMNS, constants=_constants(fit, apart))


def _predicted(fit: Fit, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `rows` of which the fit knows all parts in low precision, with what it predicts."""
    rows = rows_of(fit.law, fit.filter, rows).frame
    rows = rows.assign(predicted=fit.predict(rows))
    return rows[np.isfinite(rows["predicted"])]


def fitted_apart(rows: pd.DataFrame, fit: Fit) -> Fit | None:
    """The law of `fit`, fitted to those of `rows` with at most one part in low precision; None without others or where
    they are too few."""
    alone = (rows[list(PARTS)] < FULL_BITS).sum(axis=1) <= 1
    if alone.all():
        return None
    chosen = {"objective": fit.options.objective, "huber_delta": fit.options.huber_delta}
    return shared.own_fit(rows[alone], {}, fit.law.name, **chosen)


def _constants(fit: Fit, apart: Fit | None) -> str:
    """gamma of each part, jointly and apart."""
    if apart is None:
        return ""
    stated = (
        rf"$\gamma_\mathrm{{{part.removeprefix('P_')}}}$ = {fit.params[gamma]:.2f}, apart {apart.params[gamma]:.2f}"
        for part, (gamma, _) in PARTS.items()
        if gamma in fit.params and gamma in apart.params
    )
    return "\n" + ";   ".join(stated) + " (bits)"


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each group of runs."""
    panels = list(dict.fromkeys(data["panel"]))
    data = data.assign(lowest=data[list(PARTS)].min(axis=1))
    widths = sorted(data["lowest"].unique())
    looks = palettes.looks([b for b in widths if b < FULL_BITS])
    looks |= {FULL_BITS: palettes.UNQUANTIZED} if FULL_BITS in widths else {}
    figure, axes = style.wrapped(len(panels), 3, base=(0.5, 0.75), each=(2.17, 2.05))
    for panel, kind in zip(axes, panels, strict=True):
        _panel(panel, kind, shared.at(data, panel=kind), looks)
    low, high = data[["loss", "predicted"]].min().min(), data[["loss", "predicted"]].max().max()
    ends = np.array([low, high]) + 0.04 * (high - low) * np.array([-1, 1])
    axes[0].set(xlim=ends, ylim=ends)
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_locator(ticker.MaxNLocator(5))
    figure.supxlabel("measured loss (nats per token)" + data.attrs["constants"], fontsize=8)
    figure.supylabel("predicted loss (nats per token)", fontsize=8)
    handles = style.keys(looks, lambda b: "16 bits" if b >= FULL_BITS else f"{b:g}", linestyle="none")
    look = {"title": "lowest precision in training", "title_fontsize": 7, "columnspacing": 1.2, "handletextpad": 0.2}
    style.legend(figure, handles, 8, **look)
    return figure


def _panel(axes, kind: str, rows: pd.DataFrame, looks: dict) -> None:
    axes.set_title(TITLES.get(kind, kind))
    axes.set_box_aspect(1)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8, zorder=2)
    for bits, group in sorted(rows.groupby("lowest"), reverse=True):
        colour, marker = looks[bits]
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.3}
        axes.plot(group["loss"], group["predicted"], marker, color=colour, zorder=3, **edge)
    r2, mse = rows[["r2", "mse"]].iloc[0]
    stated = (
        f"MSE = {mse:.2g}\nn = {len(rows)}" if np.isnan(r2) else f"$R^2$ = {r2:.3f}\nMSE = {mse:.2g}\nn = {len(rows)}"
    )
    axes.text(0.04, 0.97, stated, transform=axes.transAxes, va="top", fontsize=7, linespacing=1.3)
