"""Claims about tokens: what quantization after training costs grows with D, as one power of it, until more tokens hurt.

Sec. 3 of Kumar et al. 2024 (arXiv 2411.04330). Models trained in 16 bits, rounded to nearest per output channel.
"""

import dataclasses
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.after_training import predicted_gap
from analysis.figures.registry import FIGURES
from analysis.figures.style import Drawn, magnitude
from analysis.fitting.fit import Fit
from analysis.planning.alternatives import drawn, from_draws
from analysis.planning.choose_law import FULL_LAWS
from analysis.planning.next_runs.components import fitted, scatter_of_sizes
from analysis.planning.next_runs.rows import Choice, rows_of
from analysis.planning.optima import critical_tokens
from analysis.planning.predict import Scatter
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings, predictions
from analysis.report.evidence.measured import ALIKE, gap_law
from analysis.report.evidence.numbers import Number, attempt, digits, of_fit, of_slope
from analysis.report.evidence.other_rows import again as on_other_rows
from analysis.report.evidence.rules import Flag, Measured, Rule, above, at_least, published, within
from analysis.report.evidence.tables import Rows, Tables
from analysis.report.evidence.turning_points import AGAIN, Lowest, again, asked_of, lowest

STUDY = ("overtraining",)
RTN = Rows(studies=STUDY)
LAW = "kumar_ptq"
WIDTHS = (3, 4, 5, 6)
FACTOR = 1.5  # by which a law may be off what it predicts
DRAWS = 500  # of D_crit
PAPER_TURN = 117.0  # tokens a parameter at the lowest loss in 3 bits, read off Fig. 1 left
OCTAVES = 1.5  # by which a D_crit may differ from one that is found on octaves of D


def gap_fit(tables: Tables, rows: Rows = RTN) -> Fit:
    """The paper's law of the gap on these rows."""
    return tables.fit(LAW, rows)


def growth(tables: Tables, rows: Rows = RTN) -> Finding:
    fit, slopes = gap_fit(tables, rows), tables.slopes(LAW, rows)
    numbers = {"gamma_D": of_fit(fit, "gamma_D")}
    for bits in WIDTHS:
        own = slopes.widths.get(bits)
        reason = slopes.skipped.get(bits, "no gaps at this width were fitted")
        slope = Number.none(reason) if own is None else of_slope(own.constant, own.units)
        numbers[f"slope_{bits}"] = dataclasses.replace(slope, paper=fit.law.published["gamma_D"])
    return Finding(
        numbers=numbers,
        shown={"C_T (with b = 0)": of_fit(fit, "C_T")},
        notes=fit_notes(fit),
        figure=lambda: FIGURES["degradation"](tables.rows(rows), {LAW: fit}),
        caption="Loss after quantization and the gap, against tokens per parameter; lines below are the fitted law.",
    )


def one_power(tables: Tables, rows: Rows = RTN) -> Finding:
    fit, slopes = gap_fit(tables, rows), tables.slopes(LAW, rows).together
    verdict, reason = slopes.verdict
    r2 = {bits: Number.plain(fit.r2_within.get(f"{bits}", math.nan)) for bits in WIDTHS}
    local = {
        f"slope from {magnitude(slope.low_D)} to {magnitude(slope.high_D)} tokens": of_slope(slope, slopes.units)
        for slope in slopes.local
    }
    return Finding(
        numbers={f"r2_{bits}": r2[bits] for bits in (3, 4)},
        flags={"constant": verdict},
        shown={
            **{f"R2 within {bits} bits": r2[bits] for bits in (5, 6)},
            "R2 of all": Number.plain(fit.r2, paper=0.97),
            **local,
        },
        reading=f"The test of constancy: {verdict} ({reason}).",
        figure=lambda: FIGURES["local_slopes"](tables.rows(rows), {LAW: fit}),
        caption="The slope of ln delta_PTQ in ln D from one D to the next, within each width.",
    )


