"""Other ways in which low-precision weights could enter a loss law: Table 1 of Kumar et al. 2024 (arXiv 2411.04330,
Appendix C), there compared by R2 on held-out runs.

The paper names the forms and how many parameters each adds, not their equations. Read here: "power law" is C_w P^-a,
added to the loss or to one as a factor of the term in N; the others shrink N, D or both by
f(P) = 1 - exp(-P/gamma + n), with one f for both ("tied") or one each. No constants are published.
"""

import numpy as np

from analysis.laws.chinchilla import EXPONENTS, KUMAR, loss_columns, loss_parameters
from analysis.laws.kumar import log_capacity, shrinking
from analysis.laws.law import Columns, Law, Parameter

SOURCE = "Kumar et al. 2024, Appendix C, Table 1 (arXiv 2411.04330): {} (held-out R2 there: {})"
EXPONENT_OF_BITS = Parameter(symbol="alpha_w", unit="1", lower=0.05, upper=12.0, starts=(0.5, 1.5, 4.0))


def _additive(theta, x) -> Columns:
    terms = loss_columns(theta, np.log(x["N"]), np.log(x["D"]), tied=False)
    bits = np.log(x["P_w"])
    ones = np.ones_like(theta["alpha_w"])
    logs = terms.logs | {"C_w": -theta["alpha_w"] * bits}
    return Columns(logs=logs, slopes=terms.slopes | {("C_w", "alpha_w"): -ones * bits})


def _multiplicative(theta, x) -> Columns:
    terms = loss_columns(theta, np.log(x["N"]), np.log(x["D"]), tied=False)
    bits = np.log(x["P_w"])
    power = theta["C_w"] * np.exp(-theta["alpha_w"] * bits)
    share = power / (1 + power)
    slopes = {("A", "C_w"): share / theta["C_w"], ("A", "alpha_w"): -share * bits}
    return Columns(logs=terms.logs | {"A": terms.logs["A"] + np.log1p(power)}, slopes=terms.slopes | slopes)


def _shrunk(of_n: tuple[str, str] | None, of_d: tuple[str, str] | None):
    """Columns with N and D shrunk by f, whose parameters (gamma, n) are named."""

    def columns(theta, x) -> Columns:
        logs = {"A": np.log(x["N"]), "B": np.log(x["D"])}
        chains = []
        for term, names, exponent in (("A", of_n, "alpha"), ("B", of_d, "beta")):
            if names is None:
                continue
            gamma, shift = names
            log, by_gamma, by_shift = log_capacity(x["P_w"], theta[gamma], theta[shift])
            logs[term] = logs[term] + log
            chains += [((term, gamma), -theta[exponent] * by_gamma), ((term, shift), -theta[exponent] * by_shift)]
        terms = loss_columns(theta, logs["A"], logs["B"], tied=False)
        return Columns(logs=terms.logs, slopes=terms.slopes | dict(chains))

    return columns


def _law(name: str, equation: str, what: str, r2: float, columns, parameters: tuple[Parameter, ...]) -> Law:
    return Law(
        name=name,
        equation=equation,
        source=SOURCE.format(what, r2),
        response="loss",
        variables=("N", "D", "P_w"),
        parameters=loss_parameters(dict.fromkeys(KUMAR), tied=False, starts=EXPONENTS[1:-1:2]) + parameters,
        columns=columns,
        distinct={"N": 3, "D": 3, "P_w": 3},
        quantized_training=True,
        accounts=("P_w",),
    )


W = ("gamma_w", "n_w")
DATA = ("gamma_D_w", "n_D_w")
F = "f(P) = 1 - exp(-P/gamma_w + n_w)"

LAWS = (
    _law(
        "weights_additive",
        "L = A N^-alpha + B D^-beta + C_w P_w^-alpha_w + E",
        "additive power law",
        0.71,
        _additive,
        (
            EXPONENT_OF_BITS,
            Parameter(symbol="C_w", unit="nats * bits^alpha_w", linear=True, lower=0.0, upper=np.inf, transform="log"),
        ),
    ),
    _law(
        "weights_multiplicative",
        "L = A N^-alpha (1 + C_w P_w^-alpha_w) + B D^-beta + E",
        "multiplicative power law, N and P",
        0.75,
        _multiplicative,
        (
            EXPONENT_OF_BITS,
            Parameter(
                symbol="C_w", unit="bits^alpha_w", lower=1e-3, upper=1e6, transform="log", starts=(1.0, 30.0, 1000.0)
            ),
        ),
    ),
    _law(
        "weights_neff",
        f"L = A [N f(P_w)]^-alpha + B D^-beta + E, {F}",
        "N_eff",
        0.82,
        _shrunk(W, None),
        shrinking("P_w", *W),
    ),
    _law(
        "weights_deff",
        f"L = A N^-alpha + B [D f(P_w)]^-beta + E, {F}",
        "D_eff",
        0.74,
        _shrunk(None, W),
        shrinking("P_w", *W),
    ),
    _law(
        "weights_neff_deff_tied",
        f"L = A [N f(P_w)]^-alpha + B [D f(P_w)]^-beta + E, {F}",
        "N_eff and D_eff, tied",
        0.79,
        _shrunk(W, W),
        shrinking("P_w", *W),
    ),
    _law(
        "weights_neff_deff",
        f"L = A [N f(P_w)]^-alpha + B [D g(P_w)]^-beta + E, {F}, g alike with gamma_D_w, n_D_w",
        "N_eff and D_eff, not tied",
        0.84,
        _shrunk(W, DATA),
        shrinking("P_w", *W) + shrinking("P_w", *DATA),
    ),
)
