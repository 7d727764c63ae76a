"""Contours of equal loss over N and the weights' bits. Fig. 3 centre and right of Kumar et al. 2024 (arXiv 2411.04330).

Left: measured, linear between the means over seeds (on logarithmic axes). Right: the fitted N_eff law, same levels; it
ends where no effective parameters are left. Points are what was measured, at the token count with the most such runs.
"""

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.tri import Triangulation

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

LEVELS = 9
GRID = 81


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """Mean loss by N and P_w at the token count with the most runs whose weights alone were in low precision, and the
    law there if `fits` hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: no token count has weights in two widths at two sizes, three combinations that span an area.
    """
    rows = shared.alone(shared.trained(frame), "P_w")
    means = rows.groupby(["N", "D", "P_w"], as_index=False)["loss"].mean()
    usable = [d for d, cells in means.groupby("D") if _spans(cells)]
    if not usable:
        raise InputError("no token count has weights trained in two widths at two sizes, the rest at 16 bits")
    tokens = shared.most_frequent(rows.loc[rows["D"].isin(usable) & (rows["P_w"] < FULL_BITS), "D"])
    cells = shared.at(means, D=tokens)
    parts, fit = [cells.assign(kind="point")], shared.first_of(fits, LOW_LAWS, ["P_w"])
    if fit is not None:
        sizes, widths = (np.geomspace(*style.span(cells[c]), GRID) for c in ("N", "P_w"))
        N, P_w = (square.ravel() for square in np.meshgrid(sizes, widths))
        parts.append(shared.curve(fit, "loss", N=N, D=tokens, P_w=P_w))
    return pd.concat(parts, ignore_index=True)[["kind", "N", "D", "P_w", "loss"]]


def _spans(cells: pd.DataFrame) -> bool:
    places = np.log(cells[["N", "P_w"]].to_numpy(float))
    return bool(np.linalg.matrix_rank(places - places.mean(axis=0), tol=1e-6) == 2)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for what was measured and one for the law."""
    cells, law = (shared.at(data, kind=kind) for kind in ("point", "law"))
    figure, axes = style.side_by_side(2 if len(law) else 1, 2.7, each=2.2, sharex=True, sharey=True)
    levels = ticker.MaxNLocator(LEVELS).tick_values(cells["loss"].min(), cells["loss"].max())
    look = {"levels": levels, "cmap": "viridis_r", "extend": "both"}
    lines = {"levels": levels, "colors": "white", "linewidths": 0.6}
    first = axes[0]
    # Triangles on the logarithms, the axes' own scale: a straight edge is then straight in the figure.
    mesh = Triangulation(np.log(cells["N"]), np.log(cells["P_w"]))
    mesh = Triangulation(cells["N"], cells["P_w"], mesh.triangles)
    drawn = first.tricontourf(mesh, cells["loss"], **look)
    first.tricontour(mesh, cells["loss"], **lines)
    first.set(title="measured", xlim=style.span(cells["N"]), ylim=style.span(cells["P_w"]))
    if len(law):
        square = [law[c].to_numpy().reshape(GRID, GRID) for c in ("N", "P_w", "loss")]
        axes[1].contourf(*square, **look)
        axes[1].contour(*square, **lines)
        axes[1].set_title("fitted law")
    for panel in axes:
        panel.grid(False)
        dots = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.5, "clip_on": False}
        panel.plot(cells["N"], cells["P_w"], "o", zorder=4, **dots)
        panel.set_yscale("log", base=2)
    style.log_axis_of(first, "x", cells["N"], most=5, text=style.magnitude)
    style.exact_ticks(first.yaxis, sorted(cells["P_w"].unique()))
    first.set_ylabel("weight precision in training,\n$P_w$ (bits)")
    figure.supxlabel("N (parameters)", fontsize=8)
    figure.suptitle(f"D = {style.magnitude(cells['D'].iloc[0])} tokens", fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label("loss (nats per token)")
    bar.outline.set_visible(False)
    return figure
