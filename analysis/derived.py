"""What follows from the laws of Kumar et al. 2024 (arXiv 2411.04330) without another fit: critical tokens, best bits.

Constants are told by symbol: A, B, E, alpha, beta (absent: tied to alpha); gamma_w, n_w, gamma_a, ... (a part without
gamma leaves N as it is); C_T, gamma_D, gamma_N, gamma_post, b; C_w, C_a, C_kv of the unified law. A shift that is
absent is zero. Constants and variables broadcast together, so draws (S, 1) and a grid (n,) give (S, n). N counts
parameters, D tokens, C operations (FLOP), P bits; losses are in nats a token.

The laws have no value where some f(P) <= 0: answers there are NaN, never clipped. Training at 16 bits is no special
case: f is evaluated there too, as in the laws. Two printed equations are wrong and corrected here: D* of Eq. 6 lacks
1/P, and Eq. 7 has an alpha too many; Eq. 12 lacks the factor beta that Eq. 13 has.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from analysis.law import FULL_BITS
from analysis.laws.chinchilla import KUMAR
from analysis.laws.kumar import PARTS, ROBUST, TABLE_2, capacity

LOWEST_BITS = 1.0  # no number has fewer
SCAN = 301  # points at which a function that may have several minima is looked at first
GOLDEN = (np.sqrt(5) - 1) / 2
NARROWINGS = 80  # golden sections: the interval shrinks to 2e-17 of itself

Constants = Mapping[str, float | np.ndarray]
Widths = float | np.ndarray | Mapping[str, float | np.ndarray]
"""Bits of all parts alike, or by part (P_w, P_a, P_kv; those not told: 16)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best of its kind: N parameters, D tokens, P bits, and the loss in nats there; arrays of one shape."""

    N: np.ndarray
    D: np.ndarray
    P: np.ndarray
    loss: np.ndarray


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
    return c["A"] * effective ** -c["alpha"] + c["B"] * np.asarray(D, float) ** -_beta(c) + c["E"]


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


# ---- tokens ----


def critical_tokens(constants: Constants, N, P_post, P: Widths = FULL_BITS, *, gap: Constants | None = None):
    """D_crit in tokens, beyond which more tokens make the model worse once it is quantized (Eqs. 12 and 13).

    D_crit = (beta B N^gamma_N exp(P_post/gamma_post - b) / (gamma_D C_T))^(1 / (gamma_D + beta)). Infinite where
    gamma_D <= 0 or nothing is added. `gap` holds the gap law's constants if they are not among `constants`.
    """
    g = constants if gap is None else gap
    beta, gamma = _beta(constants), np.asarray(g["gamma_D"], float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (beta * constants["B"] / (gamma * gap_rate(g, N, P_post, P))) ** (1 / (gamma + beta))
    return np.where(gamma > 0, found, np.inf)


# ---- bits ----


def best_bits(constants: Constants, *, low=LOWEST_BITS, high=FULL_BITS) -> np.ndarray:
    """P* in bits that is jointly optimal with N and D at any cost C: where F(P)/P is largest (Eq. 7, corrected).

    The best loss at fixed P falls with F(P)/P alone, whatever alpha and beta: d ln F / d ln P = 1. The same P* is best
    at fixed D (N is proportional to 1/P) and at fixed memory N P and fixed D.
    NaN where no width from `low` to `high` is feasible.
    """
    return lowest(lambda P: np.log(P) - np.log(effective_share(constants, P)), low, high, scan=True)


def best_bits_at_size(constants: Constants, N, C, *, low=LOWEST_BITS, high=FULL_BITS) -> np.ndarray:
    """P* in bits at fixed N for a training cost C, where bits are paid for in tokens (Sec. 4.3.3, Appendix E.2.2).

    Rises like beta gamma ln C with the largest gamma.
    """
    c = constants

    def loss(P):
        return _lost_by_bits(c, N, P) + c["B"] * tokens_for(C, N, P) ** -_beta(c)

    return lowest(loss, low, high, scan=True)


def best_bits_at_size_and_tokens(constants: Constants, N, D, *, low=LOWEST_BITS, high=FULL_BITS) -> np.ndarray:
    """P* in bits of models with N parameters and D tokens each of which is the best of its cost at this N (Fig. 6).

    The slope of the loss in P along constant D P is zero: alpha A N_eff^-alpha d ln F / d ln P = beta B D^-beta. It is
    found as the minimum over P of A N_eff^-alpha + beta B D^-beta ln P, which has the same slope.
    """
    c = constants
    per_log = _beta(c) * c["B"] * np.asarray(D, float) ** -_beta(c)
    return lowest(lambda P: _lost_by_bits(c, N, P) + per_log * np.log(P), low, high, scan=True)


def _lost_by_bits(constants: Constants, N, P):
    """A N_eff^-alpha - A N^-alpha, without the cancellation that would hide how little the last bits matter."""
    alpha = constants["alpha"]
    return constants["A"] * np.asarray(N, float) ** -alpha * np.expm1(-alpha * np.log(effective_share(constants, P)))


# ---- sizes ----


def tokens_for(C, N, P) -> np.ndarray:
    """D that a training cost of C operations pays for (Eq. 5)."""
    return FULL_BITS * C / (6.0 * N * P)


def optimum_at_bits(constants: Constants, C, P) -> Optimum:
    """N*, D* for a training cost C at P bits throughout (Eq. 6 with its D* corrected by 1/P).

    N* = (alpha A / (beta B))^(1/(alpha+beta)) F^(-alpha/(alpha+beta)) K^(beta/(alpha+beta)), D* = K / N*, with
    K = N D = 16 C / (6 P).
    """
    c = constants
    alpha, beta = c["alpha"], _beta(c)
    product = tokens_for(C, 1.0, P)
    front = alpha * c["A"] * effective_share(c, P) ** -alpha / (beta * c["B"])
    N = (front * product**beta) ** (1 / (alpha + beta))
    D = product / N
    return _optimum(N, D, P, training_loss(c, N, D, P))


def optimum(constants: Constants, C, *, low=LOWEST_BITS, high=FULL_BITS) -> Optimum:
    """N*, D* and P* for a training cost C (Eqs. 6 and 7): P* does not depend on C, N* and D* are powers of it."""
    return optimum_at_bits(constants, C, best_bits(constants, low=low, high=high))


def iso_loss(constants: Constants, N_0, P_0: Widths, P: Widths) -> np.ndarray:
    """N at P that has the loss of N_0 at P_0 on the same tokens: N_0 F(P_0) / F(P) (contours of Fig. 3)."""
    return N_0 * effective_share(constants, P_0) / effective_share(constants, P)


# ---- search ----


def lowest(function: Callable[[np.ndarray], np.ndarray], low, high, *, scan: bool = False) -> np.ndarray:
    """Where `function` is smallest from `low` to `high`, elementwise, by golden section; NaN where it has no value.

    One minimum is taken for granted unless `scan` looks for the lowest of a grid first: then x arrives with one more
    leading axis. Ends of the interval are answers too. Places are good to about 1e-7 of the interval.
    """

    def at(x):
        value = np.asarray(function(x), float)
        return np.where(np.isnan(value), np.inf, value)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        shape = np.broadcast_shapes(np.shape(low), np.shape(high))
        shape = np.broadcast_shapes(shape, np.shape(at(np.broadcast_to(np.asarray(low, float), shape))))
        low, high = (np.broadcast_to(np.asarray(end, float), shape) for end in (low, high))
        if scan:
            x = low + np.linspace(0, 1, SCAN).reshape(-1, *[1] * len(shape)) * (high - low)
            best, step = np.take_along_axis(x, at(x).argmin(axis=0)[None], axis=0)[0], (high - low) / (SCAN - 1)
            low, high = np.maximum(best - step, low), np.minimum(best + step, high)
        left, right = low, high
        inner = [right - GOLDEN * (right - left), left + GOLDEN * (right - left)]
        values = [at(x) for x in inner]
        for _ in range(NARROWINGS):
            lower = values[0] <= values[1]  # the minimum is left of the right inner point
            left, right = np.where(lower, left, inner[0]), np.where(lower, inner[1], right)
            fresh = np.where(lower, right - GOLDEN * (right - left), left + GOLDEN * (right - left))
            new = at(fresh)
            inner = [np.where(lower, fresh, inner[1]), np.where(lower, inner[0], fresh)]
            values = [np.where(lower, new, values[1]), np.where(lower, values[0], new)]
        places = np.stack([(left + right) / 2, low, high])
        found = np.stack([at(x) for x in places])
    best = found.argmin(axis=0)[None]
    place, value = np.take_along_axis(places, best, axis=0)[0], np.take_along_axis(found, best, axis=0)[0]
    return np.where(np.isposinf(value), np.nan, place)


def _beta(constants: Constants):
    return constants.get("beta", constants["alpha"])


def _optimum(N, D, P, loss) -> Optimum:
    N, D, P, loss = np.broadcast_arrays(N, D, P, loss)
    return Optimum(N=N, D=D, P=P, loss=loss)
