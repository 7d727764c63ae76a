"""What exponent and mantissa bits are worth in training. Figs. 16 and 17 of Kumar et al. 2024 (arXiv 2411.04330).

gap_qat of runs whose weights alone were in a float format eXmY, at the N and D with the most such formats: against
mantissa bits, a line an exponent width, and against exponent bits, a line a mantissa width. Lines go through the means
over seeds, bars are standard errors, triangles at the lower edge are costs below the axis, zero or less.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis import style
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.variables import with_derived

NAMES = {"E_w": "exponent bits", "M_w": "mantissa bits"}
FAMILY = "em"  # eXmY without its numbers


@style.styled
def draw(frame: pd.DataFrame, fits: dict) -> style.Drawn:
    """The figure and its numbers. `fits` is not used.

    Raises:
        InputError: no N and D with two float formats that differ in exponent or mantissa alone, or none cost anything.
    """
    rows, size, tokens = _rows(frame)
    ways = [("M_w", "E_w"), ("E_w", "M_w")]  # horizontal axis, lines
    panels = [(x, lines) for x, lines in ways if (rows.groupby(lines)[x].nunique() > 1).any()]
    positive = rows.loc[rows["gap_qat"] > shared.LOWEST, "gap_qat"]
    if positive.empty:
        raise InputError("training in float formats cost nothing in any run that can be compared")
    width = style.COLUMN + 2.0 * (len(panels) - 1)
    figure, axes = style.canvas(1, len(panels), width=width, height=2.9, sharey=True)
    low, high = style.span(positive)
    plotted = []
    for panel, (x, lines) in zip(axes[0], panels, strict=True):
        panel.set_yscale("log")
        panel.set_xlabel(NAMES[x])
        values = sorted(rows[lines].unique())
        handles = []
        for bits, colour, marker in zip(values, style.shades(len(values)), style.MARKERS * 9, strict=False):
            plotted += _series(panel, x, lines, rows[rows[lines] == bits], colour, marker, low)
            handles.append(Line2D([], [], color=colour, marker=marker, label=f"{bits:g}"))
        style.exact_ticks(panel.xaxis, sorted(rows[x].unique()))
        panel.margins(x=0.08)
        look = {"columnspacing": 0.9, "handlelength": 1.3, "title_fontsize": 7}
        panel.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(5, len(values)),
            title=NAMES[lines], **look,
        )  # fmt: skip
    first = axes[0, 0]
    first.set_ylim(low, high)
    style.log_ticks(first.yaxis, low, high)
    first.set_ylabel("cost in loss (nats per token)")
    cell = f"weights in training, N = {style.magnitude(size)}, D = {style.magnitude(tokens)} tokens"
    figure.supxlabel(cell, fontsize=8)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, float, float]:
    """Rows with E_w and M_w at the N and D with the most formats (of several, the largest D and N)."""
    fault = InputError("no N and D with two float formats of weights that differ in exponent or mantissa alone")
    if "format_w" not in frame:
        raise fault
    runs = shared.alone(shared.qat_gaps(shared.trained(frame, one_way=False)), "P_w")
    runs = shared.one_way_of(runs[(runs["format_w"].map(shared.family) == FAMILY).to_numpy(bool)], "P_w")
    runs, best = with_derived(runs, ("E_w", "M_w")), None
    for (tokens, size), group in runs.groupby(["D", "N"]):
        if any(group.groupby(a)[b].nunique().max() > 1 for a, b in (("E_w", "M_w"), ("M_w", "E_w"))):
            best = max([best, (group["format_w"].nunique(), tokens, size)], key=lambda found: found or ())
    if best is None:
        raise fault
    _, tokens, size = best
    return runs[(runs["D"] == tokens) & (runs["N"] == size)], size, tokens


def _series(axes, x: str, lines: str, group: pd.DataFrame, colour, marker: str, low: float) -> list[dict]:
    means = group.groupby(x)["gap_qat"].mean()
    axes.plot(means.index, np.where(means > 0, means, np.nan), color=colour, zorder=3)
    inside, lost = group[group["gap_qat"] > low], group[group["gap_qat"] <= low]
    se = inside["gap_qat_se"].fillna(0.0)
    axes.errorbar(
        inside[x], inside["gap_qat"], yerr=[np.minimum(se, 0.9 * inside["gap_qat"]), se], fmt=marker, color=colour,
        elinewidth=0.7, markeredgecolor="white", markeredgewidth=0.4, zorder=4,
    )  # fmt: skip
    if len(lost):
        edge = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(lost[x], np.full(len(lost), 0.02), "v", color=colour, zorder=5, **edge)
    columns = ["format_w", "E_w", "M_w", "N", "D", "gap_qat", "gap_qat_se", "loss"]
    return group[columns].assign(panel=f"against {x}").to_dict("records")
