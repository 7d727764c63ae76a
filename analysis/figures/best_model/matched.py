"""Loss at equal cost, more parameters or more bits. Fig. 1 right and Fig. 6 left, centre, of Kumar et al. 2024
(arXiv 2411.04330).

Runs of one D whose N P is the same within a tenth, all parts at P bits (or, where the table has no such runs, weights
alone): as many as can be found. Points are runs with the standard error of their loss; all runs share the evaluated
documents, so their differences are surer than that. Bars are the fitted N_eff law with its 95% interval.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.fitting.selection import family
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

ALIKE = 1.1  # largest N P over smallest
KINDS = {"int": "integers", "em": "floats"}
OFFSET = 0.16


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` may hold kumar_neff or kumar_neff_tied.

    Raises:
        InputError: no two widths at which the table has runs with the same D and N P.
    """
    runs = _one_way_each(shared.trained(frame, one_way=False))
    whole, weights = shared.tied(runs), shared.alone(runs, "P_w")
    parts, rows = next(
        (found for found in ((tuple(PARTS), _matched(whole)), (("P_w",), _matched(weights))) if found[1] is not None),
        ((), None),
    )
    if rows is None:
        raise InputError("no runs in two widths with the same D and N P, all parts or weights alone at P bits")
    fit = shared.first_of(fits, LOW_LAWS)
    fit = fit if fit is not None and set(parts) <= set(fit.law.variables) else None
    widths = sorted(rows["P_w"].unique())
    figure, axes = style.canvas(1, 1, width=style.COLUMN, height=2.7)
    panel = axes[0, 0]
    kinds = [k for k in dict.fromkeys(rows["kind"]) if k]
    looks = {k: (style.CATEGORIES[i], style.MARKERS[i]) for i, k in enumerate(kinds)} | {
        "": ("black", style.MARKERS[-1])
    }
    plotted = _points(panel, rows, widths, looks) + (_law(panel, rows, widths, fit) if fit else [])
    names = [f"{b:g}\n{style.magnitude(rows.loc[rows['P_w'] == b, 'N'].mean())}" for b in widths]
    panel.set_xticks(range(len(widths)), names)
    panel.set_xlim(-0.5, len(widths) - 0.5)
    panel.grid(False, axis="x")
    panel.margins(y=0.12)
    panel.set_ylabel("loss (nats per token)")
    memory, tokens = (rows["N"] * rows["P_w"]).mean(), rows["D"].iloc[0]
    whose = "" if len(parts) > 1 else " of weights"
    panel.set_xlabel(f"P{whose} (bits)\nN (parameters)")
    panel.set_title(f"N P = {style.magnitude(memory)} bits, D = {style.magnitude(tokens)} tokens")
    handles = [
        Line2D([], [], color=c, marker=m, linestyle="none", label=KINDS.get(k, k) if k else "unquantized")
        for k, (c, m) in looks.items()
        if (rows["kind"] == k).any()
    ]
    handles += (
        [Line2D([], [], color="0.55", marker="_", markersize=9, linestyle="none", label="fitted law")] if fit else []
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), handletextpad=0.3)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _one_way_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each family of the weights' formats the most frequent way to quantize, so that they can stand side by side."""
    kinds = family(rows["format_w"]) if "format_w" in rows else pd.Series("int", index=rows.index)
    below, kept = shared.low(rows), [rows[~shared.low(rows)]]
    for kind in sorted(kinds[below].unique()):
        group = rows[below & (kinds == kind)]
        for part in PARTS:
            group = shared.one_way_of(group, part)
        kept.append(group)
    return pd.concat(kept)


def _matched(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of one D and N P with the most different widths (of several: most runs, largest D and N P)."""
    memory, best = rows["N"] * rows["P_w"], (1,)
    for tokens, group in rows.groupby("D"):
        sizes = memory[group.index]
        for least in np.unique(sizes):
            near = group[(sizes >= least) & (sizes <= ALIKE * least)]
            # With one N the widths differ by less than a tenth: nothing is traded.
            if near["P_w"].nunique() > 1 and near["N"].nunique() > 1:
                best = max(best, (near["P_w"].nunique(), len(near), tokens, least), key=lambda found: found)
    if len(best) == 1:
        return None
    _, _, tokens, least = best
    chosen = rows[(rows["D"] == tokens) & (memory >= least) & (memory <= ALIKE * least)]
    kind = family(chosen["format_w"]) if "format_w" in chosen else "int"
    return chosen.assign(kind=np.where(chosen["P_w"] >= FULL_BITS, "", kind)).sort_values(["P_w", "kind"])


def _points(axes, rows: pd.DataFrame, widths: list, looks: dict) -> list[dict]:
    plotted = []
    for r in rows.itertuples():
        colour, marker = looks[r.kind]
        se = float(np.nan_to_num(getattr(r, "loss_se", 0.0)))
        error = {"yerr": se, "elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7} if se else {}
        axes.errorbar(widths.index(r.P_w) - OFFSET, r.loss, fmt=marker, color=colour, markersize=3, zorder=4, **error)
        what = {"kind": "point", "format": r.kind or "full"}
        plotted.append(
            {**what, "N": r.N, "D": r.D, "P": r.P_w, "loss": r.loss, "low": r.loss - se, "high": r.loss + se}
        )
    return plotted


def _law(axes, rows: pd.DataFrame, widths: list, fit: Fit) -> list[dict]:
    cells = rows.drop_duplicates(["N", "P_w"])[["N", "D", *PARTS]]
    loss, reach = fit.predict(cells), np.nan_to_num(fit.predict_se(cells) * fit.bootstrap.t)
    plotted = []
    for r, value, around in zip(cells.itertuples(), loss, reach, strict=True):
        if not np.isfinite(value):
            continue
        x = widths.index(r.P_w) + OFFSET
        axes.errorbar(x, value, yerr=around, fmt="_", color="0.55", markersize=9, elinewidth=0.7, zorder=3)
        what = {"kind": "law", "format": "", "N": r.N, "D": r.D, "P": r.P_w}
        plotted.append({**what, "loss": value, "low": value - around, "high": value + around})
    return plotted
