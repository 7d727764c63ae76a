"""Claims of another kind: whether the results depend on formats, granularity, text, learning rate or arithmetic, and
how far single runs can be trusted.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ENDS, GAP_VARIANCE, LOGS, gap_law, paired
from analysis.report.evidence.numbers import (
    Number,
    attempt,
    difference,
    left_out,
    log_slope,
    log_summed,
    mean,
    of_logs,
    quotient,
    slope_of,
    spread,
)
from analysis.report.evidence.rules import Measured, Rule, above, below, within
from analysis.report.evidence.studies import MODELS
from analysis.report.evidence.tables import CLEAR_WIDTHS, Rows, Tables, ends, full_precision, log_gaps

FORMATS = Rows(studies=("formats", MODELS), granularity=None, family=None)
KINDS = {
    "int4": ("int4", "channel"),
    "e2m1": ("e2m1", "channel"),
    "mxfp4": ("mxfp4", ""),
    "nvfp4": ("nvfp4", ""),
}  # at 4 bits; microscaling formats have blocks of their own
GRAINS = Rows(studies=("granularity", MODELS), granularity=None)
SAME = {"loss": 0.005, "gap": 0.05, "rate": 0.1, "corpus": 1.5}
SLOPE = "slope of ln delta_PTQ in ln D"
PYTHON, ENGLISH = Rows(studies=("overtraining",)), Rows(studies=("corpus",))


# ---- formats and granularity ----


def formats(tables: Tables) -> Finding:
    rows = tables.rows(FORMATS)
    rows = rows[rows["P_post"].isna() | (rows["P_post"] == 4)]
    numbers, lines = {}, []
    base = _at_four(rows, *KINDS["int4"])
    for name, kind in KINDS.items():
        own = _at_four(rows, *kind)
        numbers[name] = attempt(_slope, rows, own)
        more = 8 * (own["bytes"] - base["bytes"].reindex(own.index)).mean() / own["N"].mean()
        line = {"format": f"`{name}`", "models": f"{len(own)}", SLOPE: numbers[name].text}
        line |= {"gap over that of int4": attempt(_paired, own, base).text}
        lines.append({**line, "bits a weight beyond int4": f"{more:+.2f}" if more == more else "-"})
    return Finding(
        numbers=numbers,
        shown={
            "kappa of the law that knows a format by its error, all formats": tables.parameter(
                "gaussian", FORMATS, "kappa"
            ),
            "its R2": attempt(lambda: Number.plain(tables.fit("gaussian", FORMATS).r2)),
            "gamma_w of weights trained in float formats": tables.parameter("kumar_floating_point", FORMATS, "gamma_w"),
        },
        grids=(Grid.of(lines, "All at 4 bits, rounded to nearest; paired by model."), *_in_training(tables)),
        figure=lambda: drawings.forest({SLOPE: numbers}, {"flat": 0.0}),
        caption="How the gap grows with D in each format at 4 bits.",
    )


def _in_training(tables: Tables) -> Iterator[Grid]:
    """What training with weights in each format cost, where the study has such runs."""
    if not tables.has("formats"):
        return
    runs = shared.qat_gaps(shared.alone(shared.trained(tables.pooled(("formats",)), one_way=False), "P_w"))
    lines = [
        {
            "weights": f"`{r.format_w}`",
            "scales": r.granularity_w,
            "N": magnitude(r.N),
            "D": magnitude(r.D),
            "cost of training so (nats)": f"{r.gap_qat:.4f} +- {r.gap_qat_se:.4f}",
        }
        for r in runs.sort_values(["P_w", "gap_qat"]).itertuples()
    ]
    caption = "Loss less that of the unquantized run of the same seed; the error is that of the windows alone."
    if lines:
        yield Grid.of(lines, caption)


def _at_four(rows: pd.DataFrame, name: str, granularity: str) -> pd.DataFrame:
    """Rows of one format, by the model that was quantized."""
    rows = ends(full_precision(rows[rows["format_post"] == name]))
    rows = rows[rows["granularity_post"] == granularity] if granularity else rows
    return rows.drop_duplicates("run_id").set_index("run_id", drop=False)


def _slope(rows: pd.DataFrame, own: pd.DataFrame) -> Number:
    """Slope of ln gap in ln D of one format of 4 bits; the error model is that of a fit to all of them."""
    if own.empty:
        raise InputError("no rows in this format: `python -m scaling.ptq`")
    first = own.iloc[0]
    only = f"format_post == '{first['format_post']}' and granularity_post == '{first['granularity_post']}'"
    return slope_of("gaussian", rows, only=only)


def _paired(own: pd.DataFrame, base: pd.DataFrame) -> Number:
    """The summed gaps over those of the same models."""
    pairs = own[["cluster", "gap"]].assign(base=base["gap"].reindex(own.index)).dropna()
    return of_logs(left_out(log_summed("gap", "base"), pairs))


def granularity(tables: Tables) -> Finding:
    rows = log_gaps(tables.rows(GRAINS))
    wide = rows.pivot_table(index=["cluster", "run_id", "P_post"], columns="granularity_post", values="gap")
    if not {"channel", "block16"} <= set(wide):
        raise InputError("expected gaps per channel and in blocks of 16")
    lines = []
    for grain in wide.columns:
        ratio = Number.plain(1.0) if grain == "channel" else attempt(_over_channel, wide, grain)
        line = {"granularity": f"`{grain}`", "rows": f"{int(wide[grain].notna().sum())}"}
        lines.append({**line, "gap over that per channel": ratio.text})
    blocks = dataclasses.replace(GRAINS, granularity="block16")
    return Finding(
        numbers={
            "ratio": _over_channel(wide, "block16"),
            "gamma_D": tables.parameter("kumar_ptq", blocks, "gamma_D"),
        },
        grids=(Grid.of(lines, "Integers of 3 and 4 bits, paired by model and width."),),
        figure=lambda: FIGURES["quantizers"](tables.rows(GRAINS), {}),
        caption="The gap at 3 and 4 bits by granularity, means over seeds.",
    )


def _over_channel(wide: pd.DataFrame, grain: str) -> Number:
    return of_logs(left_out(log_summed(grain, "channel"), wide[[grain, "channel"]].dropna().reset_index()))


# ---- other text, seeds, rates and arithmetic ----


def corpus(tables: Tables) -> Finding:
    cells = log_gaps(tables.rows(ENGLISH))[["N", "tokens"]].drop_duplicates()
    texts = {
        "English": tables.rows(ENGLISH).merge(cells[["N"]].drop_duplicates(), on="N"),
        "Python": tables.rows(PYTHON).merge(cells, on=["N", "tokens"]),
    }
    slopes = {text: attempt(slope_of, "kumar_ptq", rows, bits=CLEAR_WIDTHS) for text, rows in texts.items()}
    english, python = slopes.values()
    names = ", ".join(sorted(tables.frames["corpus"]["corpus"].astype(str).unique()))
    return Finding(
        numbers={"english": english, "ratio": quotient(english, python)},
        shown={"slope on Python, the same N and D": python, "English less Python": difference(english, python)},
        notes=(f"Corpora of the study: {names}.",),
        figure=lambda: drawings.forest({SLOPE: slopes}, {"flat": 0.0}),
        caption="Growth with D at 3 and 4 bits on both texts.",
    )


def seeds(tables: Tables) -> Finding:
    scatter = tables.scatter()
    growth = attempt(_octave, tables)
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


def _octave(tables: Tables) -> Number:
    """What an octave of D adds to ln delta_PTQ."""
    tables.need("overtraining")
    return tables.parameter("kumar_ptq", PYTHON, "gamma_D").scaled(math.log(2))


def learning_rate(tables: Tables) -> Finding:
    asked = Rows(studies=("learning_rate",))
    frame = tables.rows(asked)
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
    rows = log_gaps(tables.rows(asked))
    slopes = [log_slope(part, "lr_peak", "log", "P_post") for _, part in rows.groupby(["N", "tokens"])]
    return Finding(
        numbers={"slope": mean(slopes, what="sizes and token counts")},
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
    frame = tables.rows(Rows(studies=("dtype",)))
    dtypes = sorted(frame["dtype"].dropna().unique())
    if len(dtypes) != 2:
        raise InputError(f"expected runs in two dtypes, found {', '.join(dtypes)}")
    keys = ["N", "tokens", "seed_init", "seed_data"]
    base = ends(frame[frame["ptq"].isna()]).pivot_table(index=keys, columns="dtype", values="loss").dropna()
    gaps = log_gaps(frame).pivot_table(index=[*keys, "P_post"], columns="dtype", values="log").dropna()
    one, other = dtypes
    logs = (gaps[one] - gaps[other]).groupby(keys).mean()
    numbers = {"loss": mean(base[one] - base[other], unit="nats", what="pairs"), "gap": mean(logs, what="pairs")}
    names = {"loss (nats)": numbers["loss"], "ln delta_PTQ": numbers["gap"]}
    return Finding(
        numbers=numbers,
        reading=f"{one} less {other}.",
        figure=lambda: drawings.forest({k: {f"{one} less {other}": v} for k, v in names.items()}, {"none": 0.0}),
        caption="What the arithmetic of matmuls changes, paired by seed.",
    )


CLAIMS = (
    Claim(
        key="formats",
        title="The growth with D is not one of the integer grid",
        source=f"{PAPER}, Sec. 4.3 and Appendix N (floats follow the same form); its quantization after training is "
        "in integers",
        statement="What holds for integers holds for floating-point and microscaling formats.",
        how="Studies `formats` and `overtraining`: the slope of ln delta_PTQ in ln D at 4 bits in each format.",
        rule=Rule.of(
            *tuple(above(name, f"the slope in {name}") for name in KINDS),
            measured=Measured(
                estimator="slope of gaps by least squares, each model left out in turn",
                filter=f"rounded to nearest, 4 bits, below {FORMATS.gap_below:g} nats of predicted gap",
                weights=GAP_VARIANCE,
            ),
        ),
        needs=(("formats", "overtraining"),),
        measure=formats,
    ),
    Claim(
        key="granularity",
        title="Finer scales lose less, and the growth stays",
        source=f"{PAPER}, Appendix I; Chen et al. (arXiv 2505.14302)",
        statement="Granularity changes how much is lost, not that more tokens lose more.",
        how="Studies `granularity` and `overtraining`: gaps at 3 and 4 bits in blocks of 16 over those per channel, "
        "paired by model, and gamma_D in blocks.",
        rule=Rule.of(
            below("ratio", "the gap in blocks of 16 over that per channel", 1.0),
            above("gamma_D", "gamma_D in blocks of 16"),
            measured=Measured(
                estimator="ratio of sums of paired gaps, each chain left out in turn; gamma_D: `kumar_ptq`",
                filter=LOGS,
                weights="each pair by its gap, as in sums",
            ),
        ),
        needs=(("granularity", "overtraining"),),
        measure=granularity,
    ),
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
                filter=f"rounded to nearest, a scale a channel, 3 and 4 bits, below {ENGLISH.gap_below:g} nats of the "
                "gap that a law fitted to each text predicts",
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
        how="Study `dtype`: the same runs with float32 and with bf16 matmuls, paired by seed.",
        rule=Rule.of(
            within("loss", "the difference of losses in nats", -SAME["loss"], SAME["loss"]),
            within("gap", "the difference of ln delta_PTQ at 3 and 4 bits", -SAME["gap"], SAME["gap"]),
            measured=paired("mean of paired differences, Student's t", f"{ENDS}; {LOGS}"),
        ),
        needs=(("dtype",),),
        measure=dtype,
    ),
)
