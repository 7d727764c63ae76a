"""The laws of Kumar et al. 2024 (arXiv 2411.04330) as formulas of their constants, without a table or a fit.

Constants are given by symbol: A, B, E, alpha, beta (absent: tied to alpha); gamma_w, n_w, gamma_a, ... (a part without
gamma leaves N as it is); C_T, gamma_D, gamma_N, gamma_post, b; C_w, C_a, C_kv of the unified law. A shift that is
absent is zero. Constants and variables broadcast together, so draws (S, 1) and a grid (n,) give (S, n). N counts
parameters, D tokens, C operations (FLOP), P bits; losses are in nats a token.

The laws have no value where some f(P) <= 0: values there are NaN, never clipped. Training at 16 bits is no special
case: f is evaluated there too, as in the laws.
"""

import functools
from collections.abc import Mapping

import numpy as np

from analysis.laws.chinchilla import KUMAR
from analysis.laws.kumar import PARTS, ROBUST, TABLE_2, capacity
from analysis.laws.law import FULL_BITS

Constants = Mapping[str, float | np.ndarray]
Widths = float | np.ndarray | Mapping[str, float | np.ndarray]
"""Bits of all parts alike, or by part (P_w, P_a, P_kv; those not given: 16)."""


def paper_constants() -> dict[str, float]:
    """Table 2: the loss law, f(P) of each part, and the gap law with its shift b."""
    return KUMAR | TABLE_2


def averaged(constants: Constants) -> dict[str, float | np.ndarray]:
    """The constants with gamma and n of each part replaced by the averages over the parts (Eq. 4, tied form)."""
    known = [names for names in PARTS.values() if names[0] in constants]
    gamma = sum(constants[g] for g, _ in known) / len(known)
    shift = sum(constants.get(n, 0.0) for _, n in known) / len(known)
    return {**constants, **{g: gamma for g, _ in known}, **{n: shift for _, n in known}}


# ---- the laws ----


def effective_share(constants: Constants, P: Widths) -> np.ndarray:
    """N_eff / N = f(P_w) f(P_a) f(P_kv), f(P) = 1 - exp(-P/gamma + n) (Eq. 4, Appendix K); F(P) where P is one number.

    NaN where any f <= 0, also where two negative factors would make a positive product.
    """
    share = np.ones(())
    for part, (gamma, shift) in PARTS.items():
        if gamma in constants:
            f = capacity(bits_of_part(P, part), constants[gamma], constants.get(shift, 0.0))
            share = share * np.where(f > 0, f, np.nan)
    # The law may know no part at all: the answer has the shape of the question all the same.
    return share * np.ones(np.shape(bits_of_part(P, "P_w")))


def bits_of_part(P: Widths, part: str) -> np.ndarray:
    """The width of one part (P_w, P_a, P_kv) in bits."""
    return np.asarray(P.get(part, FULL_BITS) if isinstance(P, Mapping) else P, float)


def infeasible_below(constants: Constants) -> np.ndarray:
    """The width in bits at and below which F(P) <= 0: the largest gamma_x n_x over the parts, at least 0."""
    edges = [np.asarray(constants[g] * constants.get(n, 0.0)) for g, n in PARTS.values() if g in constants]
    return functools.reduce(np.maximum, edges, np.zeros(()))


def training_loss(constants: Constants, N, D, P: Widths = FULL_BITS) -> np.ndarray:
    """L = A N_eff^-alpha + B D^-beta + E (Eqs. 3 and 4) in nats; NaN where f(P) <= 0."""
    c = constants
    effective = N * effective_share(c, P)
    return c["A"] * effective ** -c["alpha"] + c["B"] * np.asarray(D, float) ** -beta_of(c) + c["E"]


def gap_rate(constants: Constants, N, P_post, P: Widths = FULL_BITS) -> np.ndarray:
    """What quantization to P_post adds, over D^gamma_D: C_T / N^gamma_N exp(-P_post/gamma_post + b) (Eq. 2).

    With C_w, C_a or C_kv among the constants it is Eq. 9 for a model that was trained at P: N is N_eff, and each part
    gives a factor 1 - exp(-C_x (P_x - P_post)), zero where training had no more bits than are left.
    """
    c = constants
    rate = c["C_T"] * np.exp(-np.asarray(P_post, float) / c["gamma_post"] + c.get("b", 0.0))
    if not set(ROBUST.values()) & set(c):
        return rate * np.asarray(N, float) ** -c["gamma_N"]
    for part, symbol in ROBUST.items():
        if symbol in c:
            rate = rate * -np.expm1(-c[symbol] * np.maximum(bits_of_part(P, part) - P_post, 0.0))
    return rate * (N * effective_share(c, P)) ** -c["gamma_N"]


def gap(constants: Constants, N, D, P_post, P: Widths = FULL_BITS) -> np.ndarray:
    """delta_PTQ in nats (Eq. 2 with Appendix K's shift; Eq. 9 where C_w, C_a or C_kv are known)."""
    return gap_rate(constants, N, P_post, P) * np.asarray(D, float) ** constants["gamma_D"]


def training_cost(N, D, P) -> np.ndarray:
    """C = 6/16 N D P operations (Eq. 5): 6 N D at 16 bits."""
    return 6 / FULL_BITS * N * D * P


def beta_of(constants: Constants):
    """The exponent of D: that of N where the two are tied."""
    return constants.get("beta", constants["alpha"])
