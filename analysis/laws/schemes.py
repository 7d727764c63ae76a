"""Laws that give every way of training in low precision a free efficiency instead of a function of its bits.

`quest`: a scheme s multiplies N by eff(s) (Frantar et al. 2025, arXiv 2502.16440; QuEST, arXiv 2502.05003).
`quartet`: it multiplies N and D, and the sum of both terms is raised to an outer exponent (Quartet, arXiv 2505.14669).

The schemes are those of the table: its column `scheme`, or the formats of weights, activations and KV cache. The scheme
of the runs that are not quantized has efficiency one. Published efficiencies are QuEST's; its E of .0014 is as printed,
and not identified by its runs.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from analysis.errors import InputError
from analysis.laws.chinchilla import LARGEST_EXPONENT, loss_columns, loss_parameters
from analysis.laws.law import Columns, Law, Parameter

QUEST = {"A": 8.134, "alpha": 0.06273, "B": 86.41, "beta": 0.24129, "E": 0.00142}
QUEST_EFF = {
    "1": 0.0205, "2": 0.1519, "3": 0.4331, "4": 0.6918, "8": 1.0162, "fp4": 0.6296, "48": 0.3812,
    "1NOH": 0.0156, "2NOH": 0.0784, "3NOH": 0.3221, "4NOH": 0.6033, "8NOH": 0.9376,
    "1WO": 0.1384, "2WO": 0.4137, "3WO": 0.6531, "4WO": 0.8404,
}  # fmt: skip
BASES = (
    *("16", "bf16", "bf16/bf16/bf16", "fp16", "fp32", "none", "bfloat16", "float16", "half", "float32", "baseline"),
    *("base", "full", "full precision", "unquantized", "not quantized", "no quantization", "w16a16", "w16a16kv16"),
    *("16 bit", "16bit", "16 bits", "p16", "16.0", "bf16 baseline", "fp16 baseline", "bf16 mixed", "no", "reference"),
)
"""Names of the runs that are not quantized, in small letters with blanks for `-` and `_`, the preferred first."""
QUARTET = {"A": 1.524e5, "alpha": 0.5886, "B": 5.255e5, "beta": 0.5440, "E": 1.3481, "gamma": 0.2739}
N_0, D_0 = 1e7, 1e9
"""Where Quartet's two terms are compared: a ratio of B and A themselves would depend on the exponents."""


def base_of(names: Iterable[str], chosen: str | None = None) -> str | None:
    """Of these schemes the one that is not quantized: `chosen`, or the one with such a name; None if no name says so.

    Raises:
        InputError: `chosen` is not among them.
    """
    names = sorted(set(names))
    if chosen is not None:
        if chosen not in names:
            raise InputError(f"base={chosen}: the table has no such scheme; it has {', '.join(names)}")
        return chosen
    spelled = {name.lower().replace("-", " ").replace("_", " ").strip(): name for name in reversed(names)}
    return next((spelled[base] for base in BASES if base in spelled), None)


def efficiency(kind: str, scheme: str) -> str:
    """Symbol of a scheme's parameter."""
    return f"{kind}[{scheme}]"


def _parameter(symbol: str, published: float | None = None) -> Parameter:
    return Parameter(
        symbol=symbol, unit="1", lower=1e-8, upper=1e4, transform="log", starts=(0.5,), published=published
    )


def _log_efficiency(theta, x, schemes: tuple[str, ...], kind: str):
    """ln eff (S, n) of each row's scheme, and the slopes by symbol."""
    log, slopes = np.zeros(1), {}
    if not schemes:
        return log, slopes
    code = np.rint(x["scheme"]).astype(int)
    for number, scheme in enumerate(schemes[1:], start=2):
        symbol = efficiency(kind, scheme)
        if symbol not in theta:
            continue
        here = (code == number).astype(float)
        log = log + np.log(theta[symbol]) * here
        slopes[symbol] = here / theta[symbol]
    return log, slopes


def _quest_columns(schemes: tuple[str, ...]):
    def columns(theta, x) -> Columns:
        log, slopes = _log_efficiency(theta, x, schemes, "eff")
        terms = loss_columns(theta, np.log(x["N"]) + log, np.log(x["D"]), tied=False)
        chain = {("A", symbol): -theta["alpha"] * slope for symbol, slope in slopes.items()}
        return Columns(logs=terms.logs, slopes=terms.slopes | chain)

    return columns


