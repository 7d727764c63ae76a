"""The best model that budgets allow: operations for training and serving, bytes of the served model, tokens.

In ln N and ln D every law here is a sum of exponentials of linear terms and every budget a convex set, so that the
loss has one minimum over both; only widths need a scan. D is closed form given N: as many tokens as the budgets allow,
but never more than D_crit, beyond which they harm the quantized model. Budgets are ceilings, not to be used up.
"""

import dataclasses
import re

import numpy as np

from analysis.laws.formulas import Constants, Widths, bits_of_part, gap_rate, training_loss
from analysis.laws.law import FULL_BITS
from analysis.planning.optima import LOWEST_BITS, Optimum, critical_tokens, lowest
from analysis.planning.surfaces import Formula, Surface

SCALE_BITS = 16.0  # a scale of a group, where the format does not say it
MICROSCALED = {"mx": 8 / 32, "nvfp4": 8 / 16}  # bits of block scales a parameter, by how the format's name begins


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Ceilings. Training costs 6/16 N D P operations, serving T tokens at P bits 2/16 N T P (at 16 bits 6 N D, 2 N T);
    the served model has N (P + overhead) / 8 bytes and `fixed_bytes` on top (embeddings, head, norms)."""

    flops: float = np.inf
    tokens: float = np.inf
    bytes: float = np.inf
    serve_tokens: float = 0.0
    fixed_bytes: float = 0.0

    def largest(self, *, served, overhead=0.0) -> np.ndarray:
        """The largest N whose served model fits into the bytes, 0 where not even `fixed_bytes` do."""
        return np.maximum(8 * (self.bytes - self.fixed_bytes) / (np.asarray(served, float) + overhead), 0.0)

    def most_tokens(self, N, *, trained=FULL_BITS, served=FULL_BITS) -> np.ndarray:
        """The largest D at this N; not positive where serving alone costs more than the budget."""
        if np.isinf(self.flops):
            return np.asarray(self.tokens, float)
        left = self.flops - 2 / FULL_BITS * N * self.serve_tokens * served
        return np.minimum(FULL_BITS * left / (6.0 * N * trained), self.tokens)

    def size(self, N, *, served, overhead=0.0) -> np.ndarray:
        """Bytes of the served model."""
        return N * (np.asarray(served, float) + overhead) / 8 + self.fixed_bytes

    def cost(self, N, D, *, trained=FULL_BITS, served=FULL_BITS) -> np.ndarray:
        """Operations of training and serving together."""
        return (6.0 * D * trained + 2.0 * self.serve_tokens * served) * N / FULL_BITS


def overhead_bits(name: str, *, group: float | None = None) -> float:
    """Bits of scales a parameter: those of the microscaling formats, else `SCALE_BITS` shared by `group` values; none
    without a group (one scale a channel is next to nothing) or where nothing is quantized."""
    for start, bits in MICROSCALED.items():
        if name.lower().startswith(start):
            return bits
    plain = re.fullmatch(r"(bf|fp)?(16|32)", name.lower())
    return 0.0 if group is None or plain else SCALE_BITS / group


def best_model(
    constants: Constants,
    budget: Budget,
    *,
    P: Widths = FULL_BITS,
    P_post=None,
    gap: Constants | None = None,
    trained=None,
    overhead=0.0,
    surface: Surface | None = None,
) -> Optimum:
    """N and D with the smallest loss within `budget`, for a model trained at P and, if asked, quantized to P_post.

    `gap` holds the gap law's constants if they are not among `constants`. `trained` is the width that training is
    charged with, by default that of the weights. `surface` stands for the law of losses, where it is none of the
    formulas. The result's P is the width at which weights are served. NaN where
    the law has no value or the budget has no room for one parameter and one token.
    """
    weights = bits_of_part(P, "P_w")
    served = weights if P_post is None else np.asarray(P_post, float)
    trained = weights if trained is None else trained
    g = constants if gap is None else gap
    made = Formula(constants=constants, P=P) if surface is None else surface

    def tokens(N):
        return made.tokens(N, budget.most_tokens(N, trained=trained, served=served), P_post, g)

    def loss(N):
        D = tokens(N)
        D = np.where(D > 0, D, np.nan)
        added = 0.0 if P_post is None else gap_rate(g, N, P_post, P) * D ** g["gamma_D"]
        return made.above(N, D) + added

    top = budget.largest(served=served, overhead=overhead)
    if np.isfinite(budget.flops):
        one = (6.0 * trained + 2.0 * budget.serve_tokens * served) / FULL_BITS  # operations a parameter at one token
        top = np.minimum(top, budget.flops / one)
    if np.isinf(top).any():
        raise ValueError("N has no ceiling: the budget needs flops or bytes")
    room = np.maximum(top, 1.0)
    N = np.exp(lowest(lambda x: loss(np.exp(x)), 0.0, np.log(room)))
    # exp(log(top)) may exceed top in the last digit, which must not break a ceiling.
    N = np.where(top >= 1, np.minimum(N, room), np.nan)
    return Optimum.of(N, tokens(N), np.where(np.isnan(N), np.nan, served), loss(N) + made.floor())


def serving_optimum(
    constants: Constants, *, cost=None, flops=None, serve_tokens=0.0, low=LOWEST_BITS, high=FULL_BITS
) -> Optimum:
    """N, D and the bits after training with the smallest A N_eff^-alpha + B D^-beta + E + delta_PTQ (Eq. 29).

    `cost` is what serving costs, C = N P; then P* rises like ln C and D is D_crit. `flops` limits training and
    serving together, 6 N D + 2 N serve_tokens P/16. Either or both; training is at 16 bits.
    """
    if cost is None and flops is None:
        raise ValueError("expected cost, flops or both")
    budget = Budget(flops=np.inf if flops is None else flops, serve_tokens=serve_tokens)

    def at(P) -> Optimum:
        if cost is None:
            return best_model(constants, budget, P_post=P)
        N = np.asarray(cost / P, float)
        D = np.minimum(critical_tokens(constants, N, P), budget.most_tokens(N, served=P))
        D = np.where(D > 0, D, np.nan)
        loss = training_loss(constants, N, D) + gap_rate(constants, N, P) * D ** constants["gamma_D"]
        return Optimum(N=N, D=D, P=P, loss=loss)

    return at(lowest(lambda P: at(P).loss - constants["E"], low, high, scan=True))
