"""What low precision of one part costs at each N and D. Figs. 14 and 20 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a part: gap_qat, the loss that it added to training, with its standard error. Lines are the fitted N_eff law,
one a size: in it tokens do not matter. Token counts of one size stand side by side, fewest to the left, so that a slope
across them is what the law misses. Triangles at the lower edge are costs below the axis, zero or less.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import training_loss
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

SPREAD = 0.035  # of an octave: half of what all token counts of one width take up


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` may hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: no run has one part alone in low precision beside an unquantized run, or none cost anything.
    """
    runs = shared.qat_gaps(shared.trained(frame))
    groups = {part: shared.alone(runs, part) for part in PARTS}
    groups = {part: rows for part, rows in groups.items() if len(rows)}
    if not groups:
        raise InputError("no run has one part alone in low precision beside an unquantized run of its kind")
    rows = pd.concat(groups.values())
    positive = rows.loc[rows["gap_qat"] > shared.LOWEST, "gap_qat"]
    if positive.empty:
        raise InputError("training in low precision cost nothing in any run")
    sizes, tokens = sorted(rows["N"].unique()), sorted(rows["D"].unique())
    looks = dict(zip(sizes, zip(style.shades(len(sizes)), style.MARKERS * 9, strict=False), strict=False))
    fit = shared.first_of(fits, LOW_LAWS)
    columns = len(groups)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 1.0 + 2.0 * columns)
    figure, axes = style.canvas(1, columns, width=width, height=2.8, sharey=True)
    low, high = style.span(positive)
    plotted = []
    for panel, (part, group) in zip(axes[0], groups.items(), strict=True):
        panel.set_title(shared.NAMES[part])
        panel.set_yscale("log")
        panel.set_xscale("log", base=2)
        widths = sorted(group[part].unique())
        panel.set_xlim(min(widths) * 2**-0.25, max(widths) * 2**0.25)
        style.exact_ticks(panel.xaxis, widths)
        panel.set_xlabel(f"{shared.SYMBOLS[part]} (bits)")
        for size, look in looks.items():
            plotted += _points(panel, part, group[group["N"] == size], tokens, look, low)
            if fit is not None and part in fit.law.variables:
                plotted += _curve(panel, part, size, widths, look[0], fit)
    if len(tokens) > 1:
        ends = " to ".join(style.magnitude(t) for t in (tokens[0], tokens[-1]))
        figure.supxlabel(f"side by side, left to right: D = {ends} tokens", fontsize=7)
    first = axes[0, 0]
    first.set_ylim(low, high)
    style.log_ticks(first.yaxis, low, high)
    first.set_ylabel("cost in loss (nats per token)")
    handles = [Line2D([], [], color=c, marker=m, label=f"N = {style.magnitude(n)}") for n, (c, m) in looks.items()]
    if (rows["gap_qat"] <= low).any():
        handles.append(Line2D([], [], color="0.4", marker="v", linestyle="none", label="below the axis"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6 if columns > 1 else 3, len(handles)))
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _points(axes, part: str, group: pd.DataFrame, tokens: list, look: tuple, low: float) -> list[dict]:
    colour, marker = look
    place = np.linspace(-1, 1, len(tokens)) if len(tokens) > 1 else np.zeros(1)
    aside = group["D"].map(dict(zip(tokens, place, strict=True)))
    x = group[part] * 2 ** (SPREAD * 2 * aside)
    inside = group["gap_qat"] > low
    value, se = group.loc[inside, "gap_qat"], group.loc[inside, "gap_qat_se"].fillna(0.0)
    axes.errorbar(
        x[inside], value, yerr=[np.minimum(se, 0.9 * value), se], fmt=marker, color=colour, elinewidth=0.6,
        markersize=2.8, markeredgecolor="white", markeredgewidth=0.3, zorder=4,
    )  # fmt: skip
    style.at_lower_edge(axes, x[~inside], colour, markersize=3)
    return [
        {
            "part": part, "kind": "point", "N": r["N"], "D": r["D"], "bits": r[part], "gap_qat": r["gap_qat"],
            "gap_qat_se": r["gap_qat_se"], "loss": r["loss"],
        }
        for r in group.sort_values(["D", part]).to_dict("records")
    ]  # fmt: skip


def _curve(axes, part: str, size: float, widths: list, colour, fit: Fit) -> list[dict]:
    constants, bits = shared.constants(fit), np.geomspace(widths[0], widths[-1], 80)
    # Without end, tokens add nothing: the difference is the same at any number of them.
    value = training_loss(constants, size, np.inf, {part: bits}) - training_loss(constants, size, np.inf, FULL_BITS)
    axes.plot(bits, np.where(value > 0, value, np.nan), color=colour, zorder=3)
    return [
        {"part": part, "kind": "law", "N": size, "bits": b, "gap_qat": v}
        for b, v in zip(bits, value, strict=True)
        if np.isfinite(v)
    ]
