"""The laws of Kumar et al. 2024, "Scaling Laws for Precision" (arXiv 2411.04330).

`kumar_ptq` (Eq. 2) is the loss that quantization after training adds to a model trained in 16 bits. `kumar_neff`
(Eqs. 3 and 4) is the loss of models trained in low precision: each low-precision part shrinks N by a factor f(P).

Every exponential of the paper carries a shift that its main text omits (Appendix K): f(P) = 1 - exp(-P/gamma + n) and
exp(-P_post/gamma_post + b). Without the shifts Table 2 gives neither the paper's figures nor its 7 to 8 bits. In the
gap law only C_T e^b is identified, so b = 0 here and the published C_T is Table 2's C_T e^b. Runs at 16 bits are no
special case: f is evaluated at P = 16 as the paper does, which leaves f within 1% of one.
"""

import functools
import math

import numpy as np

from analysis.law import Columns, Law, Parameter
from analysis.laws.chinchilla import KUMAR, loss_columns, loss_parameters

PARTS = {"P_w": ("gamma_w", "n_w"), "P_a": ("gamma_a", "n_a"), "P_kv": ("gamma_kv", "n_kv")}
TABLE_2 = {
    "gamma_w": 2.6745,
    "n_w": 0.3037,
    "gamma_a": 2.2102,
    "n_a": 1.4072,
    "gamma_kv": 0.9578,
    "n_kv": 2.4185,
    "C_T": 0.0598,
    "gamma_D": 0.5068,
    "gamma_N": 0.3439,
    "gamma_post": 0.5907,
    "b": 1.1277,
}


def capacity(bits, gamma, shift):
    """f(P) = 1 - exp(-P/gamma + n), the share of N that a part at P bits leaves (Eq. 4, Appendix K).

    Not positive below gamma * n bits: there the law leaves no effective parameters.
    """
    return -np.expm1(-bits / gamma + shift)


def _gap_columns(theta, x) -> Columns:
    size, tokens, bits = np.log(x["N"]), np.log(x["D"]), x["P_post"]
    width = theta["gamma_post"]
    ones = np.ones_like(width)
    return Columns(
        logs={"C_T": theta["gamma_D"] * tokens - theta["gamma_N"] * size - bits / width},
        slopes={
            ("C_T", "gamma_D"): ones * tokens,
            ("C_T", "gamma_N"): -ones * size,
            ("C_T", "gamma_post"): bits / width**2,
        },
    )


def _neff_columns(theta, x, *, tied: bool) -> Columns:
    """Rows where some f(P) <= 0 get ln phi_A = +inf: an infinite loss, which no fit accepts."""
    alpha = theta["alpha"]
    size = np.log(x["N"]) * np.ones_like(alpha)
    slopes = {}
    for column, (gamma, shift) in PARTS.items():
        if gamma not in theta:
            continue
        f = capacity(x[column], theta[gamma], theta[shift])
        left = f > 0
        f = np.where(left, f, 1.0)
        size = np.where(left, size + np.log(f), -np.inf)
        slopes["A", shift] = np.where(left, alpha * (1 - f) / f, 0.0)
        slopes["A", gamma] = slopes["A", shift] * x[column] / theta[gamma] ** 2
    terms = loss_columns(theta, size, np.log(x["D"]), tied=tied)
    return Columns(logs=terms.logs, slopes=terms.slopes | slopes)


def _part_parameters() -> tuple[Parameter, ...]:
    made = []
    for column, (gamma, shift) in PARTS.items():
        made.append(
            Parameter(
                symbol=gamma,
                unit="bits",
                lower=0.1,
                upper=20.0,
                transform="reciprocal",
                starts=(0.7, 1.5, 3.0),
                published=TABLE_2[gamma],
                part=column,
            )
        )
        made.append(
            Parameter(
                symbol=shift, unit="1", lower=-8.0, upper=8.0, starts=(-1.0, 0.5), published=TABLE_2[shift], part=column
            )
        )
    return tuple(made)


def _neff(name: str, *, tied: bool) -> Law:
    beta = "alpha" if tied else "beta"
    return Law(
        name=name,
        equation=f"L = A [N f(P_w) f(P_a) f(P_kv)]^-alpha + B D^-{beta} + E, f(P) = 1 - exp(-P/gamma + n)",
        source="Kumar et al. 2024, Eqs. 3 and 4, Appendix K, Table 2 (arXiv 2411.04330)",
        response="loss",
        variables=("N", "D", *PARTS),
        parameters=loss_parameters(KUMAR, tied=tied, starts=(0.1, 0.3, 0.6, 1.2)) + _part_parameters(),
        columns=functools.partial(_neff_columns, tied=tied),
        distinct={"N": 2 if tied else 3, "D": 2 if tied else 3, "P_w": 3, "P_a": 3, "P_kv": 3},
        quantized_training=True,
    )


LAWS = (
    Law(
        name="kumar_ptq",
        equation="delta_PTQ = C_T D^gamma_D / N^gamma_N exp(-P_post/gamma_post + b), b = 0",
        source="Kumar et al. 2024, Eq. 2, Appendix K, Table 2 (arXiv 2411.04330)",
        response="gap",
        variables=("N", "D", "P_post"),
        parameters=(
            Parameter(
                symbol="gamma_D",
                unit="1",
                lower=-3.0,
                upper=4.0,
                starts=(0.0, 0.5, 1.0),
                published=TABLE_2["gamma_D"],
            ),
            Parameter(
                symbol="gamma_N",
                unit="1",
                lower=-3.0,
                upper=4.0,
                starts=(0.0, 0.5, 1.0),
                published=TABLE_2["gamma_N"],
            ),
            Parameter(
                symbol="gamma_post",
                unit="bits",
                lower=0.05,
                upper=20.0,
                transform="reciprocal",
                starts=(0.3, 0.6, 1.2, 3.0),
                published=TABLE_2["gamma_post"],
            ),
            Parameter(
                symbol="C_T",
                unit="nats * parameters^gamma_N / tokens^gamma_D",
                linear=True,
                lower=0.0,
                upper=np.inf,
                transform="log",
                published=TABLE_2["C_T"] * math.exp(TABLE_2["b"]),
            ),
        ),
        columns=_gap_columns,
        distinct={"N": 2, "D": 2, "P_post": 2},
        constants={"b": 0.0},
    ),
    _neff("kumar_neff", tied=False),
    _neff("kumar_neff_tied", tied=True),
)