def held_out(tables: Tables, selected: Rows = RTN) -> Finding:
    """The law, fitted without the largest N or without the largest D, against what it did not see."""
    numbers, shown, panels, notes = {}, {}, {}, []
    frame = shared.quantized(tables.rows(selected), LAW)
    for symbol in ("N", "D"):
        top = frame[symbol].max()
        try:
            fit = tables.fit(LAW, dataclasses.replace(selected, where=f"{symbol} < {float(top)!r}"))
            rows = predicted_gap.usable(frame, fit)
            rows = rows[rows["P_post"].between(*selected.bits)]
            unseen = rows[rows[symbol] == top]
            of_sizes = _scatter_of_sizes(frame[frame[symbol] < top], selected)
            numbers[symbol] = _ratio(unseen, fit, of_sizes)
            shown |= {
                f"the same at the largest {symbol} and {bits:g} bits": attempt(_ratio, group, fit, of_sizes)
                for bits, group in unseen.groupby("P_post")
            }
            panels[symbol] = rows.assign(fitted=(rows[symbol] < top) & rows["fitted"])
            notes.append(f"Fitted to {symbol} < {magnitude(top)}, it predicts {symbol} = {magnitude(top)}.")
        except InputError as fault:
            numbers[symbol] = Number.none(fault.brief)
    titles = {symbol: f"largest {symbol} not seen" for symbol in panels}

    def figure() -> Drawn:
        if not panels:
            raise InputError("no part of the table can be held out")
        return Drawn.of(predicted_gap.draw, predicted_gap.side_by_side(panels, titles))

    return Finding(
        numbers=numbers,
        shown=shown,
        notes=tuple(notes),
        grids=predictions.beside(tables, *STUDY),
        figure=figure,
        caption="Predicted against measured gaps; open points were not fitted.",
    )


def _scatter_of_sizes(frame: pd.DataFrame, selected: Rows) -> Scatter:
    """By how much a size that `frame` does not have scatters about the law, in ln gap, as `predict --one-run` has it.

    Raises:
        InputError: too few rows to estimate it from.
    """
    rows = rows_of(frame, Choice(ptq=selected.ptq, granularity=selected.granularity))
    return scatter_of_sizes(rows, fitted(rows))


def _ratio(rows: pd.DataFrame, fit: Fit, of_sizes: Scatter) -> Number:
    """Predicted over measured, summed over rows within the law's reach. Its variance is that of the law's prediction,
    that of what was measured by the fit's own error model, all rows of a run erring together, and that of a size about
    the law, all its runs erring together."""
    rows = rows[rows["fitted"]]
    if rows.empty:
        raise InputError("every gap there is predicted to be too large for the law")
    value = rows["predicted"].sum() / rows["gap"].sum()
    if not value > 0 or fit.draws is None:
        raise InputError("gaps there are not positive, or the law has no interval")
    symbols = fit.law.symbols
    drawn_sums = [fit.law.predict(dict(zip(symbols, draw, strict=True)), rows).sum() for draw in fit.draws]
    law = float(np.std(np.log(drawn_sums), ddof=1)) * fit.bootstrap.stretch
    sd = pd.Series(fit.noise.sd(rows["predicted"].to_numpy(), rows["gap_se"].to_numpy()), index=rows.index)
    of_size = rows["predicted"] * [of_sizes(N, D) for N, D in zip(rows["N"], rows["D"], strict=True)]
    together = *sd.groupby(rows["run_id"]).sum(), *of_size.groupby(rows["N"]).sum()
    reach = fit.bootstrap.t * math.hypot(law, math.hypot(*together) / rows["predicted"].sum())
    runs = rows["run_id"].nunique()
    note = f"{runs} runs; the law's error and the scatter of runs and of sizes about the law added in squares"
    return Number(value=value, low=value * math.exp(-reach), high=value * math.exp(reach), note=note)


# ---- where more tokens hurt ----


def loss_fit(tables: Tables) -> Fit:
    """The law of the loss in 16 bits: with an exponent each for N and D, or one for both where the table has too few
    sizes."""
    return tables.first_fit(FULL_LAWS, RTN)


def law_critical(tables: Tables, low: Lowest, rows: Rows = RTN) -> Number:
    """D_crit of the fitted laws in tokens, at this N and width, gaps by these rows.

    Raises:
        InputError: one of them cannot be fitted.
    """
    loss, gap = loss_fit(tables), gap_fit(tables, rows)
    made = [drawn(fit, DRAWS, tables.seed) for fit in (loss, gap)]
    values = critical_tokens(made[0].constants, low.N, low.bits, gap=made[1].constants)
    if not np.isfinite(values[0]):
        raise InputError("the fitted gap does not grow with D: more tokens never hurt")
    critical = from_draws(values, all(m.sure for m in made), max(m.reach for m in made))
    return Number.of(critical, note="draws of both laws")


