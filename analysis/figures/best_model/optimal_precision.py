"""The best bits to train in. Fig. 6 right of Kumar et al. 2024 (arXiv 2411.04330).

P* against D at fixed N, where bits are paid for in tokens (C = 6/16 N D P), and the P* that is best jointly with N and
D at any cost (dashed). Left: the paper's constants, for models of 8, 70 and 405 billion parameters, marked at 15
trillion tokens. Right: the table's own fit, dotted outside the tokens that it was fitted on; bands are 95% intervals of
each P* from the draws of the fit. Lines stay at 16 bits: more were not looked at.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import palettes
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
TITLES = {"paper": "constants of Kumar et al.", "fit": "fitted to this table (dotted: outside it)"}


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """With a fit of kumar_neff or kumar_neff_tied in P_w and P_a it has rows of that; `attrs`: the D that it knows.

    Raises:
        InputError: nothing at all was fitted to the table.
    """
    if not fits:
        raise InputError("no law was fitted to this table, beside which the paper's constants could be shown")
    fit = shared.first_of(fits, LOW_LAWS, NEEDED)
    parts = _curves("paper", paper_constants(), SIZES, np.geomspace(*TOKENS, POINTS))
    marked = best_bits_at_size_and_tokens(paper_constants(), np.array(SIZES), MARKED)
    parts.append(pd.DataFrame({"constants": "paper", "kind": "marked", "N": SIZES, "D": MARKED, "bits": marked}))
    if fit is not None:
        known = fit.ranges["D"]
        sizes = np.array(sorted(shared.trained(frame)["N"].unique()))
        sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST).round().astype(int))]
        tokens = np.geomspace(known[0], BEYOND * known[1], POINTS)
        parts += _curves("fit", shared.constants(fit), sizes, tokens, fit)
    return shared.together(parts, known={"paper": TOKENS} | ({} if fit is None else {"fit": fit.ranges["D"]}))


def _curves(name: str, constants: Mapping, sizes, tokens: np.ndarray, fit: Fit | None = None) -> list[pd.DataFrame]:
    parts = []
    for size in sizes:
        low, high = (fit and band_at_size(fit, size, tokens)) or (np.nan, np.nan)
        bits = best_bits_at_size_and_tokens(constants, size, tokens)
        columns = {"constants": name, "kind": "fixed N", "N": size, "D": tokens, "bits": bits, "low": low, "high": high}
        parts.append(pd.DataFrame(columns))
    joint, low, high = float(best_bits(constants)), np.nan, np.nan
    if np.isfinite(joint) and fit is not None and fit.draws is not None:
        ends = shared.band(fit, lambda c: best_bits(c) * np.ones((1, 1)))
        if np.isfinite(ends).all():
            low, high = (float(e) for e in np.clip(np.ravel(ends), LOWEST_BITS, FULL_BITS))
    return [*parts, pd.DataFrame([{"constants": name, "kind": "joint", "bits": joint, "low": low, "high": high}])]


def band_at_size(fit: Fit, size: float, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Ends of the 95% interval of P* (n,) in bits at N = `size` and each of `tokens` (n,); None without draws."""
    if fit.draws is None:
        return None
    parts = np.array_split(tokens, -(-len(tokens) // AT_ONCE))
    bands = [shared.band(fit, lambda c, part=part: best_bits_at_size_and_tokens(c, size, part)) for part in parts]
    low, high = (np.concatenate([np.ravel(ends[i]) for ends in bands]) for i in (0, 1))
    return np.clip(low, LOWEST_BITS, FULL_BITS), np.clip(high, LOWEST_BITS, FULL_BITS)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for the paper's constants and one for the fit."""
    curves = list(data.groupby("constants", sort=False))
    figure, axes = style.side_by_side(len(curves), 2.9, each=2.6, sharey=True)
    figure.get_layout_engine().set(wspace=0.06)
    for panel, (name, rows) in zip(axes, curves, strict=True):
        panel.set_title(TITLES[name])
        _panel(panel, rows, data.attrs["known"][name])
    first = axes[0]
    first.set_ylim(2, 16.6)
    style.exact_ticks(first.yaxis, (2, 4, 6, 8, 10, 12, 14, 16))
    first.set_ylabel("best precision in training, $P^*$ (bits)")
    figure.supxlabel("D (tokens)", fontsize=8)
    return figure


def _panel(axes, rows: pd.DataFrame, known: tuple[float, float]) -> None:
    fixed, marked = (shared.at(rows, kind=kind) for kind in ("fixed N", "marked"))
    looks, handles = palettes.looks(list(dict.fromkeys(fixed["N"]))), []
    for place, (size, (colour, marker)) in enumerate(looks.items()):
        line, star = shared.at(fixed, N=size), shared.at(marked, N=size)
        inside = line["D"].between(*known)
        # One grid point in common, so that the two pieces meet.
        further = ~inside | (inside.shift(-1, fill_value=False) != inside) & (line["D"] < line["D"].max())
        # Lines lie on each other at 16 bits, and each has its marker where the others do not.
        marks = {"at": () if len(star) else ((place + 0.5) / len(looks),), "markersize": 4}
        look = {"colour": colour, "marker": marker, "zorder": 3}
        style.marked_line(axes, line["D"], line["bits"].where(inside), **marks, **look)
        style.marked_line(axes, line["D"], line["bits"].where(further), linestyle=":", **marks, **look)
        if line["low"].notna().any():
            axes.fill_between(line["D"], line["low"], line["high"], color=colour, alpha=0.22, linewidth=0, zorder=1.5)
        axes.plot(star["D"], star["bits"], marker, color=colour, markersize=4.5, zorder=5)
        face = colour if len(star) else "white"
        look = {"color": colour, "marker": marker, "markersize": 4.5, "markerfacecolor": face}
        handles.append(style.key(style.size_label(size), **look))
    (joint,) = shared.at(rows, kind="joint").itertuples()
    if np.isfinite(joint.bits):
        label = f"any N and D: {joint.bits:.1f}"
        if np.isfinite(joint.low):
            axes.axhspan(joint.low, joint.high, color="0.9", linewidth=0, zorder=1)
            label = f"{label} [{joint.low:.1f}, {joint.high:.1f}]"
        axes.axhline(joint.bits, color="0.35", linestyle=style.DASHES, zorder=2)
        handles.append(style.key(label, color="0.35", linestyle=style.DASHES))
    style.log_axis(axes, "x", fixed["D"].min(), fixed["D"].max(), most=5, text=style.magnitude)
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, columnspacing=1.0)
