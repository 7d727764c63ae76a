"""Losses without precision in other forms: over-trained models and repeated data.

`gadre` (Gadre et al. 2024, arXiv 2403.08540, Eq. 4): along models of one ratio M = D/N the loss is a power law of
compute C = 6 N D with one exponent for all ratios; E + (a M^eta + b M^-eta) C^-eta. It is the Chinchilla form with
alpha = beta = 2 eta.

`muennighoff_tokens` and `muennighoff` (Muennighoff et al. 2023, arXiv 2305.16264): D tokens of which U are unique count
as D' = U + U R_D (1 - exp(-(D/U - 1)/R_D)), R_D epochs after which repeating is worth little. `muennighoff` does the
same with parameters: U_N are as many as U tokens can use at best, more count as N' = U_N + U_N R_N (1 - exp(-(N/U_N -
1)/R_N)), and a model with fewer than U_N counts as it is. U_N is where spending on N and on D pays alike, alpha A
U_N^-alpha = beta B U^-beta. It needs the ratio of A and B inside an exponential, so that law is written with C and rho
for A and B.
"""

import math

import numpy as np

from analysis.laws.chinchilla import EXPONENTS, LARGEST_EXPONENT, loss_columns, loss_parameters
from analysis.laws.law import Columns, Law, Parameter
from analysis.laws.schemes import D_0, N_0, ratio_of_terms

MUENNIGHOFF = {
    "A": math.exp(6.255414),
    "B": math.exp(7.3049974),
    "E": math.exp(0.6254804),
    "alpha": 0.3526596,
    "beta": 0.3526596,
    "R_D": 15.387756,
    "R_N": 5.309743,
}
"""As their public code has them (github.com/huggingface/datablations); the paper rounds them."""


NEAR = 1e-4
"""Share of the limit up to which a series is more exact."""


def _gadre_columns(theta, x) -> Columns:
    compute, ratio = np.log(6 * x["N"] * x["D"]), np.log(x["D"] / x["N"])
    ones = np.ones_like(theta["eta"])
    slopes = {"a": ratio - compute, "b": -ratio - compute}
    logs = {symbol: theta["eta"] * slope for symbol, slope in slopes.items()}
    return Columns(
        logs=logs | {"E": 0.0 * ones * compute},
        slopes={(symbol, "eta"): ones * slope for symbol, slope in slopes.items()},
    )


def _saturating(times, limit):
    """1 + R (1 - exp(-t/R)) for `times` t >= 0 and R = `limit`, and the slopes of its logarithm in t and in R."""
    share = times / limit
    left = np.exp(-share)
    worth = 1 - limit * np.expm1(-share)
    # The difference of two numbers that are nearly alike where the limit is far.
    near = -np.expm1(-share) - share * left
    little = np.minimum(share, NEAR)
    by_limit = np.where(share < NEAR, little**2 * (0.5 - little / 3), near)
    return worth, left / worth, by_limit / worth


def _tokens_columns(theta, x) -> Columns:
    unique = np.minimum(x["unique_tokens"], x["D"])
    worth, _, slope = _saturating(x["D"] / unique - 1, theta["R_D"])
    terms = loss_columns(theta, np.log(x["N"]), np.log(unique) + np.log(worth), tied=False)
    return Columns(logs=terms.logs, slopes=terms.slopes | {("B", "R_D"): -theta["beta"] * slope})


def _muennighoff_columns(theta, x) -> Columns:
    alpha, beta, rho = theta["alpha"], theta["beta"], theta["rho"]
    unique = np.minimum(x["unique_tokens"], x["D"])
    worth_d, _, by_r_d = _saturating(x["D"] / unique - 1, theta["R_D"])
    size, tokens = np.log(x["N"] / N_0), np.log(unique / D_0)
    best = (np.log(alpha / (beta * rho)) + beta * tokens) / alpha  # ln U_N/N_0, if the model has as many
    excess = size > best
    best_slopes = {"alpha": (1 / alpha - best) / alpha, "beta": (tokens - 1 / beta) / alpha, "rho": -1 / (alpha * rho)}
    base = np.where(excess, best, size)
    times = np.expm1(np.minimum(size - base, 500.0))  # R_N; far beyond where more of it adds anything
    worth_n, by_times, by_r_n = _saturating(times, theta["R_N"])
    # N' falls out of U_N where there is no excess: its slope there is zero.
    by_best = np.where(excess, 1 - by_times * (1 + times), 0.0)
    log_n, log_d = base + np.log(worth_n), tokens + np.log(worth_d)
    of_n, of_d = -alpha * log_n, np.log(rho) - beta * log_d
    total = np.logaddexp(of_n, of_d)
    share = np.exp(of_n - total)
    slopes = {symbol: -share * alpha * by_best * slope for symbol, slope in best_slopes.items()}
    slopes["alpha"] = slopes["alpha"] - share * log_n
    slopes["beta"] = slopes["beta"] - (1 - share) * log_d
    slopes["rho"] = slopes["rho"] + (1 - share) / rho
    slopes |= {"R_N": -share * alpha * by_r_n, "R_D": -(1 - share) * beta * by_r_d}
    logs = {"C": total, "E": 0.0 * total}
    return Columns(logs=logs, slopes={("C", symbol): slope for symbol, slope in slopes.items()})