def turning(tables: Tables, rows: Rows = RTN) -> Finding:
    minima = lowest(tables, rows)
    most = asked_of(minima)
    chosen = tables.scatter().around(most.rise, most.sd, comparisons=len(most.tried) - 1)
    usual = tables.rows(rows)["weight_decay"].mode().iloc[0]
    new, without = (
        attempt(again, tables, most, decay) if rows == RTN else Number.none("new seeds were quantized in one way")
        for decay in (usual, 0.0)
    )
    grid = Grid.of(
        [_line(tables, low, rows) for low in minima],
        "Loss after quantization, means over seeds. A negative rise is the last step's, where the last D is "
        "best. Intervals are those of one difference, not corrected for the choice of the lowest D.",
    )
    return Finding(
        numbers={"rise": new if new.known else chosen, "ratio": _tokens_a_parameter(most)},
        shown={"the same on the seeds that chose the D": chosen, "on new seeds without weight decay": without},
        reading=f"That is at N = {magnitude(most.N)} and {most.bits:g} bits, lowest at D = {magnitude(most.least)} of "
        f"{_tried(most)}.",
        grids=(grid,),
        figure=lambda: drawings.turning(tables, rows, minima, lambda low: attempt(law_critical, tables, low, rows)),
        caption="Loss after quantization against D; a ring marks the lowest mean, the bar the fitted law's D_crit.",
    )


def _tokens_a_parameter(low: Lowest) -> Number:
    """D/N at the lowest loss, which lies anywhere between its neighbours on the grid of D."""
    place = low.tried.index(low.least)
    if not 0 < place < len(low.tried) - 1:
        return Number.none("the lowest loss is at the edge of the D tried")
    ends = (low.tried[place + step] / low.N for step in (-1, 1))
    note = "from the D before to the D after the lowest"
    return Number(value=low.least / low.N, low=next(ends), high=next(ends), paper=PAPER_TURN, note=note)


def _tried(low: Lowest) -> str:
    return f"{magnitude(low.tried[0])} to {magnitude(low.tried[-1])}"


def _line(tables: Tables, low: Lowest, rows: Rows) -> dict[str, str]:
    law = attempt(law_critical, tables, low, rows)
    return {
        "N": magnitude(low.N),
        "bits": f"{low.bits:g}",
        "D tried": _tried(low),
        "lowest at D": magnitude(low.least) + ("" if low.inside else " (the last)"),
        "D/N there": digits(low.least / low.N),
        "rise to the last D": tables.scatter().around(low.rise, low.sd).text,
        "D_crit of the law": f"{magnitude(law.value)} [{magnitude(law.low)}, {magnitude(law.high)}]"
        if law.sure
        else law.text,
    }


def law_agrees(tables: Tables, rows: Rows = RTN) -> Finding:
    most = asked_of(lowest(tables, rows))
    law = attempt(law_critical, tables, most, rows)
    if not law.known:
        octaves = law
    elif not most.inside:
        octaves = Number.none(f"the loss at {most.bits:g} bits is still lowest at the last D")
    else:
        logs = [math.log2(v / most.least) if v > 0 else math.nan for v in (law.value, law.low, law.high)]
        octaves = Number(value=logs[0], low=logs[1], high=logs[2], unit="octaves", note=law.note)
    name = f"D_crit of the law at N = {magnitude(most.N)}, {most.bits:g} bits, in millions of tokens"
    return Finding(numbers={"octaves": octaves}, shown={name: law.scaled(1e-6)})


def fit_notes(fit: Fit) -> tuple[str, ...]:
    """How a fit was made, in a line, and its warnings."""
    line = f"`{fit.law.name}` on {fit.rows} rows, R2 {fit.r2:.3f}, status {fit.status}"
    line += f"; intervals: {fit.bootstrap.describe()}."
    return (line, *(f"Warning of the fit: {warning}." for warning in fit.warnings))


