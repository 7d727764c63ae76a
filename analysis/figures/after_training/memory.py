"""Whether tokens count, or tokens as a multiple of the optimizer's memory tau = batch / (rate x weight decay).

delta_PTQ at 3 and 4 bits against D and against D / tau, by weight decay or by batch, whichever has more values, the
other at its most frequent one; at the N with the most such runs. The axis that counts brings lines together. Lines go
through the means over seeds. tau as in Wang and Aitchison 2024 (arXiv 2405.13698).
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.table import nominal_tokens

LAW = "kumar_ptq"
BITS = (3.0, 4.0)
VARIED = {"weight_decay": "weight decay {:g}", "batch_tokens": "batch of {:,.0f} tokens"}
COLUMNS = ["N", "D", "tau", "weight_decay", "batch_tokens", "P_post", "gap"]


def data(frame: pd.DataFrame, fits: dict) -> pd.DataFrame:
    """Gaps above zero; `attrs` say which column was `varied`. `fits` are not used.

    Raises:
        InputError: no N was trained with two weight decays or two batches at two token counts.
    """
    if not {"tau", *VARIED} <= set(frame):
        raise InputError(f"the table has no columns tau, {' and '.join(VARIED)}")
    rows = shared.from_the_start(shared.quantized(frame, LAW)).assign(D=nominal_tokens)
    rows = rows[rows["P_post"].isin(BITS) & (rows["gap"] > 0)]
    varied = max(VARIED, key=lambda c: rows[c].nunique())
    (other,) = set(VARIED) - {varied}
    if len(rows):
        rows = rows[rows[other] == shared.most_frequent(rows[other])]
    rows = rows.groupby("N").filter(lambda own: own[varied].nunique() > 1 and own["D"].nunique() > 1)
    if rows.empty:
        raise InputError("no N was trained with two weight decays or two batches at two token counts")
    return shared.together([shared.at(rows, N=shared.most_frequent(rows["N"]))], COLUMNS, varied=varied)


def draw(data: pd.DataFrame) -> style.Figure:
    """A row for each width, against D and against D / tau (which there is none of without weight decay)."""
    varied = data.attrs["varied"]
    rows = data.assign(D_by_tau=data["D"] / data["tau"].astype(float))
    looks = palettes.looks(sorted(rows[varied].unique()))
    widths = [bits for bits in BITS if (rows["P_post"] == bits).any()]
    figure, axes = style.subplots(len(widths), 2, width=5.6, height=1.0 + 1.7 * len(widths), sharex="col", sharey="row")
    for row, bits in zip(axes, widths, strict=True):
        for panel, column in zip(row, ("D", "D_by_tau"), strict=True):
            known = shared.at(rows[np.isfinite(rows[column])], P_post=bits)
            for value, (colour, marker) in looks.items():
                group = shared.at(known, **{varied: value})
                means = group.groupby("D", as_index=False)[["D_by_tau", "gap"]].mean()
                panel.plot(group[column], group["gap"], marker, color=colour, markersize=2, alpha=0.6, zorder=2)
                panel.plot(means[column], means["gap"], marker=marker, color=colour, zorder=3)
            panel.set(xscale="log", yscale="log")
        row[0].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ at {bits:g} bits" + "\n(nats per token)")
        style.log_ticks(row[0].yaxis, *row[0].get_ylim())
    for panel, column, text in zip(axes[-1], ("D", "D_by_tau"), (style.magnitude, "{:g}".format), strict=True):
        style.log_axis_of(panel, "x", rows.loc[np.isfinite(rows[column]), column], most=5, text=text)
    axes[-1, 0].set_xlabel(f"D (tokens), {style.size_label(rows['N'].iloc[0])}")
    without = "" if np.isfinite(rows["D_by_tau"]).all() else "; weight decay 0 has no $\\tau$"
    axes[-1, 1].set_xlabel(rf"$D/\tau${without}")
    style.legend(figure, style.keys(looks, VARIED[varied].format), 3)
    return figure
