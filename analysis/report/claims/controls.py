"""Claims of another kind: whether the results depend on text, learning rate or arithmetic, and how far single runs can
be trusted.
"""

import functools
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.claims.formats import SLOPE
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ENDS, GAP_VARIANCE, LOGS, gap_law, paired
from analysis.report.evidence.numbers import (
    Number,
    attempt,
    difference,
    log_slope,
    mean,
    mean_or_by_size,
    of_slope,
    quotient,
    slope_of,
    spread,
)
from analysis.report.evidence.rules import Measured, Rule, above, within
from analysis.report.evidence.tables import (
    CLEAR_WIDTHS,
    Rows,
    Tables,
    at_common_cells,
    at_widths,
    ends,
    log_gaps,
)

SAME = {"loss": 0.005, "gap": 0.05, "rate": 0.1, "corpus": 1.5}
ROUND_TWO = 6  # the first seed of `dtype` that was chosen after the claim had a rule
PYTHON, ENGLISH = Rows(studies=("overtraining",)), Rows(studies=("corpus",))


def corpus(tables: Tables) -> Finding:
    apart = {"English": tables.rows(ENGLISH), "Python": tables.rows(PYTHON)}
    texts = at_common_cells({text: log_gaps(rows) for text, rows in apart.items()})
    slopes = {text: attempt(_slope_at_cells, rows) for text, rows in texts.items()}
    english, python = slopes.values()
    whole = at_common_cells({text: at_widths(rows, CLEAR_WIDTHS) for text, rows in apart.items()})
    cut = [attempt(slope_of, "kumar_ptq", rows, bits=CLEAR_WIDTHS) for rows in whole.values()]
    names = ", ".join(sorted(tables.frames["corpus"]["corpus"].astype(str).unique()))
    return Finding(
        numbers={"english": english, "ratio": quotient(english, python)},
        shown={
            "slope on Python, the same cells": python,
            "English less Python": difference(english, python),
            "ln delta_PTQ on English less that on Python, the same cells": attempt(_less_at_cells, *texts.values()),
            f"the ratio, each text cut by its own law at {ENGLISH.gap_below:g} nats": quotient(*cut),
        },
        notes=(
            f"Corpora of the study: {names}. A law fitted to each text cuts them differently: gaps on English are "
            "smaller, so that 3-bit rows of longer runs stay in on English and not on Python.",
        ),
        figure=lambda: drawings.forest({SLOPE: slopes}, {"no slope": 0.0}),
        caption="Growth with D at 3 and 4 bits on both texts.",
    )


def _slope_at_cells(rows: pd.DataFrame) -> Number:
    """The slope of rows that are compared with others at the same cells: no law takes rows away from one of them."""
    return slope_of("kumar_ptq", rows, bits=CLEAR_WIDTHS, gap_below=math.inf)


def _less_at_cells(one: pd.DataFrame, other: pd.DataFrame) -> Number:
    """The mean difference of ln gaps over sizes and token counts, widths counting alike."""
    means = [rows.groupby(["N", "tokens", "P_post"])["log"].mean() for rows in (one, other)]
    return mean((means[0] - means[1]).groupby(["N", "tokens"]).mean(), what="sizes and token counts")


def seeds(tables: Tables) -> Finding:
    """By gamma_D of the law, whose interval holds the scatter between sizes."""
    return _seeds(tables, tables.parameter("kumar_ptq", PYTHON, "gamma_D"))


def seeds_by_slope(tables: Tables) -> Finding:
    """By the slope within sizes and widths: a narrower interval, which holds no scatter that models of one size, or all
    models at one D, have in common."""
    return _seeds(tables, attempt(lambda: of_slope(tables.slopes("kumar_ptq", PYTHON).together.constant)))


def _seeds(tables: Tables, slope: Number) -> Finding:
    tables.need("overtraining")
    scatter = tables.scatter()
    growth = slope.scaled(math.log(2))
    gap = spread(scatter.gap, scatter.freedom)
    return Finding(
        numbers={"octave": quotient(growth, gap)},
        shown={
            "sd of ln loss between seeds": spread(scatter.loss, scatter.freedom),
            "sd of ln delta_PTQ at 3 and 4 bits between seeds": gap,
            "rise of ln delta_PTQ in an octave of D": growth,
        },
        figure=lambda: drawings.spread_of_seeds(
            log_gaps(tables.rows(Rows(studies=("seeds",) if tables.has("seeds") else ("overtraining",))))
        ),
        caption="Gaps of runs that differ in their seeds alone.",
    )


def learning_rate(tables: Tables) -> Finding:
    selected = Rows(studies=("learning_rate",))
    frame = tables.rows(selected)
    base = ends(frame[frame["ptq"].isna()])
    lines = []
    for (size, tokens), group in base.groupby(["N", "tokens"]):
        means = group.groupby("lr_peak")["loss"].mean()
        best = means.idxmin()
        edge = "" if means.index[0] < best < means.index[-1] or len(means) < 3 else " (at the edge)"
        lines.append(
            {
                "N": magnitude(size),
                "D": magnitude(tokens),
                "best rate tried": f"{best:g}{edge}",
                "by a parabola in ln rate": _vertex(means),
                "rate: loss": ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in means.items()),
            }
        )
    rows = log_gaps(tables.rows(selected))
    cells = rows.groupby(["N", "tokens"])
    slopes = [
        {"cell": cell, "N": cell[0], "slope": log_slope(part, "lr_peak", "log", "P_post")} for cell, part in cells
    ]
    averaged = functools.partial(mean, what="sizes and token counts")
    return Finding(
        numbers={"slope": mean_or_by_size(pd.DataFrame(slopes), "slope", "cell", mean_of=averaged)},
        grids=(Grid.of(lines, "The peak learning rate with the lowest loss, by size and tokens."),),
        figure=lambda: FIGURES["learning_rates"](frame, {}),
        caption="Loss, and the gap at 3 bits, against the peak learning rate, by N and D.",
    )


