"""Loss against the weights' precision in training. Fig. 4 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a token count, a line a model size. Points are runs, lines the fitted N_eff law at 16-bit activations and KV
cache; the line ends where the law leaves no effective parameters.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.planning.choose_law import LOW_LAWS

COLUMNS = 3


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: the table has no token count at which weights were trained in at least two widths.
    """
    if "P_w" not in frame:
        raise InputError("the table has no column P_w, the bits of weights in training")
    rows = shared.alone(shared.trained(frame), "P_w")
    rows = rows[rows.groupby("D")["P_w"].transform("nunique") > 1]
    if rows.empty:
        raise InputError("no token count has weights trained in two widths with activations and KV cache at 16 bits")
    fit = shared.first_of(fits, LOW_LAWS, ["P_w"])
    widths = np.geomspace(rows["P_w"].min(), rows["P_w"].max(), 80)
    parts = []
    for (tokens, size), group in rows.groupby(["D", "N"]):
        parts.append(group.sort_values(["P_w", "loss"]).assign(kind="point"))
        if fit is not None:
            parts.append(shared.curve(fit, "loss", N=size, D=tokens, P_w=widths).dropna())
    numbers = pd.concat(parts)[["kind", "N", "D", "P_w", "loss"]]
    numbers.attrs["gamma_w"] = shared.stated(fit, {"gamma_w": r"$\gamma_w$"})
    return numbers


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each D."""
    points = shared.at(data, kind="point")
    looks, tokens = palettes.looks(sorted(data["N"].unique())), sorted(data["D"].unique())
    figure, axes = style.wrapped(len(tokens), COLUMNS, base=(1.3, 0.9), each=(1.9, 1.9), lone=style.COLUMN)
    for panel, D in zip(axes, tokens, strict=True):
        panel.set_title(f"D = {style.magnitude(D)} tokens")
        for size, (colour, marker) in looks.items():
            # In the order of the table, by the index: which point lies on top follows from that.
            own, law = (shared.at(data, D=D, N=size, kind=kind).sort_index() for kind in ("point", "law"))
            panel.plot(own["P_w"], own["loss"], marker, color=colour, **style.WHITE_EDGE, zorder=4)
            panel.plot(law["P_w"], law["loss"], color=colour, zorder=3)
    axes[0].set_xscale("log", base=2)
    style.exact_ticks(axes[0].xaxis, sorted(points["P_w"].unique()))
    low, high = points["loss"].min(), points["loss"].max()
    axes[0].set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    figure.supxlabel(f"weight precision in training, $P_w$ (bits)\n{data.attrs['gamma_w']}".strip(), fontsize=8)
    figure.supylabel("loss (nats per token)", fontsize=8)
    style.legend(figure, style.keys(looks, style.size_label), 6 if len(tokens) > 1 else 3)
    return figure
