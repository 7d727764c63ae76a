"""Losses without precision in other forms: over-trained models and repeated data.

`gadre` (Gadre et al. 2024, arXiv 2403.08540, Eq. 4): along models of one ratio M = D/N the loss is a power law of
compute C = 6 N D with one exponent for all ratios; E + (a M^eta + b M^-eta) C^-eta. It is the Chinchilla form with
alpha = beta = 2 eta.

`muennighoff` (Muennighoff et al. 2023, arXiv 2305.16264, Eq. 5): D tokens of which U are unique count as
D' = U + U R (1 - exp(-(D/U - 1)/R)), R epochs after which repeating is worth little. Their term for excess parameters,
which needs the compute-optimal size for U tokens, is left out.
"""

import numpy as np

from analysis.law import Columns, Law, Parameter
from analysis.laws.chinchilla import loss_columns, loss_parameters

MUENNIGHOFF = {"A": 521.0, "B": 1488.0, "E": 1.87, "alpha": 0.353, "beta": 0.353, "R_D": 15.39}


def _gadre_columns(theta, x) -> Columns:
    compute, ratio = np.log(6 * x["N"] * x["D"]), np.log(x["D"] / x["N"])
    ones = np.ones_like(theta["eta"])
    slopes = {"a": ratio - compute, "b": -ratio - compute}
    logs = {symbol: theta["eta"] * slope for symbol, slope in slopes.items()}
    return Columns(
        logs=logs | {"E": 0.0 * ones * compute},
        slopes={(symbol, "eta"): ones * slope for symbol, slope in slopes.items()},
    )


def _muennighoff_columns(theta, x) -> Columns:
    unique = np.minimum(x["unique_tokens"], x["D"])
    again = x["D"] / unique - 1
    left = np.exp(-again / theta["R_D"])
    worth = 1 + theta["R_D"] * (1 - left)  # D' / U
    terms = loss_columns(theta, np.log(x["N"]), np.log(unique) + np.log(worth), tied=False)
    slope = ((1 - left) - again / theta["R_D"] * left) / worth
    return Columns(logs=terms.logs, slopes=terms.slopes | {("B", "R_D"): -theta["beta"] * slope})


LAWS = (
    Law(
        name="gadre",
        equation="L = E + (a M^eta + b M^-eta) C^-eta, C = 6 N D, M = D/N",
        source="Gadre et al. 2024, Eq. 4 (arXiv 2403.08540)",
        response="loss",
        variables=("N", "D"),
        parameters=(
            Parameter(symbol="eta", unit="1", lower=0.005, upper=1.5, starts=(0.03, 0.08, 0.15, 0.25, 0.4)),
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
        name="muennighoff",
        equation="L = A N^-alpha + B D'^-beta + E, D' = U + U R_D (1 - exp(-(D/U - 1)/R_D))",
        source="Muennighoff et al. 2023, Eq. 5 and their constants for C4 (arXiv 2305.16264)",
        response="loss",
        variables=("N", "D", "unique_tokens"),
        parameters=(
            *loss_parameters(MUENNIGHOFF, tied=False),
            Parameter(
                symbol="R_D",
                unit="epochs",
                lower=0.1,
                upper=1e3,
                transform="log",
                starts=(3.0, 15.0),
                published=MUENNIGHOFF["R_D"],
            ),
        ),
        columns=_muennighoff_columns,
        distinct={"N": 3, "D": 3},
    ),
)
