"""The share of N that low precision leaves. Fig. 3 left and Fig. 15 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a part, and one for all three at one width. Lines: N_eff/N = f(P_w) f(P_a) f(P_kv) as fitted, with its 95% band,
and with the paper's constants (dashed). Points: N_eff/N of each run by Eq. 30 from what low precision cost it, with
the error of that cost. Eq. 30 takes 16 bits for full precision; here they are what the law makes of them, f(16).
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import effective_share, infeasible_below, paper_constants
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOSS_LAWS

TIED = "all three"
TOP = 1.15  # end of the axis; triangles there are runs above it


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` needs a loss law, for the A and alpha of Eq. 30.

    Raises:
        InputError: no run was trained in low precision beside an unquantized one, or no loss law was fitted.
    """
    runs = shared.qat_gaps(shared.trained(frame))
    groups = {part: runs[runs.index.isin(shared.alone(runs, part).index)] for part in PARTS}
    groups = {key: rows for key, rows in (groups | {TIED: shared.tied(runs)}).items() if len(rows)}
    if not groups:
        raise InputError("no run has one part or all parts in low precision beside an unquantized run of its kind")
    source = shared.first_of(fits, LOSS_LAWS)
    if source is None:
        raise InputError(f"no fitted loss law tells A and alpha of Eq. 30; expected one of {', '.join(LOSS_LAWS)}")
    sizes = sorted(runs["N"].unique())
    looks = dict(zip(sizes, zip(style.shades(len(sizes)), style.MARKERS * 9, strict=False), strict=False))
    columns = len(groups)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 0.9 + 1.6 * columns)
    figure, axes = style.canvas(1, columns, width=width, height=2.5, sharey=True, sharex=True)
    plotted, fitted = [], False
    for panel, (part, rows) in zip(axes[0], groups.items(), strict=True):
        panel.set_title(shared.NAMES.get(part, part))
        curves = _curves(panel, part, source)
        fitted |= any(c["kind"] == "law" for c in curves)
        plotted += curves + _points(panel, part, rows, looks, source)
    first = axes[0, 0]
    first.set_xlim(2, 16.6)
    style.exact_ticks(first.xaxis, (2, 4, 6, 8, 12, 16))
    first.set_ylim(0, TOP)
    first.set_yticks([0, 0.25, 0.5, 0.75, 1])
    first.set_ylabel(r"$N_\mathrm{eff}/N$")
    figure.supxlabel("precision in training, P (bits)", fontsize=8)
    handles = [
        Line2D([], [], color=c, marker=m, linestyle="none", label=f"N = {style.magnitude(n)}")
        for n, (c, m) in looks.items()
    ]
    handles += [Line2D([], [], color="black", label="fitted")] if fitted else []
    handles += [Line2D([], [], color="0.45", linestyle=style.DASHES, label="constants of Kumar et al.")]
    if any(not r["share"] <= TOP for r in plotted):
        handles.append(Line2D([], [], color="0.4", marker="^", linestyle="none", label="above the axis"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6 if columns > 2 else 3))
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _widths(part: str, bits) -> dict:
    """Bits of each part: `bits` for one part or for all, the others at 16."""
    return {p: bits if part in (p, TIED) else FULL_BITS for p in PARTS}


def _curves(axes, part: str, fit: Fit) -> list[dict]:
    grid, plotted = np.linspace(1, 16, 301), []

    def share(constants):
        return effective_share(constants, _widths(part, grid))

    shown = {"paper": (paper_constants(), {"color": "0.45", "linestyle": style.DASHES})}
    if {*PARTS} <= {*fit.law.variables} if part == TIED else part in fit.law.variables:
        shown["law"] = (shared.constants(fit), {"color": "black"})
        ends = shared.band(fit, share)
        if ends is not None:
            axes.fill_between(grid, np.maximum(ends[0], 0), np.maximum(ends[1], 0), color="0.85", linewidth=0, zorder=1)
    for kind, (constants, look) in shown.items():
        value, edge = share(constants), float(infeasible_below(constants))
        # Down to the axis: the grid has no point just where nothing is left.
        seen = np.isfinite(value)
        start = [edge] if part == TIED and edge > grid[0] else []
        axes.plot([*start, *grid[seen]], [*np.zeros(len(start)), *value[seen]], zorder=3, **look)
        plotted += [
            {"panel": part, "kind": kind, "bits": b, "share": v} for b, v in zip(grid[seen], value[seen], strict=True)
        ]
    return plotted


def _points(axes, part: str, rows: pd.DataFrame, looks: dict, source: Fit) -> list[dict]:
    """Eq. 30: N_eff/N = [gap_qat / A + (N F(16))^-alpha]^(-1/alpha) / N."""
    constants, plotted = shared.constants(source), []
    sizes = list(looks)
    for row in rows.sort_values(["N", "D", *PARTS]).itertuples():
        bits = min(getattr(row, p) for p in PARTS)
        share, low, high = (
            empirical_share(constants, row.N, row.gap_qat + side * np.nan_to_num(row.gap_qat_se)) for side in (0, 1, -1)
        )
        colour, marker = looks[row.N]
        # Sizes side by side, so that points of one width do not hide each other.
        x = bits + 0.16 * (sizes.index(row.N) - (len(sizes) - 1) / 2)
        if share > TOP or not np.isfinite(share):
            axes.plot(x, 0.97, "^", color=colour, transform=axes.get_xaxis_transform(), zorder=5)
        else:
            reach = [[share - low], [min(high if np.isfinite(high) else TOP, TOP) - share]]
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
            axes.errorbar(x, share, yerr=reach, fmt=marker, color=colour, elinewidth=0.7, zorder=4, **edge)
        plotted.append(
            {
                "panel": part, "kind": "point", "bits": bits, "share": share, "low": low, "high": high,
                "N": row.N, "D": row.D, "gap_qat": row.gap_qat, "gap_qat_se": row.gap_qat_se,
            }
        )  # fmt: skip
    return plotted


def empirical_share(constants: dict[str, float], N: float, gap: float) -> float:
    """N_eff/N of a run that low precision cost `gap` nats (Eq. 30); NaN where no number of parameters does so well."""
    alpha, full = constants["alpha"], effective_share(constants, FULL_BITS)
    inner = gap / constants["A"] + (N * full) ** -alpha
    return float(inner ** (-1 / alpha) / N) if inner > 0 else float("nan")
