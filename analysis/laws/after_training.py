"""Laws for the gap that quantization after training opens, other than that of Kumar et al.

`ouyang`: a power law in the bits (Ouyang et al. 2024, arXiv 2411.17691), fitted there to checkpoints of the Pythia
models at 2 to 4 bits.

`gaussian`: instead of bits, how much the format errs on normal values in groups of its own size, sigma2 (the table's
`sigma2_post`). One constant then covers formats, bit widths and granularities. A gap that is quadratic in the rounding
error has kappa = 1; the paper's 1/gamma_post is nearly that between 3 and 4 bits.
"""

import numpy as np

from analysis.laws.kumar import gap_parameters
from analysis.laws.law import Columns, Law, Parameter

OUYANG = {"k": 0.017, "beta": 0.5251, "alpha": 0.2261, "gamma": 5.4967}


def power_of(symbols: tuple[str, str, str, str], variable: str, sign: float):
    """Columns of front * D^tokens / N^size * variable^(sign * power), by the four symbols in that order."""
    front, tokens, size, power = symbols

    def columns(theta, x) -> Columns:
        logs = {tokens: np.log(x["D"]), size: -np.log(x["N"]), power: sign * np.log(x[variable])}
        ones = np.ones_like(theta[power])
        total = sum(theta[symbol] * log for symbol, log in logs.items())
        return Columns(logs={front: total}, slopes={(front, symbol): ones * log for symbol, log in logs.items()})

    return columns


LAWS = (
    Law(
        name="ouyang",
        equation="delta = k D^beta / (N^alpha P_post^gamma)",
        source="Ouyang et al. 2024, Eq. 8 (arXiv 2411.17691)",
        response="gap",
        variables=("N", "D", "P_post"),
        parameters=(
            *gap_parameters(OUYANG, tokens="beta", size="alpha", front="k"),
            Parameter(
                symbol="gamma",
                unit="1",
                lower=0.0,
                upper=30.0,
                starts=(3.0, 5.0, 8.0),
                published=OUYANG["gamma"],
            ),
        ),
        columns=power_of(("k", "beta", "alpha", "gamma"), "P_post", -1.0),
        distinct={"N": 2, "D": 2, "P_post": 2},
    ),
    Law(
        name="gaussian",
        equation="delta = C_T D^gamma_D / N^gamma_N sigma2_post^kappa",
        source="this project; sigma2 is the GMSE of Panferov et al. 2025 (arXiv 2506.01863)",
        response="gap",
        variables=("N", "D", "sigma2_post"),
        parameters=(
            *gap_parameters({}),
            Parameter(symbol="kappa", unit="1", lower=0.0, upper=6.0, starts=(0.5, 1.0, 2.0)),
        ),
        columns=power_of(("C_T", "gamma_D", "gamma_N", "kappa"), "sigma2_post", 1.0),
        distinct={"N": 2, "D": 2, "sigma2_post": 2},
    ),
)