def _worn(symbol: str, unit: str) -> Parameter:
    """R_D or R_N: how often D or N can be had again before that is worth little."""
    return Parameter(
        symbol=symbol,
        unit=unit,
        lower=1e-3,
        upper=1e9,
        transform="log",
        starts=(3.0, 15.0),
        published=MUENNIGHOFF[symbol],
    )


def _ratio_parameters() -> tuple[Parameter, ...]:
    known = MUENNIGHOFF
    a, b = known["A"] * N_0 ** -known["alpha"], known["B"] * D_0 ** -known["beta"]
    exponents = (
        Parameter(symbol=s, unit="1", lower=0.01, upper=LARGEST_EXPONENT, starts=(0.15, 0.35, 0.8), published=known[s])
        for s in ("alpha", "beta")
    )
    return (
        *exponents,
        ratio_of_terms(b / a),
        _worn("R_D", "epochs"),
        _worn("R_N", "1"),
        Parameter(symbol="C", unit="nats", linear=True, lower=0.0, upper=np.inf, transform="log", published=a),
        Parameter(symbol="E", unit="nats", linear=True, lower=0.0, upper=np.inf, published=known["E"]),
    )


LAWS = (
    Law(
        name="gadre",
        equation="L = E + (a M^eta + b M^-eta) C^-eta, C = 6 N D, M = D/N",
        source="Gadre et al. 2024, Eq. 4 (arXiv 2403.08540)",
        response="loss",
        variables=("N", "D"),
        parameters=(
            Parameter(
                symbol="eta",
                unit="1",
                lower=0.005,
                upper=LARGEST_EXPONENT / 2,
                starts=tuple(exponent / 2 for exponent in EXPONENTS),
            ),
            *(
                Parameter(
                    symbol=symbol,
                    unit="nats * FLOP^eta",
                    linear=True,
                    lower=0.0,
                    upper=np.inf,
                    transform="log",
                )
                for symbol in ("a", "b")
            ),
            Parameter(symbol="E", unit="nats", linear=True, lower=0.0, upper=np.inf),
        ),
        columns=_gadre_columns,
        distinct={"N": 2, "D": 2},
    ),
    Law(
        name="muennighoff_tokens",
        equation="L = A N^-alpha + B D'^-beta + E, D' = U + U R_D (1 - exp(-(D/U - 1)/R_D))",
        source="Muennighoff et al. 2023, Eq. 5 and their constants for C4 (arXiv 2305.16264)",
        response="loss",
        variables=("N", "D", "unique_tokens"),
        parameters=(*loss_parameters(MUENNIGHOFF, tied=False), _worn("R_D", "epochs")),
        columns=_tokens_columns,
        distinct={"N": 3, "D": 3},
    ),
    Law(
        name="muennighoff",
        equation=(
            "L = C [(N'/N_0)^-alpha + rho (D'/D_0)^-beta] + E, X' = U_X + U_X R_X (1 - exp(-(X/U_X - 1)/R_X)), "
            "U_D = U, U_N where alpha (U_N/N_0)^-alpha = beta rho (U/D_0)^-beta, at most N; N_0 = 1e7, D_0 = 1e9"
        ),
        source="Muennighoff et al. 2023 (arXiv 2305.16264), constants for C4: C = A N_0^-alpha, rho from B/A",
        response="loss",
        variables=("N", "D", "unique_tokens"),
        parameters=_ratio_parameters(),
        columns=_muennighoff_columns,
        distinct={"N": 3, "D": 3},
    ),
)
