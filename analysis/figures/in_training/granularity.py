"""What the granularity of scales costs. Fig. 13 of Kumar et al. 2024 (arXiv 2411.04330).

gap_qat, what training in low precision added, against bits, a line a granularity; a panel a part, each the only one in
low precision. All at the N and D with the most such runs. Lines go through the means over seeds, bars are standard
errors, triangles at the lower edge are costs below the axis, zero or less.
"""

import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.selection import family

PARTS = {"P_w": "granularity_w", "P_a": "granularity_a", "P_kv": "granularity_kv"}
ORDER = ("tensor", "channel", "token")  # the colours', blocks after them


@style.styled
def draw(frame: pd.DataFrame, fits: dict) -> style.Drawn:
    """The figure and its numbers. `fits` is not used.

    Raises:
        InputError: no part alone was trained at two granularities at one N and D.
    """
    rows, size, tokens = _rows(frame)
    panels = [part for part in PARTS if (rows["part"] == part).any()]
    grains = sorted(rows["granularity"].unique(), key=lambda g: (g not in ORDER, *_order(g)))
    looks = {
        g: {"color": style.CATEGORIES[i % len(style.CATEGORIES)], "marker": style.MARKERS[i % len(style.MARKERS)]}
        for i, g in enumerate(grains)
    }
    positive = rows.loc[rows["gap_qat"] > shared.LOWEST, "gap_qat"]
    if positive.empty:
        raise InputError("training in low precision cost nothing in any run whose granularity can be compared")
    width = style.COLUMN + 2.0 * (len(panels) - 1)
    figure, axes = style.canvas(1, len(panels), width=width, height=2.7, sharex=True, sharey=True)
    low, high = style.span(positive)
    plotted = []
    for panel, part in zip(axes[0], panels, strict=True):
        panel.set_title(shared.NAMES[part])
        panel.set_yscale("log")
        for grain, look in looks.items():
            group = rows[(rows["part"] == part) & (rows["granularity"] == grain)]
            plotted += _series(panel, group, look, low)
    first = axes[0, 0]
    first.set_xscale("log", base=2)
    first.set_xlim(*style.span(rows["bits"]))
    style.exact_ticks(first.xaxis, sorted(rows["bits"].unique()))
    first.set_ylim(low, high)
    style.log_ticks(first.yaxis, low, high)
    first.set_ylabel("cost in loss (nats per token)")
    cell = f"N = {style.magnitude(size)}, D = {style.magnitude(tokens)} tokens"
    figure.supxlabel(f"precision in training (bits)\n{cell}", fontsize=8)
    handles = [Line2D([], [], label=f"per {g}" if g in ORDER else g, **look) for g, look in looks.items()]
    if (rows["gap_qat"] <= low).any():
        handles.append(Line2D([], [], color="0.4", marker="v", linestyle="none", label="below the axis"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, float, float]:
    """Rows with `part`, `bits` and `granularity`, of the parts that have two granularities there, with N and D."""
    runs, parts = shared.qat_gaps(shared.trained(frame, one_way=False)), []
    for part, column in PARTS.items():
        if column not in runs:
            continue
        lone = shared.alone(runs, part)
        grains = lone[column].fillna("").astype(str)
        parts.append(lone.assign(part=part, bits=lone[part], granularity=grains)[grains.to_numpy() != ""])
    rows = _one_family(pd.concat(parts)) if parts else runs.assign(part="", granularity="")
    several = rows.groupby(["part", "N", "D"])["granularity"].transform("nunique") > 1
    rows = rows[several]
    if rows.empty:
        raise InputError("no part alone was trained at two granularities at one N and D")
    size, tokens = shared.most_frequent(pd.Series(list(zip(rows["N"], rows["D"], strict=True))))
    return rows[(rows["N"] == size) & (rows["D"] == tokens)], size, tokens


def _one_family(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each part the most frequent family of formats."""
    kept = []
    for part, group in rows.groupby("part"):
        column = f"format_{part.removeprefix('P_')}"
        if column in group:
            families = family(group[column])
            group = group[families == shared.most_frequent(families)]
        kept.append(group)
    return pd.concat(kept) if kept else rows


def _order(grain: str) -> tuple:
    return (ORDER.index(grain), "") if grain in ORDER else (-int("".join(filter(str.isdigit, grain)) or 0), grain)


def _series(axes, group: pd.DataFrame, look: dict, low: float) -> list[dict]:
    means = group.groupby("bits")["gap_qat"].mean()
    means = means[means > 0]
    axes.plot(means.index, means.to_numpy(), color=look["color"], zorder=3)
    shown = {"colour": look["color"], "marker": look["marker"]}
    style.points_above(axes, group["bits"], group["gap_qat"], group["gap_qat_se"], low, **shown)
    columns = ["part", "granularity", "N", "D", "bits", "gap_qat", "gap_qat_se", "loss"]
    return group[columns].to_dict("records")
