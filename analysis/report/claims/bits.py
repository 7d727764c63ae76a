"""Claims about size, bits and quantizers: the gap shrinks with N, grows exponentially as bits fall, for all methods.

Sec. 3 and Appendix F of Kumar et al. 2024 (arXiv 2411.04330). Models trained in 16 bits.
"""

import dataclasses
import functools

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.claims.tokens import LAW, RTN, STUDY, fit_notes, gap_fit
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ALIKE, gap_law
from analysis.report.evidence.numbers import (
    Number,
    attempt,
    left_out,
    log_ratios,
    log_slope,
    mean,
    mean_or_by_size,
    of_fit,
)
from analysis.report.evidence.other_rows import again, changed
from analysis.report.evidence.rules import Measured, Rule, above, published, within
from analysis.report.evidence.tables import Rows, Tables, at_widths

BOTH = dataclasses.replace(RTN, granularity=None)
GAUSSIAN = "gaussian"
METHODS = {"rtn": "RTN", "gptq": "GPTQ", "awq": "AWQ"}
FALL = "fall"  # of ln gap with one bit more, from 3 to 6 bits
STEPS = {f"{bits} to {bits + 1}": (bits, bits + 1) for bits in (3, 4, 5)}
SAME = 0.1  # by how much the logarithm of the factor a bit may differ from one bit to the next


def size(tables: Tables, rows: Rows = RTN) -> Finding:
    fits = (LAW, rows), (LAW, changed(rows, "blocks of 16")), (GAUSSIAN, dataclasses.replace(rows, granularity=None))
    channel, blocks, error = (tables.parameter(*each, "gamma_N") for each in fits)
    settings = {"per channel": channel, "blocks of 16": blocks, "by the format's error": error}
    return Finding(
        numbers={"channel": channel, "block": blocks},
        shown={"gamma_N of the law that knows a format by its error on normal values": error},
        figure=lambda: drawings.forest({"gamma_N": settings}, {"Kumar et al.": channel.paper, "no effect": 0.0}),
        caption="The exponent of N under both granularities, and with the error of the format given for each N.",
    )


def bits(tables: Tables, rows: Rows = RTN) -> Finding:
    fit, wide = gap_fit(tables, rows), _by_width(tables, rows)
    averaged = functools.partial(mean, what="models")
    steps = {name: attempt(mean_or_by_size, wide, name, mean_of=averaged) for name in STEPS}
    bend = {
        later: attempt(mean_or_by_size, wide, f"bend to {later}", mean_of=averaged) for later in ("4 to 5", "5 to 6")
    }
    quadratic = {name: 2 * np.log((2 ** (b - 1) - 1) / (2 ** (a - 1) - 1)) for name, (a, b) in STEPS.items()}
    expected = ", ".join(f"{value:.2f} from {name} bits" for name, value in quadratic.items())
    exponential = 1 / fit.law.published["gamma_post"]
    return Finding(
        numbers={
            "gamma_post": of_fit(fit, "gamma_post"),
            "step_3": steps["3 to 4"],
            "step_4": steps["4 to 5"],
            "bend": bend["4 to 5"],
        },
        shown={
            "logarithm of the factor from 5 to 6 bits": steps["5 to 6"],
            "that from 3 to 4 bits less that from 5 to 6 bits": bend["5 to 6"],
            "what an e-fold of N adds to the fall of ln delta_PTQ with a bit": attempt(
                left_out, lambda models: log_slope(models, "N", FALL), wide
            ),
        },
        grids=(_shape(wide),),
        notes=(
            "The law has no term in P x N: it gives every N one fall of ln delta_PTQ with a bit. The table has one for "
            "each N, and what an e-fold of N adds to it stands below the figure.",
            f"A gap that is quadratic in the step of symmetric integers has logarithms of {expected}; one that is "
            f"exponential with the paper's gamma_post has {exponential:.2f} throughout.",
        ),
        figure=lambda: drawings.steps(steps, quadratic, exponential),
        caption="Logarithm of the factor by which the gap falls with one bit more, over all models.",
    )


def _by_width(tables: Tables, selected: Rows) -> pd.DataFrame:
    """A row a model with its gaps at 3 to 6 bits in columns, and the logarithms of the factors between them, of those
    that lose less than what saturates."""
    rows = at_widths(tables.rows(selected), (3, 4, 5, 6))
    wide = rows.pivot_table(index=["cluster", "run_id", "N"], columns="P_post", values="gap").dropna().reset_index()
    if wide.empty:
        raise InputError("no model was quantized to all of 3, 4, 5 and 6 bits")
    wide = wide[wide[3.0] < selected.gap_below]
    wide = wide.assign(**{name: log_ratios(wide[low], wide[high]) for name, (low, high) in STEPS.items()})
    bends = {f"bend to {later}": wide["3 to 4"] - wide[later] for later in ("4 to 5", "5 to 6")}
    return wide.assign(**bends, **{FALL: wide[list(STEPS)].mean(axis=1)})


def _shape(wide: pd.DataFrame) -> Grid:
    """The shape in bits at each N."""
    heads = {
        **{name: f"from {name} bits" for name in STEPS},
        "bend to 4 to 5": "the first less the second",
        FALL: "fall of ln delta_PTQ with a bit",
    }

    def line(size: float, models: pd.DataFrame) -> dict[str, str]:
        cells = {head: attempt(mean, models[name], what="models").text for name, head in heads.items()}
        return {"N": magnitude(size), "models": f"{len(models)}", **cells}

    lines = [line(size, models) for size, models in wide.groupby("N")]
    return Grid.of(lines, "Logarithms of the factors between widths by N, means over models.")


