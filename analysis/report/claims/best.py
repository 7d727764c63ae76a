"""Claims about the best precision: at equal N P 7 to 8 bits, whatever the compute; and about robustness.

Secs. 4.3 and 5 of Kumar et al. 2024 (arXiv 2411.04330).
"""

import dataclasses
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.after_training.effective_size import same_rows
from analysis.figures.after_training.predicted_gap import usable
from analysis.figures.registry import FIGURES
from analysis.figures.style import Drawn, magnitude
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.optima import best_bits
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.claims.tokens import fit_notes
from analysis.report.claims.training import (
    EACH_ALONE,
    GROWTH_OF_COSTS,
    NO_GROWTH,
    PER_TENSOR,
    TRAINED,
    costs,
    drawn_number,
    growth_of_costs,
    neff,
    slopes_of,
)
from analysis.report.document.blocks import Grid
from analysis.report.evidence import predictions
from analysis.report.evidence.measured import ALIKE, GAP_VARIANCE, GEOMETRIC, loss_law
from analysis.report.evidence.numbers import Number, attempt, geometric_mean_or_by_size, left_out, summed
from analysis.report.evidence.rules import Flag, Measured, Rule, above, at_least, below, published, within
from analysis.report.evidence.tables import Rows, Tables, ends

MATCHED = Rows(studies=("matched",))
BEST = (6.0, 9.0)  # bits that "7 to 8" leaves room for
ROBUST = Rows(studies=("robustness", "weights"))
FACTOR = 1.25  # by which the unified law may be off where it matters most
UNIFIED, PLAIN = "kumar_unified", "kumar_unified_n"


def best(tables: Tables) -> Finding:
    groups, fits, star = _budgets(tables), tables.fits_of(neff), attempt(_star, tables)
    if not groups:
        rows = MATCHED if tables.has("matched") else TRAINED
        return Finding(
            numbers={"star": star, "winner": Number.none("the table `matched` is missing")},
            figure=lambda: FIGURES["optimal_precision"](tables.rows(rows), fits),
            caption="The best bits in training.",
        )
    return Finding(
        numbers={"star": star, "winner": attempt(_margin, tables, groups[0])},
        grids=(*(_matched_grid(tables, group) for group in groups), *predictions.beside(tables, "matched")),
        figure=lambda: FIGURES["matched"](tables.rows(MATCHED), fits),
        caption="Runs of equal N P and D, and what the fitted law predicts of them.",
    )


def _star(tables: Tables) -> Number:
    """P* = argmax F(P)/P with all parts at P bits, from the fitted law (Eq. 7)."""
    fit = neff(tables)
    if not {*PARTS} <= {*fit.law.variables}:
        raise InputError(f"{fit.law.name} knows {', '.join(p for p in PARTS if p in fit.law.variables)} only")
    star = drawn_number(fit, lambda c: np.reshape(best_bits(c), (-1, 1)), unit="bits", note="draws of the N_eff fit")
    return dataclasses.replace(star, low=np.clip(star.low, 1.0, FULL_BITS), high=np.clip(star.high, 1.0, FULL_BITS))


def _budgets(tables: Tables) -> list[pd.DataFrame]:
    """Runs whose parts all have one width, by D and N P, those with the most widths first; empty without the study."""
    if not tables.has("matched"):
        return []
    runs = shared.tied(shared.trained(tables.rows(MATCHED)))
    runs = runs.assign(memory=nominal_memory(runs["N"] * runs["P_w"]))
    groups = [group for _, group in runs.groupby(["D", "memory"]) if group["P_w"].nunique() > 1]
    return sorted(groups, key=lambda g: (-g["P_w"].nunique(), -len(g)))


def nominal_memory(values: pd.Series) -> pd.Series:
    """N P in steps of a tenth, from the smallest of each: sizes come in whole layers."""
    sizes, names, start = np.sort(values.unique()), {}, None
    for value in sizes:
        start = value if start is None or value > 1.1 * start else start
        names[value] = start
    return values.map(names)


def _margin(tables: Tables, group: pd.DataFrame) -> Number:
    """The lowest loss of widths outside BEST minus the lowest of those within."""
    means = group.groupby("P_w")["loss"].agg(["mean", "size"])
    near = (means.index >= BEST[0]) & (means.index <= BEST[1])
    if near.all() or not near.any():
        raise InputError(f"expected widths within and outside {BEST[0]:g} to {BEST[1]:g} bits")
    inner, outer = means[near].sort_values("mean").iloc[0], means[~near].sort_values("mean").iloc[0]
    scatter = tables.scatter()
    sd = math.hypot(*(float(scatter.sd(row["mean"])) / math.sqrt(row["size"]) for row in (inner, outer)))
    return scatter.around(outer["mean"] - inner["mean"], sd)


