"""Loss against parameters and tokens, without precision: L = A N^-alpha + B D^-beta + E.

Hoffmann et al. 2022 (arXiv 2203.15556), Eq. 2; published constants as re-estimated by Besiroglu et al. 2024 (arXiv
2404.10102). The tied form alpha = beta is the one of Kumar et al. 2024 (arXiv 2411.04330), with their Table 2.
"""

import functools

import numpy as np

from analysis.laws.law import Columns, Law, Parameter

LARGEST_EXPONENT = 10.0
EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.3)


def loss_columns(theta, size_log, tokens_log, *, tied: bool) -> Columns:
    """The three terms, for ln N (or ln N_eff) of shape (n,) or (S, n) and ln D of shape (n,)."""
    alpha = theta["alpha"]
    name, beta = ("alpha", alpha) if tied else ("beta", theta["beta"])
    ones = np.ones_like(alpha)
    logs = {"A": -alpha * size_log, "B": -beta * tokens_log, "E": np.zeros_like(ones * tokens_log)}
    return Columns(logs=logs, slopes={("A", "alpha"): -ones * size_log, ("B", name): -ones * tokens_log})


def loss_parameters(published: dict[str, float], *, tied: bool, starts=EXPONENTS) -> tuple[Parameter, ...]:
    """A, B, E and the exponents; `published` by symbol."""
    exponents = ("alpha",) if tied else ("alpha", "beta")
    units = {"A": "nats * parameters^alpha", "B": f"nats * tokens^{exponents[-1]}", "E": "nats"}
    return (
        *(
            Parameter(symbol=s, unit="1", lower=0.01, upper=LARGEST_EXPONENT, starts=starts, published=published[s])
            for s in exponents
        ),
        *(
            Parameter(
                symbol=s,
                unit=unit,
                linear=True,
                lower=0.0,
                upper=np.inf,
                transform="identity" if s == "E" else "log",
                published=published[s],
            )
            for s, unit in units.items()
        ),
    )


def _compute_columns(theta, x) -> Columns:
    log = np.log(x["C"])
    return Columns(
        logs={"A": -theta["alpha"] * log, "E": 0.0 * theta["alpha"] * log},
        slopes={("A", "alpha"): -np.ones_like(theta["alpha"]) * log},
    )


def _columns(theta, x, *, tied: bool) -> Columns:
    return loss_columns(theta, np.log(x["N"]), np.log(x["D"]), tied=tied)


BESIROGLU = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
KUMAR = {"A": 4.299e3, "B": 1.806e4, "E": 2.7648, "alpha": 0.4965, "beta": 0.4965}

LAWS = (
    Law(
        name="chinchilla",
        equation="L = A N^-alpha + B D^-beta + E",
        source="Hoffmann et al. 2022, Eq. 2 (arXiv 2203.15556); constants of Besiroglu et al. 2024 (arXiv 2404.10102)",
        response="loss",
        variables=("N", "D"),
        parameters=loss_parameters(BESIROGLU, tied=False),
        columns=functools.partial(_columns, tied=False),
        distinct={"N": 3, "D": 3},
    ),
    Law(
        name="chinchilla_tied",
        equation="L = A N^-alpha + B D^-alpha + E",
        source="Kumar et al. 2024, Sec. 2 and Table 2 (arXiv 2411.04330)",
        response="loss",
        variables=("N", "D"),
        parameters=loss_parameters(KUMAR, tied=True),
        columns=functools.partial(_columns, tied=True),
        distinct={"N": 2, "D": 2},
    ),
    Law(
        name="compute",
        equation="L = A C^-alpha + E, C = 6 N D where the table does not count operations",
        source="Kaplan et al. 2020, Eq. 1.3 (arXiv 2001.08361), with E; of models that are the best of their compute",
        response="loss",
        variables=("C",),
        parameters=(
            Parameter(symbol="alpha", unit="1", lower=0.001, upper=LARGEST_EXPONENT, starts=EXPONENTS),
            Parameter(symbol="A", unit="nats * FLOP^alpha", linear=True, lower=0.0, upper=np.inf, transform="log"),
            Parameter(symbol="E", unit="nats", linear=True, lower=0.0, upper=np.inf),
        ),
        columns=_compute_columns,
        distinct={"C": 3},
    ),
)