CLAIMS = (
    Claim(
        key="tokens",
        title="What quantization costs grows with the tokens a model was trained on",
        source=f"{PAPER}, Sec. 3, Eq. 2, Fig. 2, Finding 1",
        statement="Quantizing a trained model adds a loss delta_PTQ that rises with D as a power of it, at every bit "
        "width from 3 to 6; there gamma_D = 0.51.",
        how="Study `overtraining`: sizes and token counts crossed, D over five octaves at the smallest sizes, "
        "weights rounded to nearest per channel. The law is fitted to gaps in linear space with an error model; the "
        "slope within each width is estimated without the law, from how the gap at equal N changes from one D to the "
        "next. The direction asks for the sign, the size for the paper's exponent.",
        rule=Rule.of(
            above("gamma_D", "gamma_D"),
            above("slope_3", "the slope of ln delta_PTQ in ln D within 3 bits"),
            above("slope_4", "the slope within 4 bits"),
            above("slope_5", "the slope within 5 bits", lenient=True),
            above("slope_6", "the slope within 6 bits", lenient=True),
            measured=gap_law(RTN, more="; slopes within a width by least squares, each model left out in turn"),
            published=(published("gamma_D", "gamma_D"),),
        ),
        needs=(STUDY,),
        measure=growth,
        again=on_other_rows(growth, RTN),
    ),
    Claim(
        key="one-power",
        title="The growth is one power of D at all D",
        source=f"{PAPER}, Eq. 2, Fig. 2 (R2 0.97 of all points)",
        statement="One exponent describes all token counts, and the law describes the points.",
        how="The same rows. Bits alone explain most of a gap, so R2 is given within each width; a square of ln D "
        "beside its slope tests whether the slope is the same at all D (`constant` takes an interval that rules out "
        "a change by half of the slope in an octave).",
        rule=Rule.of(
            Flag(number="constant", what="the slope in ln D", yes="constant", no="not constant"),
            at_least("r2_3", "R2 within 3 bits", 0.5),
            at_least("r2_4", "R2 within 4 bits", 0.5),
            measured=gap_law(RTN, more="; the slope by least squares, each model left out in turn"),
        ),
        needs=(STUDY,),
        measure=one_power,
        again=on_other_rows(one_power, RTN),
    ),
    Claim(
        key="predicted",
        title="The law predicts larger models and longer training",
        source=f"{PAPER}, Sec. 3 (fitted and shown on the same points)",
        statement="The law of the gap is meant for models beyond those that it was fitted to.",
        how="The same rows, once without the largest N and once without the largest D. What was held out is predicted; "
        f"the sum of what is predicted may be off the measured one by a factor of {FACTOR:g}.",
        rule=Rule.of(
            *tuple(
                within(s, f"predicted over measured gap at the largest {s}", 1 / FACTOR, FACTOR) for s in ("D", "N")
            ),
            measured=dataclasses.replace(
                gap_law(RTN),
                estimator=f"`{LAW}` without what is predicted; sum of predicted over sum of measured gaps, which 3 "
                "bits rule (each width beside it); its interval holds the scatter of a new size about the law",
            ),
        ),
        needs=(STUDY,),
        measure=held_out,
        again=on_other_rows(held_out, RTN, ("no limit to the gap", "blocks of 16")),
    ),
    Claim(
        key="turning",
        title="Beyond some D more tokens hurt the quantized model",
        source=f"{PAPER}, Sec. 3, Fig. 1 left, Eq. 13",
        statement="The loss after quantization to few bits has a minimum in D: at 3 bits and the paper's smallest "
        "size near 117 tokens a parameter.",
        how="Study `overtraining`, without a law: for each N the D with the lowest loss after quantization among "
        "those tried, and how much the loss rises from there to the last D, against the scatter between seeds. Asked "
        "at 3 bits of the N with the most tokens a parameter, on new seeds (study `weight_decay`, at the same weight "
        "decay); without them on the seeds that chose the D, with an interval corrected for how many it was chosen "
        "from.",
        rule=Rule.of(
            above("rise", "the rise of the loss at 3 bits from its lowest D to the last one"),
            measured=Measured(
                estimator="difference of mean losses after quantization, against the scatter between seeds",
                filter="rounded to nearest, a scale a channel, integers of 3 bits, no limit to the gap",
                weights=f"seeds {ALIKE}",
            ),
            meaning="the loss at 3 bits still falls at the last D tried",
            published=(published("ratio", "tokens a parameter at the lowest loss"),),
        ),
        needs=(STUDY,),
        beside=AGAIN.studies,
        measure=turning,
        again=on_other_rows(turning, RTN, ("blocks of 16", "GPTQ", "AWQ")),
    ),
    Claim(
        key="law-turning",
        title="The laws say from which D on more tokens hurt",
        source=f"{PAPER}, Eqs. 12 and 13",
        statement="D_crit follows from the law of the loss and the law of the gap.",
        how="D_crit of our fitted laws against the minimum that was found without them, at the same N and width. D "
        f"comes in octaves, so that {OCTAVES:g} octaves are as good as none.",
        rule=Rule.of(
            within("octaves", "D_crit of the laws over the D found, in octaves", -OCTAVES, OCTAVES),
            measured=gap_law(RTN, more="; the loss law by Huber's function of log losses; D_crit of draws of both"),
        ),
        needs=(STUDY,),
        measure=law_agrees,
        again=on_other_rows(law_agrees, RTN),
    ),
)
