"""delta_PTQ by bits in and after training. Fig. 7 centre and right of Kumar et al. 2024 (arXiv 2411.04330).

Left: measured, means over seeds at the N and D with the most combinations. Right: the fitted unified law (Eq. 9) there.
Numbers are millinats per token; cells below the colours' range (zero or less, too) are pale, and hatched cells have no
value. The law is zero where training had no more bits than are left.
"""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colors

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.table import nominal_tokens

LEAST = 1e-3  # nats; the least gap with a colour of its own
PALE = "0.93"
DARK = 0.45  # of the colours' range: above it, numbers are white
LAW = "kumar_unified"
TITLES = {"gap": "measured", "predicted": "fitted law"}


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """Mean gap by P_w and P_post, at the N and D with the most combinations (of several, the largest D and N); what
    the law predicts for them if `fits` have kumar_unified.

    Raises:
        InputError: no N and D at which models with weights in two widths were quantized to two widths.
    """
    rows = shared.alone(shared.quantized(frame, LAW), "P_w").assign(D=nominal_tokens)
    means = rows.groupby(["D", "N", "P_w", "P_post"], as_index=False).agg(gap=("gap", "mean"), runs=("gap", "size"))
    cells = [
        (len(group), *cell)
        for cell, group in means.groupby(["D", "N"])
        if group["P_w"].nunique() > 1 and group["P_post"].nunique() > 1
    ]
    if not cells:
        raise InputError("no N and D at which models with weights in two widths were quantized to two widths")
    _, tokens, size = max(cells)
    cells_there = shared.at(means, D=tokens, N=size)[["P_w", "P_post", "gap", "runs"]].reset_index(drop=True)
    fit = shared.first_of(fits, [LAW], ["P_w"])
    if fit is not None:
        law = shared.curve(fit, "predicted", P_w=cells_there["P_w"], P_post=cells_there["P_post"], N=size, D=tokens)
        cells_there = cells_there.assign(predicted=law["predicted"])
    return cells_there.assign(N=size, D=tokens)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for what was measured and one for the law."""
    shown = [column for column in TITLES if column in data]
    high = max(data[shown].max().max(), 2 * LEAST)
    norm, colours = colors.LogNorm(LEAST, high), matplotlib.colormaps["viridis_r"].with_extremes(under=PALE)
    widths, posts = sorted(data["P_w"].unique()), sorted(data["P_post"].unique())
    width = max(1.1 + len(shown) * (0.3 + 0.33 * len(widths)), style.COLUMN if len(shown) == 1 else 4.4)
    size = {"width": min(style.PAGE, width), "height": 1.3 + 0.22 * len(posts)}
    figure, axes = style.subplots(1, len(shown), **size, sharex=True, sharey=True)
    for panel, column in zip(axes[0], shown, strict=True):
        square = data.pivot(index="P_post", columns="P_w", values=column).reindex(index=posts, columns=widths)
        mesh = _heat(panel, square.to_numpy(float), norm, colours)
        panel.set_title(TITLES[column])
    first = axes[0, 0]
    first.set_xticks(np.arange(len(widths)), [f"{b:g}" for b in widths])
    first.set_yticks(np.arange(len(posts)), [f"{b:g}" for b in posts])
    first.set_ylabel("after training, $P_\\mathrm{post}$ (bits)")
    figure.supxlabel("weight precision in training, $P_w$ (bits)", fontsize=8)
    figure.suptitle(f"{style.cell_label(data)}\nin cells: millinats per token", fontsize=8)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, extend="min")
    bar.set_label(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    style.log_ticks(bar.ax.yaxis, LEAST, high)
    bar.outline.set_visible(False)
    return figure


def _heat(axes, values: np.ndarray, norm: colors.Normalize, colours: colors.Colormap):
    """values (P_post, P_w) in nats as coloured cells with their numbers in millinats, centred on whole numbers."""
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set(hatch="////", edgecolor="0.75", facecolor="white")
    edges = [np.arange(n + 1) - 0.5 for n in values.shape]
    shown = np.ma.masked_invalid(np.where(values > 0, values, np.where(np.isnan(values), np.nan, LEAST / 10)))
    mesh = axes.pcolormesh(edges[1], edges[0], shown, norm=norm, cmap=colours, edgecolor="white", linewidth=1.0)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if norm(max(value, LEAST)) > DARK else "black"
            axes.text(column, row, _millinats(value), ha="center", va="center", fontsize=6, color=colour)
    return mesh


def _millinats(value: float) -> str:
    text = f"{1e3 * value:.0f}" if abs(value) >= 9.95e-3 else f"{1e3 * value:.1f}"
    return "0" if float(text) == 0 else text
