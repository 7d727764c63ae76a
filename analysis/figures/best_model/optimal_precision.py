"""The best bits to train in. Fig. 6 right of Kumar et al. 2024 (arXiv 2411.04330).

P* against D at fixed N, where bits are paid for in tokens (C = 6/16 N D P), and the P* that is best jointly with N and
D at any cost (dashed). Left: the paper's constants, for models of 8, 70 and 405 billion parameters, marked at 15
trillion tokens. Right: the table's own fit, dotted outside the tokens that it was fitted on; bands are 95% intervals of
each P* from the draws of the fit. Lines stay at 16 bits: more were not looked at.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import paper_constants
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS
from analysis.planning.optima import LOWEST_BITS, best_bits, best_bits_at_size_and_tokens

SIZES, TOKENS, MARKED = (8e9, 70e9, 405e9), (1e11, 1e15), 15e12
NEEDED = {"P_w", "P_a"}  # with one part alone, other parts' bits would be for nothing
BEYOND = 100.0  # how far past the table's tokens the fitted law is followed
POINTS = 61
MOST = 3  # of the table's sizes
AT_ONCE = 8  # token counts whose draws are looked at together, for the sake of memory


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. With a fit of kumar_neff or kumar_neff_tied in P_w and P_a it has a right panel.

    Raises:
        InputError: nothing at all was fitted to the table.
    """
    if not fits:
        raise InputError("no law was fitted to this table, beside which the paper's constants could be shown")
    fit = next((fits[n] for n in LOW_LAWS if n in fits and set(fits[n].law.variables) >= NEEDED), None)
    panels = 1 if fit is None else 2
    figure, axes = style.canvas(1, panels, width=style.COLUMN + 2.6 * (panels - 1), height=2.9, sharey=True)
    figure.get_layout_engine().set(wspace=0.06)
    grid = np.geomspace(*TOKENS, POINTS)
    axes[0, 0].set_title("constants of Kumar et al.")
    plotted = _panel(axes[0, 0], "paper", paper_constants(), SIZES, grid, TOKENS)
    stars = best_bits_at_size_and_tokens(paper_constants(), np.array(SIZES), MARKED)
    for size, star, colour, marker in zip(SIZES, stars, style.shades(len(SIZES)), style.MARKERS, strict=False):
        axes[0, 0].plot(MARKED, star, marker, color=colour, markersize=4.5, zorder=5)
        plotted.append({"constants": "paper", "kind": "marked", "N": size, "D": MARKED, "bits": star})
    if fit is not None:
        known = fit.ranges["D"]
        sizes = np.array(sorted(shared.trained(frame)["N"].unique()))
        sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST).round().astype(int))]
        axes[0, 1].set_title("fitted to this table (dotted: outside it)")
        grid = np.geomspace(known[0], BEYOND * known[1], POINTS)
        plotted += _panel(axes[0, 1], "fit", shared.constants(fit), sizes, grid, known, fit)
    axes[0, 0].set_ylim(2, 16.6)
    style.exact_ticks(axes[0, 0].yaxis, (2, 4, 6, 8, 10, 12, 14, 16))
    axes[0, 0].set_ylabel("best precision in training, $P^*$ (bits)")
    figure.supxlabel("D (tokens)", fontsize=8)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _panel(
    axes, name: str, constants: dict, sizes, grid: np.ndarray, known: tuple, fit: Fit | None = None
) -> list[dict]:
    joint, plotted, handles = float(best_bits(constants)), [], []
    inside = (grid >= known[0]) & (grid <= known[1])
    unknown = np.full(len(grid), np.nan)
    for size, colour, marker in zip(sizes, style.shades(len(sizes)), style.MARKERS * 9, strict=False):
        bits = best_bits_at_size_and_tokens(constants, size, grid)
        # One grid point in common, so that the two pieces meet.
        further = ~inside | np.append(inside[1:] != inside[:-1], False)
        axes.plot(grid, np.where(inside, bits, np.nan), color=colour, zorder=3)
        axes.plot(grid, np.where(further, bits, np.nan), color=colour, linestyle=":", zorder=3)
        look = {"marker": marker, "markersize": 4.5} if name == "paper" else {}
        handles.append(Line2D([], [], color=colour, label=f"N = {style.magnitude(size)}", **look))
        ends = None if fit is None else band_at_size(fit, size, grid)
        low, high = (unknown, unknown) if ends is None else ends
        if ends is not None:
            axes.fill_between(grid, low, high, color=colour, alpha=0.22, linewidth=0, zorder=1.5)
        columns = {"N": size, "D": grid, "bits": bits, "low": low, "high": high}
        plotted += pd.DataFrame({"constants": name, "kind": "fixed N", **columns}).to_dict("records")
    low = high = np.nan
    if np.isfinite(joint):
        label = f"any N and D: {joint:.1f}"
        ends = None if fit is None else shared.band(fit, lambda c: best_bits(c) * np.ones((1, 1)))
        if ends is not None and np.isfinite(ends).all():
            low, high = (float(e) for e in np.clip(np.ravel(ends), LOWEST_BITS, FULL_BITS))
            axes.axhspan(low, high, color="0.9", linewidth=0, zorder=1)
            label = f"{label} [{low:.1f}, {high:.1f}]"
        axes.axhline(joint, color="0.35", linestyle=style.DASHES, zorder=2)
        handles.append(Line2D([], [], color="0.35", linestyle=style.DASHES, label=label))
    plotted.append({"constants": name, "kind": "joint", "bits": joint, "low": low, "high": high})
    axes.set_xscale("log")
    axes.set_xlim(grid[0], grid[-1])
    style.log_ticks(axes.xaxis, grid[0], grid[-1], most=5, text=style.magnitude)
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, columnspacing=1.0)
    return plotted


def band_at_size(fit: Fit, size: float, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Ends of the 95% interval of P* (n,) in bits at N = `size` and each of `tokens` (n,); None without draws."""
    if fit.draws is None:
        return None
    parts = np.array_split(tokens, -(-len(tokens) // AT_ONCE))
    found = [shared.band(fit, lambda c, part=part: best_bits_at_size_and_tokens(c, size, part)) for part in parts]
    low, high = (np.concatenate([np.ravel(ends[i]) for ends in found]) for i in (0, 1))
    return np.clip(low, LOWEST_BITS, FULL_BITS), np.clip(high, LOWEST_BITS, FULL_BITS)