def _vertex(means: pd.Series) -> str:
    """Where a parabola through the lowest loss and its neighbours is lowest."""
    place = int(np.argmin(means))
    if not 0 < place < len(means) - 1:
        return "-"
    part = means.iloc[place - 1 : place + 2]
    a, b, _ = np.polyfit(np.log(part.index), part.to_numpy(float), 2)
    return f"{math.exp(-b / (2 * a)):.2g}"


def dtype(tables: Tables) -> Finding:
    frame = tables.rows(Rows(studies=("dtype",), where=f"seed_init >= {ROUND_TWO}"))
    dtypes = sorted(frame["dtype"].dropna().unique())
    if len(dtypes) != 2:
        raise InputError(f"expected runs in two dtypes, found {', '.join(dtypes)}")
    keys = ["N", "tokens", "seed_init", "seed_data"]
    base = ends(frame[frame["ptq"].isna()]).pivot_table(index=keys, columns="dtype", values="loss").dropna()
    gaps = log_gaps(frame).pivot_table(index=[*keys, "P_post"], columns="dtype", values="log").dropna()
    one, other = dtypes
    less = {"loss": base[one] - base[other], "gap": (gaps[one] - gaps[other]).groupby(keys).mean()}
    numbers = {
        name: mean_or_by_size(
            pairs.rename("less").reset_index().assign(cell=range(len(pairs))),
            "less",
            "cell",
            mean_of=functools.partial(mean, unit="nats" if name == "loss" else "", what="pairs"),
        )
        for name, pairs in less.items()
    }
    names = {"loss (nats)": numbers["loss"], "ln delta_PTQ": numbers["gap"]}
    return Finding(
        numbers=numbers,
        reading=f"{one} less {other}.",
        figure=lambda: drawings.forest(
            {k: {f"{one} less {other}": v} for k, v in names.items()}, {"no difference": 0.0}
        ),
        caption="What the arithmetic of matmuls changes, paired by seed.",
    )


CLAIMS = (
    Claim(
        key="corpus",
        title="English prose gives the same growth as Python code",
        source=f"{PAPER} (one corpus, Dolma; C4 in Fig. 8)",
        statement="The law is not one of a corpus.",
        how="Study `corpus`: English prose at sizes and token counts of `overtraining`; the slope of ln delta_PTQ in "
        f"ln D at 3 and 4 bits on both, alike within a factor of {SAME['corpus']:g}.",
        rule=Rule.of(
            above("english", "the slope on English"),
            within("ratio", "that slope over the one on Python", 1 / SAME["corpus"], SAME["corpus"]),
            measured=Measured(
                estimator="slope of gaps by least squares, each model left out in turn",
                filter=f"rounded to nearest, a scale a channel; {LOGS}, at the sizes, token counts and widths where "
                "both texts have them (each text cut by a law of its own before the data were seen)",
                weights=GAP_VARIANCE,
            ),
        ),
        needs=(("corpus",), ("overtraining",)),
        measure=corpus,
    ),
    Claim(
        key="seeds",
        title="Single runs show the growth",
        source=f"{PAPER}, Figs. 1 and 2 (single runs, no errors)",
        statement="One run a cell is enough to see how the gap depends on N, D and bits.",
        how="Study `seeds` (or the repeated cells of `overtraining`): what one octave of D adds to ln delta_PTQ, "
        "over the standard deviation of ln delta_PTQ between seeds at 3 and 4 bits.",
        rule=Rule.of(
            above("octave", "an octave's rise over the scatter between seeds", 1.0),
            measured=gap_law(PYTHON, more="; over the pooled standard deviation of ln gaps at 3 and 4 bits"),
        ),
        needs=(("seeds", "overtraining"),),
        measure=seeds,
        again={"the slope within sizes (after the data were seen) in place of gamma_D": seeds_by_slope},
    ),
    Claim(
        key="rate",
        title="The learning rate does not matter to the gap",
        source=f"{PAPER}, Appendix A, Fig. 8 (trends robust to hyperparameters); against it Catalan-Tatjer et al., "
        "arXiv 2510.06213",
        statement="The law of the gap knows no learning rate.",
        how="Study `learning_rate`: the slope of ln delta_PTQ at 3 and 4 bits in ln of the peak rate at equal N and "
        f"D; sizes and token counts are the units, and {SAME['rate']:g} is as good as none.",
        rule=Rule.of(
            within("slope", "the slope of ln delta_PTQ in ln rate", -SAME["rate"], SAME["rate"]),
            measured=paired("slope by least squares in each cell, mean over cells, Student's t", LOGS, "cells"),
        ),
        needs=(("learning_rate",),),
        measure=learning_rate,
    ),
    Claim(
        key="dtype",
        title="Matmuls in bf16 change neither loss nor gap",
        source="this project, whose other studies use bf16 matmuls",
        statement="The precision of the matmuls that training is simulated with is not part of the result.",
        how="Study `dtype`: the same runs with float32 and with bf16 matmuls, paired by seed. Seeds from "
        f"{ROUND_TWO} on decide alone: with those before them the claim was open, and their number was stated then.",
        rule=Rule.of(
            within("loss", "the difference of losses in nats", -SAME["loss"], SAME["loss"]),
            within("gap", "the difference of ln delta_PTQ at 3 and 4 bits", -SAME["gap"], SAME["gap"]),
            measured=paired("mean of paired differences, Student's t", f"{ENDS}; {LOGS}"),
        ),
        needs=(("dtype",),),
        measure=dtype,
    ),
)
