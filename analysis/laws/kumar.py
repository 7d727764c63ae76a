"""The laws of Kumar et al. 2024, "Scaling Laws for Precision" (arXiv 2411.04330).

`kumar_ptq` (Eq. 2) is the loss that quantization after training adds to a model trained in 16 bits. `kumar_neff`
(Eqs. 3 and 4) is the loss of models trained in low precision: each low-precision part shrinks N by a factor f(P).
`kumar_floating_point` (Appendix N) is the same for weights in float formats, by the sum of all bits; the paper fitted
gamma_w and n_w to them with A, B, E and alpha as in Table 2, which a table of other runs cannot have.
`kumar_unified` (Eq. 9) is the gap of models that were trained in low precision, `kumar_unified_n` the same with N for
N_eff, which the paper found to fit less well (Fig. 21).

Every exponential of the paper carries a shift that its main text omits (Appendix K): f(P) = 1 - exp(-P/gamma + n) and
exp(-P_post/gamma_post + b). Without the shifts Table 2 gives neither the paper's figures nor its 7 to 8 bits. In the
gap law only C_T e^b is identified, so b = 0 here and the published C_T is Table 2's C_T e^b. Runs at 16 bits are no
special case: f is evaluated at P = 16 as the paper does, which leaves f within 1% of one.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from analysis.laws.chinchilla import KUMAR, loss_columns, loss_parameters
from analysis.laws.law import Columns, Law, Parameter

PARTS = {"P_w": ("gamma_w", "n_w"), "P_a": ("gamma_a", "n_a"), "P_kv": ("gamma_kv", "n_kv")}
ROBUST = {"P_w": "C_w", "P_a": "C_a", "P_kv": "C_kv"}  # how fast training bits beyond those after it stop to help
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
FLOATING_POINT = {"gamma_w": 2.8111, "n_w": 0.1240}


def capacity(bits, gamma, shift):
    """f(P) = 1 - exp(-P/gamma + n), the share of N that a part at P bits leaves (Eq. 4, Appendix K).

    Not positive below gamma * n bits: there the law leaves no effective parameters.
    """
    return -np.expm1(-bits / gamma + shift)


def log_capacity(bits, gamma, shift):
    """ln f(P) and its slopes in gamma and n; -inf and no slopes where f(P) <= 0."""
    f = capacity(bits, gamma, shift)
    left = f > 0
    f = np.where(left, f, 1.0)
    by_shift = np.where(left, -(1 - f) / f, 0.0)
    return np.where(left, np.log(f), -np.inf), by_shift * bits / gamma**2, by_shift


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


def _log_effective(theta, x, names):
    """ln N_eff (S, n), and its slopes by symbol, from the parts in `names` that the law still has."""
    size, slopes = np.log(x["N"]) * np.ones_like(next(iter(theta.values()))), {}
    for column, (gamma, shift) in names.items():
        if gamma in theta:
            log, slopes[gamma], slopes[shift] = log_capacity(x[column], theta[gamma], theta[shift])
            size = size + log
    return size, slopes


def _neff_columns(theta, x, *, tied: bool) -> Columns:
    """Rows where some f(P) <= 0 get ln phi_A = +inf: an infinite loss, which no fit accepts."""
    size, chain = _log_effective(theta, x, PARTS)
    terms = loss_columns(theta, size, np.log(x["D"]), tied=tied)
    return Columns(
        logs=terms.logs, slopes=terms.slopes | {("A", symbol): -theta["alpha"] * s for symbol, s in chain.items()}
    )


def _unified_columns(theta, x) -> Columns:
    """Eq. 9. A row that was trained in no more bits than it is quantized to has ln phi = -inf, a gap of zero; one
    without effective parameters has +inf."""
    terms = _gap_columns(theta, x)
    log, slopes = terms.logs["C_T"], dict(terms.slopes)
    size, chain = _log_effective(theta, x, PARTS)
    shrunk = size - np.log(x["N"])
    log = log - theta["gamma_N"] * shrunk
    slopes["C_T", "gamma_N"] = -np.where(np.isfinite(size), size, 0.0)
    slopes |= {("C_T", symbol): -theta["gamma_N"] * s for symbol, s in chain.items()}
    for column, symbol in ROBUST.items():
        if symbol not in theta:
            continue
        spare = x[column] - x["P_post"]
        left = spare > 0
        decay = np.exp(-theta[symbol] * np.where(left, spare, 1.0))
        log = np.where(left, log + np.log1p(-decay), -np.inf)
        slopes["C_T", symbol] = np.where(left, np.where(left, spare, 0.0) * decay / (1 - decay), 0.0)
    return Columns(logs={"C_T": log}, slopes=slopes)


def shrinking(part: str, gamma: str, shift: str, published: Mapping[str, float] | None = None) -> tuple[Parameter, ...]:
    """gamma and n of f(P), of the precision column `part`."""
    known = published or {}
    return (
        Parameter(
            symbol=gamma,
            unit="bits",
            lower=0.1,
            upper=20.0,
            transform="reciprocal",
            starts=(0.7, 1.5, 3.0),
            published=known.get(gamma),
            part=part,
        ),
        Parameter(
            symbol=shift,
            unit="1",
            lower=-8.0,
            upper=8.0,
            starts=(-1.0, 0.5),
            published=known.get(shift),
            part=part,
        ),
    )


def _part_parameters() -> tuple[Parameter, ...]:
    return tuple(p for part, names in PARTS.items() for p in shrinking(part, *names, published=TABLE_2))


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


def _unified(name: str, size: str, shrunk: tuple[Parameter, ...]) -> Law:
    """Eq. 9 with N_eff, or with N where no parameter shrinks it."""
    return Law(
        name=name,
        equation=f"delta_PTQ = C_T D^gamma_D / {size}^gamma_N exp(-P_post/gamma_post) prod [1 - exp(-C (P - P_post))]",
        source="Kumar et al. 2024, Eq. 9, Appendix K (arXiv 2411.04330), where C_w, C_a and C_kv are not given",
        response="gap",
        variables=("N", "D", *PARTS, "P_post"),
        parameters=(
            *gap_parameters(PUBLISHED_GAP, starts=(0.1, 0.6)),
            _post((0.4, 0.8)),
            *shrunk,
            *(_robustness(part, symbol) for part, symbol in ROBUST.items()),
        ),
        columns=_unified_columns,
        distinct={"N": 2, "D": 2, "P_post": 2, "P_w": 2, "P_a": 2, "P_kv": 2},
        quantized_training=True,
        constants={"b": 0.0},
    )


def gap_parameters(
    published: Mapping[str, float],
    *,
    tokens="gamma_D",
    size="gamma_N",
    front="C_T",
    starts=(0.0, 0.5, 1.0),
) -> tuple[Parameter, ...]:
    """Exponents of D and N and the coefficient in front, under the names that a law's authors gave them."""
    exponents = (
        Parameter(symbol=s, unit="1", lower=-10.0, upper=10.0, starts=starts, published=published.get(s))
        for s in (tokens, size)
    )
    unit = f"nats * parameters^{size} / tokens^{tokens}"
    coefficient = Parameter(
        symbol=front, unit=unit, linear=True, lower=0.0, upper=np.inf, transform="log", published=published.get(front)
    )
    return (*exponents, coefficient)


