"""What the granularity of scales costs. Fig. 13 of Kumar et al. 2024 (arXiv 2411.04330).

gap_qat, what training in low precision added, against bits, a line a granularity; a panel a part, each the only one in
low precision. All at the N and D with the most such runs. Lines go through the means over seeds, bars are standard
errors, triangles at the lower edge are costs below the axis, zero or less.
"""

import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.selection import family

PARTS = {"P_w": "granularity_w", "P_a": "granularity_a", "P_kv": "granularity_kv"}
ORDER = ("tensor", "channel", "token")  # the colours', blocks after them
COLUMNS = ["part", "granularity", "N", "D", "bits", "gap_qat", "gap_qat_se", "loss"]


def data(frame: pd.DataFrame, fits: dict) -> pd.DataFrame:
    """Rows of the parts that have two granularities at the N and D with the most such rows; `fits` are not used.

    Raises:
        InputError: no part alone was trained at two granularities at one N and D.
    """
    runs, parts = shared.qat_gaps(shared.trained(frame, one_way=False)), []
    for part, column in PARTS.items():
        if column in runs:
            lone = shared.alone(runs, part)
            lone = lone.assign(part=part, bits=lone[part], granularity=lone[column].fillna("").astype(str))
            parts.append(_one_family(lone[lone["granularity"] != ""], part))
    rows = pd.concat(parts) if parts else runs.assign(part="", granularity="")
    rows = rows[rows.groupby(["part", "N", "D"])["granularity"].transform("nunique") > 1]
    if rows.empty:
        raise InputError("no part alone was trained at two granularities at one N and D")
    size, tokens = shared.most_frequent(pd.Series(list(zip(rows["N"], rows["D"], strict=True))))
    rows = shared.at(rows, N=size, D=tokens)
    shared.above_zero(
        rows, "gap_qat", "training in low precision cost nothing in any run whose granularity can be compared"
    )
    parts = [shared.at(rows, part=p, granularity=g) for p in PARTS for g in _in_order(rows)]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _one_family(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Of the part's families of formats the most frequent one."""
    column = f"format_{part.removeprefix('P_')}"
    if column not in rows or rows.empty:
        return rows
    families = family(rows[column])
    return rows[families == shared.most_frequent(families)]


def _in_order(rows: pd.DataFrame) -> list[str]:
    """Granularities, blocks last and the longest first."""

    def place(grain: str) -> tuple:
        known = grain in ORDER
        return not known, ORDER.index(grain) if known else -int("".join(filter(str.isdigit, grain)) or 0), grain

    return sorted(rows["granularity"].unique(), key=place)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each part."""
    looks, parts = palettes.categories(_in_order(data)), list(dict.fromkeys(data["part"]))
    figure, axes = style.side_by_side(len(parts), 2.7, each=2.0, sharex=True, sharey=True)
    low, high = style.span(data.loc[data["gap_qat"] > shared.LOWEST, "gap_qat"])
    for panel, part in zip(axes, parts, strict=True):
        panel.set_title(shared.NAMES[part])
        for grain, (colour, marker) in looks.items():
            group = shared.at(data, part=part, granularity=grain)
            points = group["bits"], group["gap_qat"], group["gap_qat_se"]
            style.series(panel, *points, low, colour=colour, marker=marker)
    first = axes[0]
    first.set_xscale("log", base=2)
    first.set_xlim(*style.span(data["bits"]))
    style.exact_ticks(first.xaxis, sorted(data["bits"].unique()))
    style.log_axis(first, "y", low, high)
    first.set_ylabel("cost in loss (nats per token)")
    figure.supxlabel(f"precision in training (bits)\n{style.cell_label(data)}", fontsize=8)
    handles = style.keys(looks, lambda g: f"per {g}" if g in ORDER else g)
    style.legend(figure, handles, 4, below=(data["gap_qat"] <= low).any())
    return figure