def _matched_grid(tables: Tables, group: pd.DataFrame) -> Grid:
    means = group.groupby("P_w").agg(N=("N", "mean"), loss=("loss", "mean"), runs=("loss", "size")).reset_index()
    at = means.assign(D=group["D"].iloc[0], **{p: means["P_w"] for p in PARTS})
    fits = tables.fits_of(neff).values()
    law = next(([f"{loss:.4f}" for loss in fit.predict(at)] for fit in fits), [""] * len(means))
    memory = magnitude(float((group["N"] * group["P_w"]).mean()))
    return Grid.of(
        [
            {
                "P": f"{r.P_w:g}",
                "N": magnitude(r.N),
                "loss": f"{r.loss:.4f}",
                "predicted by the N_eff law": law[r.Index],
                "runs": f"{r.runs}",
            }
            for r in means.itertuples()
        ],
        f"N P = {memory} bits, D = {magnitude(group['D'].iloc[0])} tokens; losses in nats a token.",
    )


def whatever_compute(tables: Tables) -> Finding:
    groups = _budgets(tables)
    winners = {float(group.groupby("P_w")["loss"].mean().idxmin()) for group in groups}
    several = len(groups) > 1
    return Finding(
        numbers={"slope": attempt(lambda: growth_of_costs(slopes_of(costs(tables))))},
        flags={"winners": "the same" if len(winners) == 1 else "different"} if several else {},
        reading="" if several else f"Budgets with runs of equal N P: {len(groups)}.",
        figure=lambda: FIGURES["optimal_precision"](tables.rows(TRAINED), tables.fits_of(neff)),
        caption="The best bits at fixed N, which do rise with D, and those best jointly with N and D (dashed).",
    )


# ---- robustness ----


def robust(tables: Tables) -> Finding:
    every = _pairs(tables)
    pairs = every[every["P_post"].between(*ROBUST.bits)]
    near, far = pairs[pairs["spare"] <= 1], pairs[pairs["spare"] > 1]
    all_near = every[every["spare"] <= 1]
    by_bits = {f"from {bits + 1:g} to {bits:g} bits": group for bits, group in all_near.groupby("P_post")}
    by_spare = {f"{spare:g} bits below training": group for spare, group in far.groupby("spare")}
    others = {"at all widths": all_near, **by_bits, **by_spare}
    shown = {f"the same {name}": attempt(_over_twins, group) for name, group in others.items()}
    shown["the ratio of sums, which 3 bits rule"] = attempt(left_out, summed("gap", "plain"), near)
    return Finding(
        numbers={"ratio": _over_twins(near)},
        shown=shown,
        figure=lambda: FIGURES["gap_heatmap"](tables.rows(ROBUST), tables.fits_of(unified_fit)),
        caption="The gap by bits in training and after it, measured and by the unified law.",
    )


def _over_twins(pairs: pd.DataFrame) -> Number:
    return geometric_mean_or_by_size(pairs, "gap", "plain")


def _pairs(tables: Tables) -> pd.DataFrame:
    """Gaps of models trained with weights below 16 bits, beside those (`plain`) of their unquantized twins at the same
    width after training; `spare`: bits of training beyond those."""
    rows = ends(shared.alone(tables.rows(ROBUST), "P_w"))
    rows = rows[rows["gap"].notna()]
    low, full = rows[rows["P_w"] < FULL_BITS], rows[rows["P_w"] >= FULL_BITS]
    twins = full[["run_id", "P_post", "gap"]].rename(columns={"run_id": "base_run_id", "gap": "plain"})
    pairs = low.merge(twins, on=["base_run_id", "P_post"]).assign(spare=lambda r: r["P_w"] - r["P_post"])
    pairs = pairs[pairs["spare"] > 0]
    if pairs.empty:
        raise InputError(
            "no model trained with low-precision weights was quantized further beside its unquantized twin"
        )
    return pairs


def unified_fit(tables: Tables) -> Fit:
    return tables.fit(UNIFIED, ROBUST)


def unified(tables: Tables) -> Finding:
    fit, other = unified_fit(tables), tables.fit(PLAIN, ROBUST, draws=0)
    frame = tables.rows(ROBUST)
    rows = same_rows({UNIFIED: usable(frame, fit), PLAIN: usable(frame, other)})
    low = {name: group[group["fitted"] & shared.low(group)] for name, group in rows.items()}
    squares = low[UNIFIED][["cluster"]].assign(**{n: (g["gap"] - g["predicted"]) ** 2 for n, g in low.items()})
    r2 = {name: shared.r2(group["gap"], group["predicted"]) for name, group in low.items()}
    constants = {"C_w": Number.of(fit.intervals["C_w"])} if "C_w" in fit.intervals else {}
    near = low[UNIFIED][low[UNIFIED]["P_w"] - low[UNIFIED]["P_post"] <= 1]
    by_width = {
        f"R2 of those at {bits:g} bits": Number.plain(shared.r2(group["gap"], group["predicted"]))
        for bits, group in low[UNIFIED].groupby("P_post")
        if len(group) > 2
    }
    near_by_width = {
        f"predicted over measured one bit below training, at {bits:g} bits": attempt(
            geometric_mean_or_by_size, group, "predicted", "gap"
        )
        for bits, group in near.groupby("P_post")
    }
    return Finding(
        numbers={
            "near": attempt(geometric_mean_or_by_size, near, "predicted", "gap"),
            "r2": Number.plain(fit.r2, paper=0.90),
            "low": Number.plain(r2[UNIFIED]),
            "n": left_out(lambda rows: float(np.sqrt(rows[PLAIN].sum() / rows[UNIFIED].sum())), squares),
        },
        shown={"R2 of these with N for N_eff": Number.plain(r2[PLAIN]), **by_width, **near_by_width, **constants},
        notes=fit_notes(fit),
        figure=lambda: _taller(FIGURES["effective_size"](frame, {UNIFIED: fit, PLAIN: other})),
        caption="Predicted against measured gaps by the unified law with N and with N_eff.",
    )


