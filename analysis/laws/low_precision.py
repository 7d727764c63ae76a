"""Laws for training in low precision other than those of Kumar et al.

`chen`: the loss that low-precision training adds grows with D and with the group that shares a scale (Chen et al. 2025,
arXiv 2505.14302); published for 4-bit weights and activations, for weights alone and for activations alone.

`sun`: floating-point training by exponent bits E, mantissa bits M and block size G (Sun et al. 2025, arXiv 2501.02423).
The added loss shares its exponents of N and D with the terms of the loss without quantization.

`panferov`: each part shrinks N by a capacity that depends on its format only through its error on normal values
(Panferov et al. 2025, arXiv 2506.01863), rho = tanh(F (log_(1/4) sigma2)^C) here; a constant in front of the tanh,
which the paper has too, cannot be separated from A where all runs share it.
"""

import functools

import numpy as np

from analysis.laws.chinchilla import loss_columns, loss_parameters
from analysis.laws.kumar import gap_parameters
from analysis.laws.law import Columns, Law, Parameter

CHEN = {
    "w4a4": {"k": 0.1582, "gamma_N": 0.2186, "gamma_D": 0.0745, "gamma_G": 0.7779},
    "w4a16": {"k": 0.2522, "gamma_N": 0.3589, "gamma_D": 0.1610, "gamma_G": 0.3533},
    "w16a4": {"k": 0.1004, "gamma_N": 0.1816, "gamma_D": 0.0331, "gamma_G": 0.9812},
}
SUN = {
    "A": 69.2343,
    "alpha": 0.2368,
    "B": 68973.0621,
    "beta": 0.5162,
    "E": 1.9061,
    "kappa": 1 / 11334.5197,
    "delta": 3.1926,
    "nu": 2.9543,
}
NEVER = 1e-12  # sigma2 below which nothing counts as quantized


def _chen_columns(theta, x, group: str) -> Columns:
    depth = np.log(np.log2(x[group]))
    tokens, size = np.log(x["D"]), np.log(x["N"])
    ones = np.ones_like(theta["gamma_G"])
    log = theta["gamma_D"] * tokens - theta["gamma_N"] * size + theta["gamma_G"] * depth
    slopes = {("k", "gamma_D"): ones * tokens, ("k", "gamma_N"): -ones * size, ("k", "gamma_G"): ones * depth}
    return Columns(logs={"k": log}, slopes=slopes)


def _chen(name: str, parts: tuple[str, ...], group: str) -> Law:
    published = CHEN[name]
    return Law(
        name=f"chen_{name}",
        equation="gap_qat = k D^gamma_D (log2 G)^gamma_G / N^gamma_N, G values a scale",
        source=f"Chen et al. 2025, Eq. 7 and its table, {name.upper()} (arXiv 2505.14302)",
        response="gap_qat",
        variables=("N", "D", group),
        parameters=(
            *gap_parameters(published, front="k"),
            Parameter(
                symbol="gamma_G", unit="1", lower=-5.0, upper=5.0, starts=(0.0, 1.0), published=published["gamma_G"]
            ),
        ),
        columns=functools.partial(_chen_columns, group=group),
        distinct={"N": 2, "D": 2, group: 2},
        quantized_training=True,
        accounts=parts,
    )


def _sun_columns(theta, x) -> Columns:
    size, tokens = np.log(x["N"]), np.log(x["D"])
    terms = loss_columns(theta, size, tokens, tied=False)
    exponent, mantissa = np.log(x["E_w"] + 0.5), np.log(x["M_w"] + 0.5)
    ones = np.ones_like(theta["delta"])
    log = theta["beta"] * tokens - theta["alpha"] * size + np.log(np.log2(x["group_w"]))
    log = log - theta["delta"] * exponent - theta["nu"] * mantissa
    slopes = {"beta": tokens, "alpha": -size, "delta": -exponent, "nu": -mantissa}
    return Columns(
        logs=terms.logs | {"kappa": log},
        slopes=terms.slopes | {("kappa", symbol): ones * slope for symbol, slope in slopes.items()},
    )


