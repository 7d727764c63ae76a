"""The best model to serve at a given cost. Fig. 9 of Kumar et al. 2024 (arXiv 2411.04330).

P*, N* and D* that minimise A N^-alpha + B D^-beta + E + delta_PTQ(N, D, P) at C = N P (Eq. 29): a model trained in 16
bits with as many tokens as help, quantized to P bits, whose inference costs N P. Top: the paper's constants; bottom:
the table's own fits, if more tokens make the quantized model worse at some point (gamma_D above zero), dotted where N*,
D* or P* are not among what was fitted. P* ends at 16 bits: more were not looked at.
"""

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import gap, paper_constants, training_loss
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import GAP_LAW, LOSS_LAWS, loss_law
from analysis.planning.optima import Optimum, critical_tokens, lowest

COSTS = (1e8, 1e13)  # parameters times bits, for the paper's constants
BITS = (2.0, 12.0)  # the table's sizes at these widths are the ends of the costs for its fits
BEYOND = 30.0
POINTS = 81
QUANTITIES = {"P": "$P^*$ (bits)", "N": "$N^*$ (parameters)", "D": "$D^*$ (tokens)"}
TITLES = {"paper": "constants of Kumar et al.", "fit": "fitted to this table (dotted: outside it)"}


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """With kumar_ptq and a law of the loss it has rows of those; `attrs`: the ranges in which the gap was fitted.

    Raises:
        InputError: nothing at all was fitted to the table.
    """
    if not fits:
        raise InputError("no law was fitted to this table, beside which the paper's constants could be shown")
    curves, ranges = {"paper": (paper_constants(), np.geomspace(*COSTS, POINTS))}, {}
    after = fits.get(GAP_LAW)
    if after is not None and after.params["gamma_D"] > 0 and any(name in fits for name in LOSS_LAWS):
        ranges = {"P": after.ranges["P_post"], "N": after.ranges["N"], "D": after.ranges["D"]}
        costs = np.geomspace(ranges["N"][0] * BITS[0], ranges["N"][1] * BITS[1] * BEYOND, POINTS)
        curves["fit"] = shared.constants(loss_law(fits)) | shared.constants(after), costs
    parts = []
    for name, (constants, costs) in curves.items():
        best = optimum(constants, costs)
        columns = {"constants": name, "C": costs, "P": best.P, "N": best.N, "D": best.D, "loss": best.loss}
        parts.append(pd.DataFrame(columns))
    return shared.together(parts, ranges=ranges)


def draw(data: pd.DataFrame) -> style.Figure:
    """A row for the paper's constants and one for the fit."""
    curves = list(data.groupby("constants", sort=False))
    figure, axes = style.subplots(len(curves), 3, width=style.PAGE, height=0.3 + 1.85 * len(curves))
    for row, (name, best) in zip(axes, curves, strict=True):
        ranges = data.attrs["ranges"].items() if name == "fit" else ()
        inside = np.logical_and.reduce([np.ones(len(best), bool), *(best[s].between(*ends) for s, ends in ranges)])
        row[1].set_title(TITLES[name])
        for panel, (symbol, label) in zip(row, QUANTITIES.items(), strict=True):
            panel.plot(best["C"], best[symbol].where(inside), color="black")
            panel.plot(best["C"], best[symbol].where(~inside), color="black", linestyle=":")
            style.log_axis(panel, "x", *best["C"].iloc[[0, -1]], most=5, text=_power)
            panel.set_ylabel(label)
            if symbol == "P":
                panel.set_ylim(0, 17)
                panel.set_yticks([0, 4, 8, 12, 16])
            else:
                known = best.loc[np.isfinite(best[symbol]), symbol]
                style.log_axis(panel, "y", *style.span(known), most=5, text=_power)
    figure.supxlabel("inference cost C = N P (parameters times bits)", fontsize=8)
    return figure


def optimum(constants: dict[str, float], C: np.ndarray) -> Optimum:
    """N*, D* and P* at costs C = N P (n,): D* is D_crit (Eq. 13), P* is looked for, N* = C / P*."""
    # Eq. 29 has N where training in low precision has N_eff: the parts' constants are left aside.
    plain = {k: v for k, v in constants.items() if k not in {symbol for names in PARTS.values() for symbol in names}}

    def loss(P):
        N = C / P
        D = critical_tokens(plain, N, P)
        return training_loss(plain, N, D) + gap(plain, N, D, P)

    P = lowest(loss, 1.0, FULL_BITS, scan=True)
    return Optimum(N=C / P, D=critical_tokens(plain, C / P, P), P=P, loss=loss(P))


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value) + 1e-9))
    first = value / 10.0**exponent
    return (f"${first:.2g}\\cdot" if first > 1.01 else "$") + f"10^{{{exponent}}}$"