def _taller(drawn: Drawn) -> Drawn:
    """With room for titles of two lines."""
    width, height = drawn.figure.get_size_inches()
    drawn.figure.set_size_inches(width, height + 0.4)
    return drawn


CLAIMS = (
    Claim(
        key="matched",
        title="At equal N P, 7 to 8 bits are best",
        source=f"{PAPER}, Sec. 4.3, Eq. 7, Fig. 1 right, Fig. 6",
        statement="Spending a budget of N P on more parameters or on more bits is best at 7 to 8 bits in training; the "
        "published constants with their shifts give 7.00.",
        how="P* is where F(P)/P of the fitted N_eff law is largest; study `matched` has runs of equal N P and D, all "
        f"parts at P bits, and asks whether one of {BEST[0]:g} to {BEST[1]:g} bits has the lowest loss.",
        rule=Rule.of(
            within("star", "P* of the N_eff law", *BEST),
            above("winner", f"the lowest loss outside {BEST[0]:g} to {BEST[1]:g} bits less the lowest within"),
            measured=loss_law("P* of the N_eff law", f"{PER_TENSOR}; the lowest losses of runs of equal N P and D"),
            published=(published("star", "P* of the N_eff law"),),
        ),
        needs=(("matched",), *EACH_ALONE),
        measure=best,
    ),
    Claim(
        key="matched-compute",
        title="The best precision in training does not depend on compute",
        source=f"{PAPER}, Sec. 4.3.2, Eq. 7",
        statement="P* is the same at every budget when N, D and P are chosen together.",
        how="It follows from f(P) that knows neither N nor D: their cost is asked for a slope in D as above. Where "
        "`matched` has several budgets, the same width must win at each.",
        rule=Rule.of(
            within("slope", "the slope of ln cost in ln D", -NO_GROWTH, NO_GROWTH),
            Flag(number="winners", what="the best width of each budget", yes="the same", no="different", lenient=True),
            measured=GROWTH_OF_COSTS,
        ),
        needs=EACH_ALONE,
        beside=("matched",),
        measure=whatever_compute,
    ),
    Claim(
        key="robust",
        title="Training in low precision makes robust to quantization after it",
        source=f"{PAPER}, Sec. 5, Eqs. 8 and 9, Finding 4, Fig. 7",
        statement="A model whose weights were trained with few bits loses less when they are rounded to fewer: the "
        "gap has a factor `1 - exp(-C_w (P_w - P_post))`, against which a smaller N_eff works.",
        how="Study `robustness`: weights at P_w in training, then at P_post below it. The gap one bit below training "
        "over that of the unquantized twin at the same P_post, as the geometric mean over pairs; each width beside it.",
        rule=Rule.of(
            below("ratio", "the gap one bit below training over that of the unquantized twin", 1.0),
            measured=Measured(
                estimator=f"{GEOMETRIC}, each chain left out in turn",
                filter="rounded to nearest, a scale a channel, 3 to 6 bits after training",
                weights=f"pairs {ALIKE}",
            ),
        ),
        needs=(("robustness", "weights"),),
        measure=robust,
    ),
    Claim(
        key="unified",
        title="One law describes bits in training and after it",
        source=f"{PAPER}, Sec. 5, Eq. 9, Fig. 7 (R2 0.90), Fig. 21 (N_eff fits better than N)",
        statement="The gap of any model follows `C_T D^gamma_D / N_eff^gamma_N exp(-P_post/gamma_post)` times the "
        "factors of robustness, with N_eff rather than N.",
        how="The same rows, 3 to 6 bits after training, models trained in 16 bits among them; the law is fitted with "
        "N_eff and with N.",
        rule=Rule.of(
            within("near", "predicted over measured gap one bit below training", 1 / FACTOR, FACTOR),
            at_least("r2", "R2 of all gaps", 0.8),
            at_least("low", "R2 of those of models trained in low precision", 0.5),
            above("n", "the error with N over that with N_eff", 1.0, lenient=True),
            measured=Measured(
                estimator=f"`{UNIFIED}` by least squares on gaps; over measured ones: {GEOMETRIC}, each chain left out "
                "in turn; the status of the fit decides nothing, which changed after the data were seen",
                filter=f"rounded to nearest, {ROBUST.limits}",
                weights=GAP_VARIANCE,
            ),
        ),
        needs=(("robustness", "weights"),),
        measure=unified,
    ),
)
