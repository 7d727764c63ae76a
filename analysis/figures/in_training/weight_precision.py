"""Loss against the weights' precision in training. Fig. 4 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a token count, a line a model size. Points are runs, lines the fitted N_eff law at 16-bit activations and KV
cache; the line ends where the law leaves no effective parameters.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.law import FULL_BITS

COLUMNS = 3
LAWS_SHOWN = ("kumar_neff", "kumar_neff_tied")  # the first that was fitted


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` may hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: the table has no token count at which weights were trained in at least two widths.
    """
    if "P_w" not in frame:
        raise InputError("the table has no column P_w, the bits of weights in training")
    rows = shared.alone(shared.trained(frame), "P_w")
    panels = [d for d, group in rows.groupby("D") if group["P_w"].nunique() > 1]
    if not panels:
        raise InputError("no token count has weights trained in two widths with activations and KV cache at 16 bits")
    rows = rows[rows["D"].isin(panels)]
    fit = next((fits[n] for n in LAWS_SHOWN if n in fits and "P_w" in fits[n].law.variables), None)
    sizes, widths = sorted(rows["N"].unique()), sorted(rows["P_w"].unique())
    looks = dict(zip(sizes, zip(style.shades(len(sizes)), style.MARKERS * 9, strict=False), strict=False))
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 1.3 + 1.9 * columns)
    figure, axes = style.canvas(lines, columns, width=width, height=0.9 + 1.9 * lines, sharey=True, sharex=True)
    plotted = []
    for panel, tokens in zip(axes.flat, panels, strict=False):
        panel.set_title(f"D = {style.magnitude(tokens)} tokens")
        for size, group in rows[rows["D"] == tokens].groupby("N"):
            plotted += _points(panel, group, looks[size])
            plotted += _curve(panel, size, tokens, widths, looks[size][0], fit) if fit else []
    for panel in axes.flat[len(panels) :]:
        panel.remove()
    first = axes[0, 0]
    first.set_xscale("log", base=2)
    style.exact_ticks(first.xaxis, widths)
    low, high = rows["loss"].min(), rows["loss"].max()
    first.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    stated = "" if fit is None else "\n" + style.stated(r"$\gamma_w$", fit.params["gamma_w"], *fit.interval("gamma_w"))
    figure.supxlabel("weight precision in training, $P_w$ (bits)" + stated, fontsize=8)
    figure.supylabel("loss (nats per token)", fontsize=8)
    handles = [Line2D([], [], color=c, marker=m, label=f"N = {style.magnitude(n)}") for n, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6 if columns > 1 else 3, len(handles)))
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _points(axes, group: pd.DataFrame, look: tuple) -> list[dict]:
    colour, marker = look
    axes.plot(group["P_w"], group["loss"], marker, color=colour, markeredgecolor="white", markeredgewidth=0.4, zorder=4)
    return [
        {"kind": "point", "N": r.N, "D": r.D, "P_w": r.P_w, "loss": r.loss}
        for r in group.sort_values(["P_w", "loss"]).itertuples()
    ]


def _curve(axes, size: float, tokens: float, widths: list, colour, fit: Fit) -> list[dict]:
    grid = pd.DataFrame({"P_w": np.geomspace(widths[0], widths[-1], 80)})
    grid = grid.assign(N=size, D=tokens, P_a=FULL_BITS, P_kv=FULL_BITS)
    loss = fit.predict(grid)
    axes.plot(grid["P_w"], loss, color=colour, zorder=3)
    return [
        {"kind": "law", "N": size, "D": tokens, "P_w": bits, "loss": value}
        for bits, value in zip(grid["P_w"], loss, strict=True)
        if np.isfinite(value)
    ]
