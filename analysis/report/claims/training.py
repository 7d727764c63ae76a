"""Claims about training in low precision: it acts as fewer parameters, whatever D, some parts more than others.

Sec. 4.1 and Appendices I, L and M of Kumar et al. 2024 (arXiv 2411.04330). Costs are gap_qat: the loss minus
that of the unquantized run with the same everything else, paired over windows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.registry import FIGURES
from analysis.fitting.fit import Fit
from analysis.laws.formulas import effective_share, paper_constants, training_loss
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.claims.tokens import fit_notes
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ALIKE, ENDS, paired
from analysis.report.evidence.numbers import Number, attempt, mean, mean_or_by_size, of_fit
from analysis.report.evidence.rules import Measured, Rule, above, at_least, published, within
from analysis.report.evidence.tables import Rows, Tables

ALONE = ("weights", "activations", "attention")
EACH_ALONE = tuple((study,) for study in ALONE)  # as `needs` of a claim: all of them
TRAINED = Rows(studies=(*ALONE, "joint"))
# Bits at which each part's cost is asked for: the paper's runs below that diverge.
LOWEST = {"P_w": 3, "P_a": 4, "P_kv": 4}
MIDDLE = 6
EQUAL = 4  # bits at which parts are compared
NO_GROWTH = 0.1  # slope in ln D within which a cost is called the same at every D
PER_TENSOR = "weights per channel, activations and KV cache per tensor"
GROWTH_OF_COSTS = paired(
    "slope of ln cost from the least to the most tokens of each size, part and width; mean over parts, Student's t",
    f"{PER_TENSOR}, {EQUAL} bits or fewer, costs above 0",
    "parts",
)


def scaled_by(grain: str) -> str:
    """The condition on rows with weights per channel, activations and KV cache at this granularity."""
    each = (("w", "channel"), ("a", grain), ("kv", grain))
    return " and ".join(f"(P_{part} >= {FULL_BITS:g} or granularity_{part} == '{own}')" for part, own in each)


TENSOR = dataclasses.replace(TRAINED, where=scaled_by("tensor"))  # as in the paper
WITH_BASE = dataclasses.replace(TENSOR, studies=(*TRAINED.studies, "overtraining"))  # for its runs in 16 bits
LOW = " + ".join(f"(P_{part} < {FULL_BITS:g}) * 1" for part in ("w", "a", "kv"))
APART = dataclasses.replace(WITH_BASE, where=f"{TENSOR.where} and {LOW} <= 1")  # one part at a time
TOKEN = dataclasses.replace(TRAINED, where=scaled_by("token"))


def costs(tables: Tables, rows: Rows = TENSOR) -> pd.DataFrame:
    """Runs in low precision with gap_qat and the `cell` in which they are paired.

    Raises:
        InputError: there is none.
    """
    frame = shared.qat_gaps(shared.trained(tables.rows(rows)))
    if frame.empty:
        raise InputError("no run in low precision beside an unquantized one of its kind")
    # Paired are runs of one size, token count and seed.
    return frame.assign(cell=frame["cluster"].astype(str) + " " + frame["D"].astype(str))


def at_width(rows: pd.DataFrame, part: str, bits: float) -> pd.Series:
    """The cost of that part alone at that width, by cell."""
    alone = shared.alone(rows, part)
    return alone[alone[part] == bits].groupby("cell")["gap_qat"].mean()


def mean_cost(costs: pd.Series) -> Number:
    return attempt(mean, costs, unit="nats", what="models")


def mean_less(runs: pd.DataFrame, one: pd.Series, other: pd.Series) -> Number:
    """The mean over cells of one cost less another, or that of each N."""
    less = (one - other).dropna().rename("less")
    frame = less.to_frame().assign(N=runs.groupby("cell")["N"].first()).reset_index()
    averaged = functools.partial(mean, unit="nats", what="models")
    return attempt(mean_or_by_size, frame, "less", "cell", mean_of=averaged)


def neff(tables: Tables) -> Fit:
    """The N_eff law on runs with a part or several in low precision, per tensor, and all unquantized ones.

    Raises:
        InputError: it cannot be fitted.
    """
    return tables.first_fit(LOW_LAWS, WITH_BASE)


def capacity(tables: Tables) -> Finding:
    rows, fits = costs(tables), tables.fits_of(neff)
    numbers, shown, notes = {}, {}, ()
    for part, bits in LOWEST.items():
        low, middle = at_width(rows, part, bits), at_width(rows, part, MIDDLE)
        numbers |= {part: mean_cost(low), f"{part} falls": mean_cost(low - middle)}
    numbers["r2"] = attempt(lambda: Number.plain(_r2_of_costs(rows, neff(tables))))
    for fit in fits.values():
        notes = fit_notes(fit)
        shown = {s: of_fit(fit, s) for pair in PARTS.values() for s in pair if s in fit.params}
        for bits in (3, 6, 8):
            shown |= {f"N_eff/N at {bits} bits of {shared.NAMES[part]}": _share(fit, part, bits) for part in PARTS}
        numbers |= {f"{part} share": _share(fit, part, EQUAL) for part in PARTS}
    return Finding(
        numbers=numbers,
        shown=shown,
        notes=notes,
        figure=lambda: FIGURES["capacity"](tables.rows(TENSOR), fits),
        caption="The share of N that low precision leaves; points by Eq. 30 with the fitted A and alpha.",
    )


def _share(fit: Fit, part: str, bits: float) -> Number:
    """f(P) of one part, relative to 16 bits."""
    if part not in fit.law.variables:
        return Number.none(f"the fitted law does not know {part}")

    def share(constants) -> np.ndarray:
        return effective_share(constants, {part: np.array([bits])}) / effective_share(constants, {part: FULL_BITS})

    number = drawn_number(fit, share, note="draws of the fit")
    return dataclasses.replace(number, low=max(number.low, 0.0))


def drawn_number(fit: Fit, measure: Callable[[Mapping], np.ndarray], *, note: str, unit: str = "") -> Number:
    """What `measure` (1,) makes of a fit's constants, with an interval from its draws, beside the paper's constants."""
    value, paper = (float(np.ravel(measure(c))[0]) for c in (shared.constants(fit), paper_constants()))
    paper = None if math.isnan(paper) else paper
    if math.isnan(value):
        return Number(value=math.nan, note="the law leaves no effective parameters there", paper=paper)
    ends = shared.band(fit, measure)
    low, high = (math.nan, math.nan) if ends is None else (float(np.ravel(end)[0]) for end in ends)
    return Number(value=value, low=low, high=high, paper=paper, note=note, unit=unit)


def predicted_costs(rows: pd.DataFrame, fit: Fit, c: Mapping | None = None) -> np.ndarray:
    """What the law, with its own constants or with `c`, says low precision costs each run."""
    c = shared.constants(fit) if c is None else c
    widths = {part: rows[part].to_numpy(float) for part in PARTS if part in fit.law.variables}
    N, D = rows["N"].to_numpy(float), rows["D"].to_numpy(float)
    return training_loss(c, N, D, widths) - training_loss(c, N, D)


def _r2_of_costs(rows: pd.DataFrame, fit: Fit) -> float:
    known = rows[[p for p in PARTS if p not in fit.law.variables]]
    rows = rows[(known >= FULL_BITS).all(axis=1)]
    return r2(rows["gap_qat"], predicted_costs(rows, fit))


def same_at_every_D(tables: Tables) -> Finding:
    slopes = slopes_of(costs(tables))
    return Finding(
        numbers={"slope": growth_of_costs(slopes)},
        shown={
            f"the same of {shared.NAMES[part]} alone, mean of {len(group)} widths": Number(value=group["slope"].mean())
            for part, group in slopes.groupby("part", sort=False)
        },
        figure=lambda: FIGURES["part_sweeps"](tables.rows(TENSOR), tables.fits_of(neff)),
        caption="What low precision of each part costs, token counts side by side; lines are the N_eff law.",
    )


def growth_of_costs(slopes: pd.DataFrame) -> Number:
    """The mean of `slopes_of`. Widths of one part rest on the same unquantized runs, so parts are the units,
    of which there are no more."""
    return dataclasses.replace(mean(slopes.groupby("part")["slope"].mean(), paper=0.0, what="parts"), units=0)


def slopes_of(rows: pd.DataFrame) -> pd.DataFrame:
    """d ln cost / d ln D between the least and the most tokens of one N, for each part and width up to EQUAL bits."""
    slopes = []
    for part in PARTS:
        alone = shared.alone(rows, part)
        for (size, bits), group in alone[alone[part] <= EQUAL].groupby(["N", part]):
            means = group.groupby("D")["gap_qat"].mean()
            if len(means) > 1 and means.iloc[[0, -1]].gt(0).all():
                rise = np.log(means.iloc[-1] / means.iloc[0]) / np.log(means.index[-1] / means.index[0])
                slopes.append({"part": part, "N": size, "bits": bits, "slope": float(rise)})
    if not slopes:
        raise InputError("no N was trained in low precision at two token counts")
    return pd.DataFrame(slopes)


def order(tables: Tables, rows: Rows = TENSOR) -> Finding:
    """What EQUAL bits of one part cost more than those of another, paired, and what those of each part cost."""
    runs = costs(tables, rows)
    cost = {part: at_width(runs, part, EQUAL) for part in PARTS}
    pairs = {"a-w": ("P_a", "P_w"), "w-kv": ("P_w", "P_kv")}
    named = {shared.NAMES[part]: mean_cost(each) for part, each in cost.items()}
    return Finding(
        numbers={name: mean_less(runs, cost[one], cost[other]) for name, (one, other) in pairs.items()},
        shown={f"cost of {EQUAL}-bit {name}": number for name, number in named.items()},
        figure=lambda: drawings.forest({f"cost of {EQUAL} bits (nats)": named}, {"no cost": 0.0}),
        caption="What low precision of one part costs, mean over models.",
    )


def fine_order(tables: Tables) -> Finding:
    return dataclasses.replace(
        order(tables, TOKEN),
        figure=lambda: FIGURES["granularity"](tables.rows(TRAINED), {}),
        caption="What low precision costs by granularity of the scales.",
    )


def r2(measured: pd.Series, predicted: np.ndarray) -> float:
    known = np.isfinite(predicted)
    return shared.r2(measured[known], predicted[known])


CLAIMS = (
    Claim(
        key="capacity",
        title="Training in low precision acts as fewer parameters",
        source=f"{PAPER}, Sec. 4, Eqs. 3 and 4, Finding 2, Fig. 3, Table 2, Appendix K",
        statement="Each part at P bits leaves a share `f(P) = 1 - exp(-P/gamma + n)` of the parameters: `N_eff = N "
        "f(P_w) f(P_a) f(P_kv)`.",
        how="Studies `weights`, `activations`, `attention`: one part at a time in low precision, integers, weights "
        "per channel, activations and KV cache per tensor, each run beside its unquantized twin. Costs first; gamma "
        "and n come from a fit of the loss, runs of `overtraining` in 16 bits among them; E is not identified well at "
        "this scale.",
        rule=Rule.of(
            *(above(p, f"the cost of {b}-bit {shared.NAMES[p]}") for p, b in LOWEST.items()),
            *(
                above(f"{p} falls", f"the cost of {b}-bit {shared.NAMES[p]} less that of {MIDDLE}-bit ones")
                for p, b in LOWEST.items()
            ),
            at_least("r2", "R2 of the costs by the N_eff law", 0.8),
            measured=Measured(
                estimator="costs: mean of paired differences, Student's t; shares: the N_eff law by Huber's function "
                "of ln(prediction / loss), draws of the fit",
                filter=f"{PER_TENSOR}; {ENDS}",
                weights=f"pairs and runs {ALIKE}",
            ),
            published=tuple(
                published(f"{part} share", f"N_eff/N at {EQUAL} bits of {shared.NAMES[part]}") for part in PARTS
            ),
        ),
        needs=EACH_ALONE,
        beside=("joint", "overtraining"),
        measure=capacity,
    ),
    Claim(
        key="no-D",
        title="The share of parameters that is left is the same at every D",
        source=f"{PAPER}, Eq. 3; against it Chen et al. (arXiv 2505.14302), where the cost grows as D^0.03 to D^0.16",
        statement="f(P) knows neither N nor D, so that low precision costs the same loss however many tokens follow.",
        how="The same studies: how the cost of one part at 4 bits or fewer changes from the least to the most tokens "
        "at one N, as d ln cost / d ln D, mean over widths; parts are the units.",
        rule=Rule.of(within("slope", "the slope of ln cost in ln D", -NO_GROWTH, NO_GROWTH), measured=GROWTH_OF_COSTS),
        needs=EACH_ALONE,
        measure=same_at_every_D,
    ),
    Claim(
        key="order",
        title="Activations are the most sensitive part, the KV cache the least",
        source=f"{PAPER}, Fig. 3 left, Appendix L",
        statement="In the paper's setting (weights per channel, activations and KV cache per tensor) activations "
        "lose most at equal bits and the KV cache is insensitive down to 4 or 5 bits.",
        how=f"The same studies at {EQUAL} bits, paired by size, tokens and seed.",
        rule=Rule.of(
            above("a-w", f"the cost of {EQUAL}-bit activations less that of weights"),
            above("w-kv", f"the cost of {EQUAL}-bit weights less that of the KV cache"),
            measured=paired("mean of paired differences, Student's t", f"{PER_TENSOR}, {EQUAL} bits; {ENDS}"),
        ),
        needs=EACH_ALONE,
        measure=order,
    ),
    Claim(
        key="fine-order",
        title="Activations are the most sensitive part at equal granularity, too",
        source=f"{PAPER}, Appendix I, Fig. 13",
        statement="Activations are more sensitive at equal granularity, too.",
        how="The same, with one scale a token for activations and KV cache (which also cannot look at other tokens).",
        rule=Rule.of(
            above("a-w", f"the cost of {EQUAL}-bit activations per token less that of weights per channel"),
            measured=paired("mean of paired differences, Student's t", f"scales a token, {EQUAL} bits; {ENDS}"),
        ),
        needs=(("weights",), ("activations",)),
        measure=fine_order,
    ),
)