def _panferov_columns(theta, x) -> Columns:
    size = np.log(x["N"]) * np.ones_like(theta["F"])
    by_f, by_c = 0.0, 0.0
    for part in ("sigma2_w", "sigma2_a"):
        digits = np.log(np.maximum(x[part], NEVER)) / np.log(0.25)
        inner = theta["F"] * digits ** theta["C"]
        rho = np.tanh(inner)
        d_log_rho = (1 - rho**2) / rho  # d ln rho / d inner
        size = size + np.log(rho)
        by_f = by_f + d_log_rho * inner / theta["F"]
        by_c = by_c + d_log_rho * inner * np.log(digits)
    terms = loss_columns(theta, size, np.log(x["D"]), tied=False)
    slopes = {("A", "F"): -theta["alpha"] * by_f, ("A", "C"): -theta["alpha"] * by_c}
    return Columns(logs=terms.logs, slopes=terms.slopes | slopes)


def _penalty_columns(theta, x) -> Columns:
    size = np.log(x["N"])
    ones = np.ones_like(theta["gamma_N"])
    log, slopes = -theta["gamma_N"] * size, {("k", "gamma_N"): -ones * size}
    if "gamma_P" in theta:
        log = log - x["P_w"] / theta["gamma_P"]
        slopes["k", "gamma_P"] = x["P_w"] / theta["gamma_P"] ** 2
    return Columns(logs={"k": log}, slopes=slopes)


LAWS = (
    Law(
        name="penalty",
        equation="gap_qat = k N^-gamma_N exp(-P_w/gamma_P)",
        source="Thomassen 2026 (arXiv 2605.25966): a penalty that is log-linear in N; here in bits, too",
        response="gap_qat",
        variables=("N", "P_w"),
        parameters=(
            Parameter(symbol="gamma_N", unit="1", lower=-10.0, upper=10.0, starts=(0.0, 0.3, 1.0)),
            Parameter(
                symbol="gamma_P",
                unit="bits",
                lower=0.05,
                upper=100.0,
                transform="reciprocal",
                starts=(0.4, 0.8, 2.0),
                part="P_w",
            ),
            Parameter(
                symbol="k", unit="nats * parameters^gamma_N", linear=True, lower=0.0, upper=np.inf, transform="log"
            ),
        ),
        columns=_penalty_columns,
        distinct={"N": 2, "P_w": 2},
        quantized_training=True,
        accounts=("P_w",),
    ),
    _chen("w4a4", ("P_w", "P_a"), "group_w"),
    _chen("w4a16", ("P_w",), "group_w"),
    _chen("w16a4", ("P_a",), "group_a"),
    Law(
        name="sun",
        equation="L = A N^-alpha + B D^-beta + E + kappa D^beta/N^alpha log2(G) / [(E_w + 1/2)^delta (M_w + 1/2)^nu]",
        source="Sun et al. 2025, Eq. 15 and its constants, kappa = 1/gamma (arXiv 2501.02423)",
        response="loss",
        variables=("N", "D", "E_w", "M_w", "group_w"),
        parameters=(
            *loss_parameters(SUN, tied=False, starts=(0.1, 0.25, 0.5)),
            Parameter(symbol="delta", unit="1", lower=0.0, upper=12.0, starts=(1.0, 3.0), published=SUN["delta"]),
            Parameter(symbol="nu", unit="1", lower=0.0, upper=12.0, starts=(1.0, 3.0), published=SUN["nu"]),
            Parameter(
                symbol="kappa",
                unit="nats * parameters^alpha / tokens^beta",
                linear=True,
                lower=0.0,
                upper=np.inf,
                transform="log",
                published=SUN["kappa"],
            ),
        ),
        columns=_sun_columns,
        distinct={"N": 3, "D": 3, "E_w": 2, "M_w": 2},
        quantized_training=True,
    ),
    Law(
        name="panferov",
        equation="L = A [N rho(sigma2_w) rho(sigma2_a)]^-alpha + B D^-beta + E, rho = tanh(F (log_(1/4) sigma2)^C)",
        source="Panferov et al. 2025 (arXiv 2506.01863)",
        response="loss",
        variables=("N", "D", "sigma2_w", "sigma2_a"),
        parameters=(
            *loss_parameters(dict.fromkeys(SUN), tied=False, starts=(0.1, 0.3, 0.6)),
            Parameter(symbol="F", unit="1", lower=1e-3, upper=20.0, transform="log", starts=(0.1, 0.4, 1.0)),
            Parameter(symbol="C", unit="1", lower=0.05, upper=10.0, transform="log", starts=(0.5, 1.0, 2.0)),
        ),
        columns=_panferov_columns,
        distinct={"N": 3, "D": 3, "sigma2_w": 3},
        quantized_training=True,
        accounts=("P_w", "P_a"),
    ),
)
