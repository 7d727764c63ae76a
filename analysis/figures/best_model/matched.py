"""Loss at equal cost, more parameters or more bits. Fig. 1 right and Fig. 6 left, centre, of Kumar et al. 2024
(arXiv 2411.04330).

Runs of one D whose N P is the same within a tenth, all parts at P bits (or, where the table has no such runs, weights
alone): as many as can be found. Points are runs with the standard error of their loss; all runs share the evaluated
documents, so their differences are surer than that. Bars are the fitted N_eff law with its 95% interval.
"""

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.fitting.selection import family
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS

ALIKE = 1.1  # largest N P over smallest
KINDS = {"int": "integers", "em": "floats", "full": "unquantized"}
OFFSET = 0.16
COLUMNS = ["kind", "format", "N", "D", "P", "loss", "low", "high"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_neff or kumar_neff_tied. `attrs`: whether `weights` alone have P bits.

    Raises:
        InputError: no two widths at which the table has runs with the same D and N P.
    """
    runs = _one_way_each(shared.trained(frame, one_way=False))
    parts, rows = (*PARTS,), _matched(shared.tied(runs))
    if rows is None:
        parts, rows = ("P_w",), _matched(shared.alone(runs, "P_w"))
    if rows is None:
        raise InputError("no runs in two widths with the same D and N P, all parts or weights alone at P bits")
    reach = rows.get("loss_se", pd.Series(0.0, index=rows.index)).fillna(0.0)
    kinds = [rows.assign(kind="point", low=rows["loss"] - reach, high=rows["loss"] + reach)]
    fit = shared.first_of(fits, LOW_LAWS)
    if fit is not None and {*parts} <= {*fit.law.variables}:
        cells = rows.drop_duplicates(["N", "P_w"])[["N", "D", *PARTS]]
        law = cells.assign(kind="law", format="", loss=fit.predict(cells))
        reach = np.nan_to_num(fit.predict_se(cells) * fit.bootstrap.t)
        law = law.assign(low=law["loss"] - reach, high=law["loss"] + reach)
        kinds.append(law[np.isfinite(law["loss"])])
    return shared.together([rows.rename(columns={"P_w": "P"}) for rows in kinds], COLUMNS, weights=len(parts) == 1)


def _one_way_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each family of the weights' formats the most frequent way to quantize, so that they can stand side by side."""
    kinds = family(rows["format_w"]) if "format_w" in rows else pd.Series("int", index=rows.index)
    below, parts = shared.low(rows), [rows[~shared.low(rows)]]
    for kind in sorted(kinds[below].unique()):
        group = rows[below & (kinds == kind)]
        for part in PARTS:
            group = shared.one_way_of(group, part)
        parts.append(group)
    return pd.concat(parts)


def _matched(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of one D and N P with the most different widths (of several: most runs, largest D and N P)."""
    memory, cells = rows["N"] * rows["P_w"], []
    for tokens, group in rows.groupby("D"):
        sizes = memory[group.index]
        for least in np.unique(sizes):
            near = group[(sizes >= least) & (sizes <= ALIKE * least)]
            # With one N the widths differ by less than a tenth: nothing is traded.
            if near["P_w"].nunique() > 1 and near["N"].nunique() > 1:
                cells.append((near["P_w"].nunique(), len(near), tokens, least))
    if not cells:
        return None
    _, _, tokens, least = max(cells)
    chosen = rows[(rows["D"] == tokens) & (memory >= least) & (memory <= ALIKE * least)]
    kind = family(chosen["format_w"]) if "format_w" in chosen else "int"
    order = np.where(chosen["P_w"] >= FULL_BITS, "", kind)  # which sorts before all names
    chosen = chosen.assign(order=order, format=np.where(order == "", "full", order))
    return chosen.sort_values(["P_w", "order"])


def draw(data: pd.DataFrame) -> style.Figure:
    """One panel."""
    points, law = (shared.at(data, kind=kind) for kind in ("point", "law"))
    widths, kinds = sorted(points["P"].unique()), list(dict.fromkeys(points["format"]))
    looks = palettes.categories([k for k in kinds if k != "full"])
    looks |= {"full": palettes.UNQUANTIZED} if "full" in kinds else {}
    figure, panel = style.single(2.7)
    aside = OFFSET if len(law) else 0.0
    for r in points.itertuples():
        colour, marker = looks[r.format]
        error = {"yerr": r.high - r.loss, "elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7} if r.high > r.loss else {}
        panel.errorbar(widths.index(r.P) - aside, r.loss, fmt=marker, color=colour, markersize=3, zorder=4, **error)
    for r in law.itertuples():
        look = {"fmt": "_", "color": "0.55", "markersize": 9, "elinewidth": 0.7, "zorder": 3}
        panel.errorbar(widths.index(r.P) + aside, r.loss, yerr=r.high - r.loss, **look)
    names = [f"{b:g}\n{style.magnitude(shared.at(points, P=b)['N'].mean())}" for b in widths]
    panel.set_xticks(range(len(widths)), names)
    panel.set_xlim(-0.5, len(widths) - 0.5)
    panel.grid(False, axis="x")
    panel.margins(y=0.12)
    panel.set_ylabel("loss (nats per token)")
    panel.set_xlabel(f"P{' of weights' if data.attrs['weights'] else ''} (bits)\nN (parameters)")
    memory, tokens = (points["N"] * points["P"]).mean(), points["D"].iloc[0]
    panel.set_title(f"N P = {style.magnitude(memory)} bits, D = {style.magnitude(tokens)} tokens")
    handles = style.keys(looks, lambda k: KINDS.get(k, k), linestyle="none")
    if len(law):
        handles.append(style.key("fitted law", color="0.55", marker="_", markersize=9, linestyle="none"))
    style.legend(figure, handles, 4, handletextpad=0.3)
    return figure