def _post(starts: tuple[float, ...]) -> Parameter:
    return Parameter(
        symbol="gamma_post",
        unit="bits",
        lower=0.05,
        upper=20.0,
        transform="reciprocal",
        starts=starts,
        published=TABLE_2["gamma_post"],
    )


def _robustness(part: str, symbol: str) -> Parameter:
    return Parameter(
        symbol=symbol, unit="1 / bits", lower=1e-3, upper=20.0, transform="log", starts=(0.2, 1.0), part=part
    )


PUBLISHED_GAP = TABLE_2 | {"C_T": TABLE_2["C_T"] * math.exp(TABLE_2["b"])}

LAWS = (
    Law(
        name="kumar_ptq",
        equation="delta_PTQ = C_T D^gamma_D / N^gamma_N exp(-P_post/gamma_post + b), b = 0",
        source="Kumar et al. 2024, Eq. 2, Appendix K, Table 2 (arXiv 2411.04330)",
        response="gap",
        variables=("N", "D", "P_post"),
        parameters=(*gap_parameters(PUBLISHED_GAP), _post((0.3, 0.6, 1.2, 3.0))),
        columns=_gap_columns,
        distinct={"N": 2, "D": 2, "P_post": 2},
        constants={"b": 0.0},
    ),
    _unified(
        "kumar_unified", "N_eff", tuple(dataclasses.replace(p, starts=(p.published,)) for p in _part_parameters())
    ),
    _unified("kumar_unified_n", "N", ()),
    _neff("kumar_neff", tied=False),
    _neff("kumar_neff_tied", tied=True),
    Law(
        name="kumar_floating_point",
        equation="L = A [N f(P_w)]^-alpha + B D^-alpha + E, f(P) = 1 - exp(-P/gamma_w + n_w), weights in eXmY",
        source="Kumar et al. 2024, Appendix N: gamma_w and n_w of 140 runs, the rest of Table 2 (arXiv 2411.04330)",
        response="loss",
        # M_w keeps weights in other formats out; bf16 is a float, too.
        variables=("N", "D", "P_w", "M_w"),
        parameters=(
            *loss_parameters(KUMAR, tied=True, starts=(0.1, 0.3, 0.6, 1.2)),
            *shrinking("P_w", "gamma_w", "n_w", published=FLOATING_POINT),
        ),
        columns=functools.partial(_neff_columns, tied=True),
        distinct={"N": 2, "D": 2, "P_w": 3, "M_w": 2},
        quantized_training=True,
        accounts=("P_w",),
    ),
)
