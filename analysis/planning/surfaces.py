"""The loss of training as a function of N and D, for the estimate and each draw of a fit.

The laws of Kumar et al. and Chinchilla's are sums of one term in N and one in D, so that the best D is known without a
search (`optima.critical_tokens`). Of any other law only this is taken for granted: at fixed N it has one minimum in D,
often at infinity. Arrays are of one shape, draws being the last axis.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from analysis.laws.formulas import Constants, Widths, bits_of_part, gap_rate, training_loss
from analysis.laws.law import Law
from analysis.planning.optima import critical_tokens, lowest

STEP = 1e-6  # of D: by how much fewer tokens are tried, to see whether they would be better
NARROWINGS = 40  # golden sections in ln D


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula:
    """A law of `laws.formulas` with its constants, (S + 1,) or plain, trained at these widths."""

    constants: Constants
    P: Widths

    def floor(self) -> np.ndarray | float:
        """What no model falls below: taken off before losses are compared, so that no digits are lost."""
        return self.constants["E"]

    def above(self, N, D) -> np.ndarray:
        """The loss above the floor, in nats; NaN where the law has no value."""
        return training_loss(self.constants, N, D, self.P) - self.constants["E"]

    def tokens(self, N, most, P_post, gap: Constants | None) -> np.ndarray:
        """The best D, at most `most`, of a model that is quantized to P_post (None: it is not)."""
        if P_post is None:
            return most
        return np.minimum(most, critical_tokens(self.constants, N, P_post, self.P, gap=gap))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surface:
    """Any law of losses with its constants, and all of its variables but N and D."""

    law: Law
    constants: Constants
    P: Widths
    others: Mapping[str, float]

    def floor(self) -> float:
        return 0.0

    def above(self, N, D) -> np.ndarray:
        x = {"N": N, "D": D, **self.others}
        x |= {part: bits_of_part(self.P, part) for part in self.law.variables if part.startswith("P_")}
        if "C" in self.law.variables:
            x["C"] = 6 * np.asarray(N, float) * D
        constants = {symbol: self.constants[symbol] for symbol in self.law.symbols}
        return self.law.each(constants, {name: x[name] for name in self.law.variables})

    def tokens(self, N, most, P_post, gap: Constants | None) -> np.ndarray:
        def loss(log):
            D = np.exp(log)
            added = 0.0 if P_post is None else gap_rate(gap, N, P_post, self.P) * D ** gap["gamma_D"]
            return self.above(N, D) + added

        top = np.log(np.maximum(most, 1.0))
        best = np.asarray(most, float)
        if np.any(loss(top) > loss(top - STEP)):
            searched = np.exp(lowest(loss, np.zeros_like(top), top, narrowings=NARROWINGS))
            best = np.where(loss(top) > loss(top - STEP), np.minimum(searched, most), best)
        return best