def error(tables: Tables, rows: Rows = BOTH) -> Finding:
    fit = tables.fit(GAUSSIAN, rows)
    return Finding(
        numbers={"kappa": dataclasses.replace(of_fit(fit, "kappa"), paper=None)},
        shown={
            "R2 of the law": Number.plain(fit.r2),
            "R2 of the paper's law, per channel alone": Number.plain(
                gap_fit(tables, dataclasses.replace(rows, granularity=RTN.granularity)).r2
            ),
        },
        notes=fit_notes(fit),
        figure=lambda: drawings.against_error(tables.rows(rows), fit),
        caption="Gaps over what the law makes of N and D, against the format's error sigma2; the line is the law.",
    )


def quantizers(tables: Tables, usual: Rows = RTN) -> Finding:
    rows = {method: dataclasses.replace(usual, ptq=method) for method in METHODS}
    return Finding(
        numbers={method: tables.parameter(LAW, rows[method], "gamma_D") for method in METHODS},
        shown={
            f"{symbol} by {name}": tables.parameter(LAW, rows[method], symbol)
            for symbol in ("gamma_N", "gamma_post")
            for method, name in METHODS.items()
        },
        figure=lambda: FIGURES["quantizers"](tables.rows(dataclasses.replace(usual, ptq=None)), {}),
        caption="The gap at 3 and 4 bits by quantizer, means over seeds.",
    )


CLAIMS = (
    Claim(
        key="size",
        title="Larger models lose less",
        source=f"{PAPER}, Sec. 3, Eq. 2, Fig. 2",
        statement="At equal D and bits delta_PTQ falls as a power of N; there gamma_N = 0.34.",
        how="Study `overtraining`. With one scale a channel the rounding error itself grows with the fan-in, which "
        "pulls gamma_N down as models get wider; blocks of 16 weights have the same error at every width, and both "
        f"are asked. A third law, `{GAUSSIAN}`, is given the error of each format at each N.",
        rule=Rule.of(
            above("block", "gamma_N with blocks of 16"),
            above("channel", "gamma_N with one scale a channel"),
            measured=gap_law(RTN, how="rounded to nearest, a scale a channel or blocks of 16, integers"),
            published=(
                published("block", "gamma_N with blocks of 16"),
                published("channel", "gamma_N with one scale a channel"),
            ),
        ),
        needs=(STUDY,),
        measure=size,
        again=again(size, RTN, ("4 to 6 bits", "no limit to the gap", "GPTQ", "AWQ")),
    ),
    Claim(
        key="bits",
        title="The gap grows exponentially as bits fall",
        source=f"{PAPER}, Eq. 2 and Table 2 (gamma_post 0.59 bits)",
        statement="Each bit less multiplies delta_PTQ by the same factor, about 5.4.",
        how="Study `overtraining`: the factor between neighbouring widths over all models that lose less than "
        f"{RTN.gap_below:g} nats at 3 bits, paired by model. An exponential has one factor; it may change by {SAME:g} "
        "in its logarithm from one bit to the next.",
        rule=Rule.of(
            above("step_3", "the logarithm of the factor from 3 to 4 bits"),
            above("step_4", "the logarithm of the factor from 4 to 5 bits"),
            within("bend", "the logarithm of the factor from 3 to 4 bits less that from 4 to 5 bits", -SAME, SAME),
            measured=Measured(
                estimator="mean over models of the logarithm of the ratio of gaps at neighbouring widths, Student's t; "
                "at each N where its sign changes with N (ratios of sums, which the largest gaps "
                "rule, before the data were seen)",
                filter="rounded to nearest, a scale a channel, models that lose less than "
                f"{RTN.gap_below:g} nats at 3 bits",
                weights=f"models {ALIKE}",
            ),
            published=(published("gamma_post", "gamma_post"),),
        ),
        needs=(STUDY,),
        measure=bits,
        again=again(bits, RTN),
    ),
    Claim(
        key="error",
        title="Bits stand for the rounding error",
        source="this project; the error is the GMSE of Panferov et al. (arXiv 2506.01863)",
        statement="If a model responds to rounding as a quadratic does, the gap is proportional to the error sigma2 "
        "of the format on normal values, whatever the format: kappa = 1 in `delta_PTQ = C_T D^gamma_D / N^gamma_N "
        "sigma2^kappa`.",
        how="Study `overtraining`, rounded to integers of 3 to 6 bits with one scale a tensor, a channel or a block.",
        rule=Rule.of(within("kappa", "kappa", 0.8, 1.25), measured=gap_law(BOTH, GAUSSIAN)),
        needs=(STUDY,),
        measure=error,
        again=again(error, BOTH, ("4 to 6 bits", "no limit to the gap", "blocks of 16")),
    ),
    Claim(
        key="quantizers",
        title="With every quantizer more tokens lose more",
        source=f"{PAPER}, Appendix F, Figs. 10 and 11",
        statement="GPTQ, AWQ and rounding to nearest lose more with more tokens alike.",
        how="Study `overtraining`, per channel, the law fitted to each quantizer alone.",
        rule=Rule.of(
            *tuple(above(method, f"gamma_D by {name}") for method, name in METHODS.items()),
            measured=gap_law(RTN, how="each quantizer alone, a scale a channel, integers"),
            published=(published("gptq", "gamma_D by GPTQ, the paper's quantizer"),),
        ),
        needs=(STUDY,),
        measure=quantizers,
        again=again(quantizers, RTN, ("4 to 6 bits", "no limit to the gap", "blocks of 16")),
    ),
)
