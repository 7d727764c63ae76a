"""The share of N that low precision leaves. Fig. 3 left and Fig. 15 of Kumar et al. 2024 (arXiv 2411.04330).

A panel a part, and one for all three at one width. Lines: N_eff/N = f(P_w) f(P_a) f(P_kv) as fitted, with its 95% band,
and with the paper's constants (dashed). Points: N_eff/N of each run by Eq. 30 from what low precision cost it, with
the error of that cost. Eq. 30 takes 16 bits for full precision; here they are what the law makes of them, f(16).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import palettes
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
GRID = np.linspace(1, 16, 301)
PAPER = {"color": "0.45", "linestyle": style.DASHES}
COLUMNS = ["panel", "kind", "bits", "share", "low", "high", "N", "D", "gap_qat", "gap_qat_se"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` needs a loss law, for the A and alpha of Eq. 30. `attrs`: the `bands` of the law by panel, on GRID, and
    the `edges` in bits at which the curves of all three reach zero.

    Raises:
        InputError: no run was trained in low precision beside an unquantized one, or no loss law was fitted.
    """
    runs = shared.qat_gaps(shared.trained(frame))
    groups = {part: shared.alone(runs, part) for part in PARTS} | {TIED: shared.tied(runs)}
    groups = {part: rows for part, rows in groups.items() if len(rows)}
    if not groups:
        raise InputError("no run has one part or all parts in low precision beside an unquantized run of its kind")
    fit = shared.first_of(fits, LOSS_LAWS)
    if fit is None:
        raise InputError(f"no fitted loss law gives A and alpha of Eq. 30; expected one of {', '.join(LOSS_LAWS)}")
    constants = {"paper": paper_constants(), "law": shared.constants(fit)}
    parts, bands = [], {}
    for part, rows in groups.items():
        widths = {p: GRID if part in (p, TIED) else FULL_BITS for p in PARTS}
        known = {*PARTS} <= {*fit.law.variables} if part == TIED else part in fit.law.variables
        for kind in ("paper", "law") if known else ("paper",):
            share = effective_share(constants[kind], widths)
            parts.append(pd.DataFrame({"panel": part, "kind": kind, "bits": GRID, "share": share}).dropna())
        if known:
            bands[part] = shared.band(fit, lambda c, widths=widths: effective_share(c, widths))
        parts.append(_points(rows.sort_values(["N", "D", *PARTS]), constants["law"]).assign(panel=part, kind="point"))
    edges = {kind: float(infeasible_below(c)) for kind, c in constants.items()}
    return shared.together(parts, COLUMNS, bands=bands, edges=edges)


def _points(rows: pd.DataFrame, constants: Mapping) -> pd.DataFrame:
    """Eq. 30: N_eff/N = [gap_qat / A + (N F(16))^-alpha]^(-1/alpha) / N."""
    error = rows["gap_qat_se"].fillna(0.0)
    costs = {"share": rows["gap_qat"], "low": rows["gap_qat"] + error, "high": rows["gap_qat"] - error}
    shares = {
        name: [empirical_share(constants, N, gap) for N, gap in zip(rows["N"], cost, strict=True)]
        for name, cost in costs.items()
    }
    return rows.assign(bits=rows[list(PARTS)].min(axis=1), **shares)


def empirical_share(constants: Mapping[str, float], N: float, gap: float) -> float:
    """N_eff/N of a run that low precision cost `gap` nats (Eq. 30); NaN where no number of parameters does so well, or
    where the loss does not depend on it (A = 0, at its bound)."""
    if not constants["A"] > 0:
        return float("nan")
    alpha, full = constants["alpha"], effective_share(constants, FULL_BITS)
    inner = gap / constants["A"] + (N * full) ** -alpha
    return float(inner ** (-1 / alpha) / N) if inner > 0 else float("nan")


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each part, and one for all."""
    sizes, panels = sorted(data["N"].dropna().unique()), list(dict.fromkeys(data["panel"]))
    looks, columns = palettes.looks(sizes), len(panels)
    width = style.COLUMN if columns == 1 else min(style.PAGE, 0.9 + 1.6 * columns)
    figure, axes = style.subplots(1, columns, width=width, height=2.5, sharey=True, sharex=True)
    for panel, part in zip(axes[0], panels, strict=True):
        panel.set_title(shared.NAMES.get(part, part))
        band = data.attrs["bands"].get(part)
        if band is not None:
            low, high = np.maximum(band, 0)
            panel.fill_between(GRID, low, high, color="0.85", linewidth=0, zorder=1)
        for kind, look in (("paper", PAPER), ("law", {"color": "black"})):
            curve, edge = shared.at(data, panel=part, kind=kind), data.attrs["edges"][kind]
            # Down to the axis: the grid has no point just where nothing is left.
            start = [edge] if part == TIED and edge > GRID[0] and len(curve) else []
            panel.plot([*start, *curve["bits"]], [*np.zeros(len(start)), *curve["share"]], zorder=3, **look)
        for row in shared.at(data, panel=part, kind="point").itertuples():
            # Sizes side by side, so that points of one width do not hide each other.
            _point(panel, row, row.bits + 0.16 * (sizes.index(row.N) - (len(sizes) - 1) / 2), *looks[row.N])
    first = axes[0, 0]
    first.set_xlim(2, 16.6)
    style.exact_ticks(first.xaxis, (2, 4, 6, 8, 12, 16))
    first.set_ylim(0, TOP)
    first.set_yticks([0, 0.25, 0.5, 0.75, 1])
    first.set_ylabel(r"$N_\mathrm{eff}/N$")
    figure.supxlabel("precision in training, P (bits)", fontsize=8)
    handles = style.keys(looks, style.size_label, linestyle="none")
    handles += [style.key("fitted", color="black")] * bool((data["kind"] == "law").any())
    handles += [style.key("constants of Kumar et al.", **PAPER)]
    style.legend(figure, handles, 6 if columns > 2 else 3, above=not (data["share"] <= TOP).all())
    return figure


def _point(axes, row, x: float, colour, marker: str) -> None:
    if row.share > TOP or not np.isfinite(row.share):
        style.at_edge(axes, "upper", [x], colour=colour, marker=marker)
        return
    reach = [[row.share - row.low], [min(row.high if np.isfinite(row.high) else TOP, TOP) - row.share]]
    axes.errorbar(x, row.share, yerr=reach, fmt=marker, color=colour, elinewidth=0.7, zorder=4, **style.WHITE_EDGE)
