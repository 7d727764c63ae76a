"""The claim that the effects of several parts in low precision multiply: N_eff = N f(P_w) f(P_a) f(P_kv).

Sec. 4.2 of Kumar et al. 2024 (arXiv 2411.04330). It is tested on models that have each of their parts alone in low
precision beside all of them together, so that no law has to say what one part costs.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.claims.training import APART, EACH_ALONE, PER_TENSOR, TENSOR, costs, neff, r2
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ENDS
from analysis.report.evidence.numbers import Number, attempt, mean, of_logs
from analysis.report.evidence.rules import Measured, Rule, within
from analysis.report.evidence.tables import Rows, Tables

FACTORIAL = Rows(studies=("factorial",))
R2_PRODUCT, R2_JOINT = 0.8973, 0.9006  # the paper's
MODEL = ("N", "D", "cluster")  # runs of one size, token count and seed


def product(tables: Tables) -> Finding:
    joint = neff(tables)
    apart = tables.fit(joint.law.name, APART)
    several = together(costs(tables, FACTORIAL))
    T = term_in_N(several, apart)
    several = several.assign(product=multiplied(several, T), added=several["alone"].map(sum))
    scaled = {f"the same with {name}": over_measured(multiplied(several, scale * T), several) for name, scale in SCALES}
    return Finding(
        numbers={"ratio": over_measured(several["product"], several)},
        shown={
            **scaled,
            "the costs of single parts added, over measured": over_measured(several["added"], several),
            **_of_other_runs(tables, joint, apart),
        },
        figure=lambda: drawings.multiplied(several),
        caption="What two or three parts at once cost, against what follows from each alone in the same model.",
    )


SCALES = (("half that T", 0.5), ("twice that T", 2.0))
"""T is known poorly, so that these stand beside it."""


def together(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with several parts in low precision whose model has each of these alone: MODEL, `gap_qat` and, in `alone`,
    what each costs.

    Raises:
        InputError: there is none.
    """
    complete = []
    for _, model in runs.groupby(list(MODEL)):
        alone = {part: shared.alone(model, part).groupby(part)["gap_qat"].mean() for part in PARTS}
        for run in model.to_dict("records"):
            low = [part for part in PARTS if run[part] < FULL_BITS]
            if len(low) > 1 and all(run[part] in alone[part] for part in low):
                complete.append({**run, "alone": [float(alone[part][run[part]]) for part in low]})
    if not complete:
        raise InputError("no model with two parts in low precision and each of them alone")
    return pd.DataFrame(complete)


def term_in_N(several: pd.DataFrame, fit: Fit) -> np.ndarray:
    """T = A N^-alpha of a law of the loss, in nats: what of the loss falls with N."""
    c = shared.constants(fit)
    return c["A"] * several["N"].to_numpy(float) ** -c["alpha"]


def multiplied(several: pd.DataFrame, T: np.ndarray) -> np.ndarray:
    """What runs cost, in nats, if their parts multiply: T (prod(1 + c/T) - 1).

    A part that leaves the share s of N costs c = T (s^-alpha - 1) alone, and several leave the product of their shares:
    alpha drops out.
    """
    shares = [np.prod([1 + c / t for c in alone]) for alone, t in zip(several["alone"], T, strict=True)]
    return T * (np.array(shares) - 1)


def over_measured(predicted: Sequence[float], several: pd.DataFrame) -> Number:
    """Predicted over measured cost, each summed over the runs of a model; geometric mean over models."""
    return of_logs(attempt(logs, predicted, several))


def logs(predicted: Sequence[float], several: pd.DataFrame) -> Number:
    """
    Raises:
        InputError: no model has costs above zero.
    """
    sums = several.assign(predicted=np.asarray(predicted, float)).groupby(list(MODEL))[["predicted", "gap_qat"]].sum()
    sums = sums[(sums > 0).all(axis=1)]
    return mean(np.log(sums["predicted"] / sums["gap_qat"]), what="models")


def _of_other_runs(tables: Tables, joint: Fit, apart: Fit) -> dict[str, Number]:
    """How well the law of single parts predicts the runs of `joint`, beside the paper's R2."""
    if not tables.has("joint"):
        return {}
    rows = shared.trained(tables.rows(TENSOR))
    rows = rows[((rows[list(PARTS)] < FULL_BITS).sum(axis=1) > 1).to_numpy()].reset_index(drop=True)
    return {
        "R2 of the loss of `joint`, laws of single parts multiplied": Number.plain(
            r2(rows["loss"], apart.predict(rows)), paper=R2_PRODUCT
        ),
        "R2 of the joint fit on the same runs": Number.plain(r2(rows["loss"], joint.predict(rows)), paper=R2_JOINT),
    }


CLAIMS = (
    Claim(
        key="product",
        title="The effects of weights, activations and KV cache multiply",
        source=f"{PAPER}, Sec. 4.2, Fig. 5 (R2 0.897 of the product, 0.901 of the joint fit)",
        statement="Parts in low precision leave the product of the shares of N that each leaves alone.",
        how="Study `factorial`: all eight combinations of 16 and 4 bits of the three parts, from one seed. What each "
        "part costs alone gives its share of N, their product what several cost: T (prod(1 + c/T) - 1), with "
        "T = A N^-alpha of the N_eff law on runs with one part in low precision.",
        rule=Rule.of(
            within("ratio", "predicted over measured cost of several parts", 0.8, 1.25),
            measured=Measured(
                estimator="costs summed over the runs of a model with several parts in low precision; mean of the "
                "logarithm of the ratio, Student's t",
                filter=f"{PER_TENSOR}; {ENDS}",
                weights="models (size and seed) alike",
            ),
        ),
        needs=(("factorial",), *EACH_ALONE),
        beside=("joint", "overtraining"),
        repeated=("factorial",),
        measure=product,
    ),
)
