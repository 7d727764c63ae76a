"""Whether tokens count, or tokens as a multiple of the optimizer's memory tau = batch / (rate x weight decay).

delta_PTQ at 3 and 4 bits against D and against D / tau, by weight decay or by batch, whichever has more values, the
other at its most frequent one; at the N with the most such runs. The axis that counts brings lines together. Lines go
through the means over seeds. tau as in Wang and Aitchison 2024 (arXiv 2405.13698).
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style

LAW = "kumar_ptq"
BITS = (3.0, 4.0)
VARIED = {"weight_decay": "weight decay {:g}", "batch_tokens": "batch of {:,.0f} tokens"}


@style.styled
def draw(frame: pd.DataFrame, fits: dict) -> style.Drawn:
    """The figure and its numbers. `fits` is not used.

    Raises:
        InputError: no N was trained with two weight decays or two batches at two token counts.
    """
    rows, varied = _rows(frame)
    looks = style.looks(sorted(rows[varied].unique()))
    widths = [bits for bits in BITS if (rows["P_post"] == bits).any()]
    figure, axes = style.canvas(len(widths), 2, width=5.6, height=1.0 + 1.7 * len(widths), sharex="col", sharey="row")
    for lane, bits in zip(axes, widths, strict=True):
        for panel, column in zip(lane, ("D", "D_by_tau"), strict=True):
            for value, (colour, marker) in looks.items():
                group = rows[(rows[varied] == value) & (rows["P_post"] == bits) & np.isfinite(rows[column])]
                means = group.groupby("place").agg({column: "mean", "gap": "mean"})
                panel.plot(group[column], group["gap"], ".", color=colour, markersize=3, zorder=2)
                panel.plot(means[column], means["gap"], marker=marker, color=colour, zorder=3)
            panel.set_xscale("log")
            panel.set_yscale("log")
        lane[0].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ at {bits:g} bits")
        style.log_ticks(lane[0].yaxis, *lane[0].get_ylim())
    for panel, column, text in zip(axes[-1], ("D", "D_by_tau"), (style.magnitude, "{:g}".format), strict=True):
        low, high = style.span(rows.loc[np.isfinite(rows[column]), column])
        panel.set_xlim(low, high)
        style.log_ticks(panel.xaxis, low, high, most=5, text=text)
    size = style.magnitude(rows["N"].iloc[0])
    axes[-1, 0].set_xlabel(f"D (tokens), N = {size}")
    axes[-1, 1].set_xlabel(r"$D/\tau$")
    handles = [Line2D([], [], color=c, marker=m, label=VARIED[varied].format(v)) for v, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    columns = ["N", "D", "tau", "weight_decay", "batch_tokens", "P_post", "gap"]
    return style.Drawn(figure=figure, numbers=rows[columns])


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Gaps above zero with `D_by_tau` (NaN without weight decay) and `place`, the order of D, and the varied column."""
    if not {"tau", *VARIED} <= set(frame):
        raise InputError(f"the table has no columns tau, {' and '.join(VARIED)}")
    rows = shared.from_the_start(shared.quantized(frame, LAW))
    rows = rows[rows["P_post"].isin(BITS) & (rows["gap"] > 0)]
    varied = max(VARIED, key=lambda c: rows[c].nunique())
    (other,) = set(VARIED) - {varied}
    if len(rows):
        rows = rows[rows[other] == shared.most_frequent(rows[other])]
    told = rows.groupby("N").filter(lambda own: own[varied].nunique() > 1 and own["D"].nunique() > 1)
    if told.empty:
        raise InputError("no N was trained with two weight decays or two batches at two token counts")
    told = told[told["N"] == shared.most_frequent(told["N"])]
    # Horizons are whole steps: those of different batches differ by less than one.
    place = np.log(told["D"].astype(float)).round(2)
    return told.assign(D_by_tau=told["D"] / told["tau"].astype(float), place=place), varied
