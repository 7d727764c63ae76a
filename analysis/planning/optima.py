"""What follows from the laws of Kumar et al. 2024 (arXiv 2411.04330) without another fit: critical tokens, best bits.

Constants, variables and shapes are those of `laws.formulas`; answers are NaN where a law has no value. Two printed
equations are wrong and corrected here: D* of Eq. 6 lacks 1/P, and Eq. 7 has an alpha too many; Eq. 12 lacks the factor
beta that Eq. 13 has.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from analysis.laws.formulas import Constants, Widths, beta_of, effective_share, gap_rate, training_loss
from analysis.laws.law import FULL_BITS

LOWEST_BITS = 1.0  # no number has fewer
SCAN = 301  # points at which a function that may have several minima is looked at first
GOLDEN = (np.sqrt(5) - 1) / 2
NARROWINGS = 80  # golden sections: the interval shrinks to 2e-17 of itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best of its kind: N parameters, D tokens, P bits, and the loss in nats there; arrays of one shape."""

    N: np.ndarray
    D: np.ndarray
    P: np.ndarray
    loss: np.ndarray

    @classmethod
    def of(cls, N, D, P, loss) -> "Optimum":
        """With all four broadcast to one shape."""
        N, D, P, loss = np.broadcast_arrays(N, D, P, loss)
        return cls(N=N, D=D, P=P, loss=loss)


# ---- tokens ----


def critical_tokens(constants: Constants, N, P_post, P: Widths = FULL_BITS, *, gap: Constants | None = None):
    """D_crit in tokens, beyond which more tokens make the model worse once it is quantized (Eqs. 12 and 13).

    D_crit = (beta B N^gamma_N exp(P_post/gamma_post - b) / (gamma_D C_T))^(1 / (gamma_D + beta)). Infinite where
    gamma_D <= 0 or nothing is added. `gap` holds the gap law's constants if they are not among `constants`.
    """
    g = constants if gap is None else gap
    beta, gamma = beta_of(constants), np.asarray(g["gamma_D"], float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        critical = (beta * constants["B"] / (gamma * gap_rate(g, N, P_post, P))) ** (1 / (gamma + beta))
    return np.where(gamma > 0, critical, np.inf)


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
        return _lost_by_bits(c, N, P) + c["B"] * tokens_for(C, N, P) ** -beta_of(c)

    return lowest(loss, low, high, scan=True)


def best_bits_at_size_and_tokens(constants: Constants, N, D, *, low=LOWEST_BITS, high=FULL_BITS) -> np.ndarray:
    """P* in bits of models with N parameters and D tokens each of which is the best of its cost at this N (Fig. 6).

    The slope of the loss in P along constant D P is zero: alpha A N_eff^-alpha d ln F / d ln P = beta B D^-beta. It is
    found as the minimum over P of A N_eff^-alpha + beta B D^-beta ln P, which has the same slope.
    """
    c = constants
    per_log = beta_of(c) * c["B"] * np.asarray(D, float) ** -beta_of(c)
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
    alpha, beta = c["alpha"], beta_of(c)
    product = tokens_for(C, 1.0, P)
    front = alpha * c["A"] * effective_share(c, P) ** -alpha / (beta * c["B"])
    N = (front * product**beta) ** (1 / (alpha + beta))
    D = product / N
    return Optimum.of(N, D, P, training_loss(c, N, D, P))


def optimum(constants: Constants, C, *, low=LOWEST_BITS, high=FULL_BITS) -> Optimum:
    """N*, D* and P* for a training cost C (Eqs. 6 and 7): P* does not depend on C, N* and D* are powers of it."""
    return optimum_at_bits(constants, C, best_bits(constants, low=low, high=high))


def iso_loss(constants: Constants, N_0, P_0: Widths, P: Widths) -> np.ndarray:
    """N at P that has the loss of N_0 at P_0 on the same tokens: N_0 F(P_0) / F(P) (contours of Fig. 3)."""
    return N_0 * effective_share(constants, P_0) / effective_share(constants, P)


# ---- search ----


def lowest(
    function: Callable[[np.ndarray], np.ndarray], low, high, *, scan: bool = False, narrowings: int = NARROWINGS
) -> np.ndarray:
    """Where `function` is smallest from `low` to `high`, elementwise, by golden section; NaN where it has no value.

    One minimum is taken for granted unless `scan` looks for the lowest of a grid first: then x arrives with one more
    leading axis. Ends of the interval count too. Places are good to about 1e-7 of the interval.
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
        for _ in range(narrowings):
            lower = values[0] <= values[1]  # the minimum is left of the right inner point
            left, right = np.where(lower, left, inner[0]), np.where(lower, inner[1], right)
            fresh = np.where(lower, right - GOLDEN * (right - left), left + GOLDEN * (right - left))
            new = at(fresh)
            inner = [np.where(lower, fresh, inner[1]), np.where(lower, inner[0], fresh)]
            values = [np.where(lower, new, values[1]), np.where(lower, values[0], new)]
        places = np.stack([(left + right) / 2, low, high])
        values = np.stack([at(x) for x in places])
    best = values.argmin(axis=0)[None]
    place, value = np.take_along_axis(places, best, axis=0)[0], np.take_along_axis(values, best, axis=0)[0]
    return np.where(np.isposinf(value), np.nan, place)
