"""What low precision of one part costs at each N and D. Figs. 14 and 20 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a part: gap_qat, the loss that it added to training, with its standard error. Lines are the fitted N_eff law,
one a size: in it tokens do not matter. Token counts of one size stand side by side, fewest to the left, so that a slope
across them is what the law misses. Triangles at the lower edge are costs below the axis, zero or less.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import training_loss
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

SPREAD = 0.035  # of an octave: half of what all token counts of one width take up
COLUMNS = ["part", "kind", "N", "D", "bits", "gap_qat", "gap_qat_se", "loss"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: no run has one part alone in low precision beside an unquantized run, or none cost anything.
    """
    runs = shared.qat_gaps(shared.trained(frame))
    rows = pd.concat([(r := shared.alone(runs, part)).assign(part=part, bits=r[part], kind="point") for part in PARTS])
    if rows.empty:
        raise InputError("no run has one part alone in low precision beside an unquantized run of its kind")
    shared.above_zero(rows, "gap_qat", "training in low precision cost nothing in any run")
    fit, parts = shared.first_of(fits, LOW_LAWS), []
    for part, group in rows.groupby("part", sort=False):
        for size in sorted(rows["N"].unique()):
            parts.append(shared.at(group, N=size).sort_values(["D", "bits"]))
            if fit is not None and part in fit.law.variables:
                parts.append(_law(fit, part, size, np.geomspace(group["bits"].min(), group["bits"].max(), 80)))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _law(fit: Fit, part: str, size: float, bits: np.ndarray) -> pd.DataFrame:
    # Without end, tokens add nothing: the difference is the same at any number of them.
    low, full = (training_loss(shared.constants(fit), size, np.inf, P) for P in ({part: bits}, FULL_BITS))
    return pd.DataFrame({"part": part, "kind": "law", "N": size, "bits": bits, "gap_qat": low - full}).dropna()


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each part."""
    points = shared.at(data, kind="point")
    looks, tokens = palettes.looks(sorted(data["N"].unique())), sorted(points["D"].unique())
    place = dict(zip(tokens, np.linspace(-1, 1, len(tokens)) if len(tokens) > 1 else [0.0], strict=True))
    columns = data["part"].nunique()
    width = style.COLUMN if columns == 1 else min(style.PAGE, 1.0 + 2.0 * columns)
    figure, axes = style.subplots(1, columns, width=width, height=2.8, sharey=True)
    low, high = style.span(points.loc[points["gap_qat"] > shared.LOWEST, "gap_qat"])
    for panel, (part, group) in zip(axes[0], data.groupby("part", sort=False), strict=True):
        widths = sorted(shared.at(group, kind="point")["bits"].unique())
        panel.set_title(shared.NAMES[part])
        panel.set_xscale("log", base=2)
        panel.set_xlim(min(widths) * 2**-0.25, max(widths) * 2**0.25)
        style.exact_ticks(panel.xaxis, widths)
        panel.set_xlabel(f"{shared.SYMBOLS[part]} (bits)")
        for size, (colour, marker) in looks.items():
            own, law = (shared.at(group, N=size, kind=kind) for kind in ("point", "law"))
            x = own["bits"] * 2 ** (SPREAD * 2 * own["D"].map(place))
            look = {"markersize": 2.8, "markeredgewidth": 0.3, "elinewidth": 0.6, "edge": {"markersize": 3}}
            style.points_above(panel, x, own["gap_qat"], own["gap_qat_se"], low, colour=colour, marker=marker, **look)
            panel.plot(law["bits"], law["gap_qat"].where(law["gap_qat"] > 0), color=colour, zorder=3)
    if len(tokens) > 1:
        ends = " to ".join(style.magnitude(t) for t in (tokens[0], tokens[-1]))
        figure.supxlabel(f"side by side, left to right: D = {ends} tokens", fontsize=7)
    style.log_axis(axes[0, 0], "y", low, high)
    axes[0, 0].set_ylabel("cost in loss (nats per token)")
    below = (points["gap_qat"] <= low).any()
    style.legend(figure, style.keys(looks, style.size_label), 6 if columns > 1 else 3, below=below)
    return figure