def _quartet_columns(schemes: tuple[str, ...]):
    def columns(theta, x) -> Columns:
        log_n, by_n = _log_efficiency(theta, x, schemes, "eff_N")
        log_d, by_d = _log_efficiency(theta, x, schemes, "eff_D")
        size, tokens = np.log(x["N"] / N_0) + log_n, np.log(x["D"] / D_0) + log_d
        of_n, of_d = -theta["alpha"] * size, np.log(theta["rho"]) - theta["beta"] * tokens
        total = np.logaddexp(of_n, of_d)
        share = np.exp(of_n - total)
        inner = {"alpha": -share * size, "beta": -(1 - share) * tokens, "rho": (1 - share) / theta["rho"]}
        inner |= {symbol: -share * theta["alpha"] * slope for symbol, slope in by_n.items()}
        inner |= {symbol: -(1 - share) * theta["beta"] * slope for symbol, slope in by_d.items()}
        slopes = {("C", symbol): theta["gamma"] * slope for symbol, slope in inner.items()}
        return Columns(logs={"C": theta["gamma"] * total, "E": 0.0 * total}, slopes=slopes | {("C", "gamma"): total})

    return columns


def quest(schemes: tuple[str, ...]) -> Law:
    """The law for these schemes, the unquantized one first."""
    return dataclasses.replace(
        _QUEST,
        parameters=(
            *loss_parameters(QUEST, tied=False),
            *(_parameter(efficiency("eff", s), QUEST_EFF.get(s)) for s in schemes[1:]),
        ),
        columns=_quest_columns(schemes),
        categories=schemes,
    )


def quartet(schemes: tuple[str, ...]) -> Law:
    """The law for these schemes, the unquantized one first."""
    free = (_parameter(efficiency(kind, s)) for s in schemes[1:] for kind in ("eff_N", "eff_D"))
    return dataclasses.replace(
        _QUARTET, parameters=(*_outer(), *free), columns=_quartet_columns(schemes), categories=schemes
    )


def ratio_of_terms(published: float) -> Parameter:
    """rho, the term of D over that of N at N_0 and D_0, which may be far from the table."""
    starts = (0.1, 1.0, 10.0)
    return Parameter(
        symbol="rho", unit="1", lower=1e-30, upper=1e30, transform="log", starts=starts, published=published
    )


def _outer() -> tuple[Parameter, ...]:
    a, b = QUARTET["A"] * N_0 ** -QUARTET["alpha"], QUARTET["B"] * D_0 ** -QUARTET["beta"]
    exponents = (
        Parameter(symbol=s, unit="1", lower=0.01, upper=LARGEST_EXPONENT, starts=(0.2, 0.5, 1.0), published=QUARTET[s])
        for s in ("alpha", "beta")
    )
    return (
        *exponents,
        Parameter(symbol="gamma", unit="1", lower=0.01, upper=3.0, starts=(0.3, 1.0), published=QUARTET["gamma"]),
        ratio_of_terms(b / a),
        Parameter(
            symbol="C",
            unit="nats",
            linear=True,
            lower=0.0,
            upper=np.inf,
            transform="log",
            published=a ** QUARTET["gamma"],
        ),
        Parameter(symbol="E", unit="nats", linear=True, lower=0.0, upper=np.inf, published=QUARTET["E"]),
    )


_QUEST = Law(
    name="quest",
    equation="L = A (N eff[scheme])^-alpha + B D^-beta + E",
    source="QuEST, Panferov et al. 2025, Sec. 4 (arXiv 2502.05003), with the constants of its published runs",
    response="loss",
    variables=("N", "D", "scheme"),
    parameters=(),
    columns=_quest_columns(()),
    distinct={"N": 3, "D": 3, "scheme": 2},
    quantized_training=True,
    for_schemes=quest,
)
_QUARTET = Law(
    name="quartet",
    equation="L = C [(N eff_N/N_0)^-alpha + rho (D eff_D/D_0)^-beta]^gamma + E, N_0 = 1e7, D_0 = 1e9",
    source="Quartet, Castro et al. 2025, Eq. 1 (arXiv 2505.14669): C = (A N_0^-alpha)^gamma, rho from B/A",
    response="loss",
    variables=("N", "D", "scheme"),
    parameters=(),
    columns=_quartet_columns(()),
    distinct={"N": 3, "D": 3, "scheme": 2},
    quantized_training=True,
    for_schemes=quartet,
)

_GAMMA = dataclasses.replace(
    _QUARTET,
    name="chinchilla_gamma",
    equation="L = C [(N/N_0)^-alpha + rho (D/D_0)^-beta]^gamma + E, N_0 = 1e7, D_0 = 1e9",
    source="Quartet, Castro et al. 2025, Eq. 1 in 16 bits (arXiv 2505.14669): C = (A N_0^-alpha)^gamma, rho from B/A",
    variables=("N", "D"),
    parameters=_outer(),
    distinct={"N": 3, "D": 3},
    quantized_training=False,
    for_schemes=None,
)

LAWS = (_GAMMA, quest(("16", *QUEST_EFF)), quartet(("16",)))
