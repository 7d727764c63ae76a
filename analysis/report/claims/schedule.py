"""Claims about what makes models hard to quantize: tokens, the decay of the learning rate, or the optimizer's memory.

Kumar et al. 2024 (arXiv 2411.04330) and Ouyang et al. 2024 (arXiv 2411.17691) say tokens, Catalan-Tatjer et al. 2025
(arXiv 2510.06213) say decay. `contrasts` has what is measured of each trunk.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.contrasts import NAMES, Trunk, contrasts, trunks
from analysis.report.evidence.measured import ALIKE, LOGS, paired
from analysis.report.evidence.numbers import (
    Number,
    attempt,
    left_out,
    log_slope,
    mean,
    mean_or_by_size,
    quotient,
    slope_of,
)
from analysis.report.evidence.rules import Measured, Rule, above, below, within
from analysis.report.evidence.tables import CLEAR_WIDTHS, LOG_GAP_BELOW, Rows, Tables, log_gaps, remembered

SCHEDULE = Rows(studies=("schedule",))
COSINE = Rows(studies=("overtraining", "schedule"), where="schedule == 'cosine'")
DECAYS = Rows(studies=("weight_decay", "overtraining"), where="schedule == 'cosine'")
BATCHES = Rows(studies=("batch", "overtraining"), where="schedule == 'cosine'")

AGAINST = "Catalan-Tatjer et al. (arXiv 2510.06213)"
TOKENS, DECAY = 0.7, 0.3  # S above which tokens explain the growth under cosine, and below which decay does
LONGER = "A longer memory makes models harder to quantize at equal tokens: neither D alone nor D / tau counts."
SLOPE, DIFFERENCE = "slope of ln delta_PTQ", "difference of ln delta_PTQ"
FLAT = 0.1  # slope in ln D within which a gap is called flat
NEAR = 0.05  # of a learning rate: alike


@remembered
def arms(tables: Tables) -> dict[str, list[Trunk]]:
    """Trunks by learning rate relative to that of the cosine runs of their size (or the middle one of the study), and
    by weight decay; the main arm, that rate with weight decay, first.

    Raises:
        InputError: the study has no trunk.
    """
    every = trunks(tables.rows(SCHEDULE))
    if not every:
        raise InputError("no run at a constant rate without a parent, which branches could start from")
    rates = {size: _usual(tables, size, every) for size in {t.N for t in every}}
    groups: dict[str, list[Trunk]] = {}
    for trunk in sorted(every, key=lambda t: (t.weight_decay == 0, abs(math.log(t.lr / rates[t.N])), t.lr)):
        ratio = trunk.lr / rates[trunk.N]
        name = "the usual rate" if abs(ratio - 1) < NEAR else f"{ratio:.2g} of the usual rate"
        groups.setdefault(name + ("" if trunk.weight_decay else ", no weight decay"), []).append(trunk)
    return groups


def _usual(tables: Tables, size: float, every: list[Trunk]) -> float:
    if tables.has("overtraining"):
        frame = tables.pooled(("overtraining",))
        rates = frame.loc[frame["N"] == size, "lr_peak"]
        if len(rates):
            return float(rates.mode().iloc[0])
    return float(np.median(sorted({t.lr for t in every if size == t.N})))


@remembered
def contrasts_of(tables: Tables, arm: str) -> dict[str, Number]:
    """Each contrast's mean over the trunks of an arm."""
    each = pd.DataFrame([{"cell": t.run_id, "N": t.N, **contrasts(t)} for t in arms(tables)[arm]])
    averaged = functools.partial(mean, what="trunks")
    return {name: attempt(mean_or_by_size, each, name, "cell", mean_of=averaged) for name in NAMES}


def main_arm(tables: Tables) -> dict[str, Number]:
    """The contrasts of the main arm.

    Raises:
        InputError: the study has no trunk.
    """
    return contrasts_of(tables, next(iter(arms(tables))))


def cosine(tables: Tables, gap_below: float = COSINE.gap_below) -> Number:
    """gamma_D at 3 and 4 bits of the cosine runs of the sizes that have trunks, of predicted gaps below a limit."""
    sizes = sorted({t.N for group in arms(tables).values() for t in group})
    rows = tables.rows(COSINE)
    return slope_of("kumar_ptq", rows[rows["N"].isin(sizes)], bits=CLEAR_WIDTHS, gap_below=gap_below)


def share(tables: Tables, gap_below: float = COSINE.gap_below) -> Finding:
    K2, usual = main_arm(tables)["K2"], attempt(cosine, tables, gap_below)
    S = quotient(K2, usual)
    return Finding(
        numbers={"S": S},
        shown={"K2": K2, "gamma_D under cosine, same sizes and widths": usual},
        reading=_reading(S, "Tokens.", "Decay.", "Both tokens and decay."),
        grids=(_arms_grid(tables),),
        figure=lambda: drawings.branches(next(iter(arms(tables).values()))),
        caption="The gap on trunks (dots, joined) and at the ends of decayed branches, by tokens of decay.",
    )


def _reading(number: Number, large: str, small: str, both: str) -> str:
    """What a share that lies surely above TOKENS, below DECAY or between says."""
    if not number.sure:
        return ""
    if number.low > TOKENS:
        return large
    if number.high < DECAY:
        return small
    return both if number.low > DECAY and number.high < TOKENS else "Not distinguishable."


def _arms_grid(tables: Tables) -> Grid:
    columns = {f"{arm} ({len(group)} trunks)": contrasts_of(tables, arm) for arm, group in arms(tables).items()}
    return Grid.of(
        [
            {"": k, "contrast": what, **{head: n[k].text if n[k].known else "-" for head, n in columns.items()}}
            for k, what in NAMES.items()
        ],
        "All contrasts of ln delta_PTQ (mean of 3 and 4 bits) by learning rate, means over trunks.",
    )


def contrast(decides: str, beside: tuple[str, ...], caption: str, title: str = "", drawn: tuple[str, ...] = ()):
    """What a claim about one contrast of the main arm measures: it `decides`, others stand `beside` it; a figure with
    this title and caption shows those `drawn`, or the gap under each schedule."""

    def measure(tables: Tables) -> Finding:
        of_arm = main_arm(tables)
        reference = "no slope" if title.startswith("slope") else "no difference"
        return Finding(
            numbers={decides: of_arm[decides]},
            shown={f"{k}: {NAMES[k]}": of_arm[k] for k in beside},
            figure=lambda: (
                drawings.forest({title: {k: of_arm[k] for k in drawn}}, {reference: 0.0})
                if drawn
                else FIGURES["schedules"](tables.rows(Rows(studies=("schedule", "overtraining"))), {})
            ),
            caption=caption,
        )

    return measure


# ---- the optimizer's memory ----


def memory(tables: Tables) -> Finding:
    decays, batches = (DECAYS, "weight_decay", "batch_tokens"), (BATCHES, "batch_tokens", "weight_decay")
    Q, exponent = (lambda gamma, chi: -chi / gamma), (lambda gamma, chi: chi)
    share = attempt(_of_tau, tables, *decays, Q)
    title = "slope of ln delta_PTQ in ln tau at equal D, from"
    return Finding(
        numbers={"Q": share},
        shown={
            "Q from the batch": attempt(_of_tau, tables, *batches, Q),
            f"{title} weight decay": attempt(_of_tau, tables, *decays, exponent),
            f"{title} the batch": attempt(_of_tau, tables, *batches, exponent),
            "slope of ln delta_PTQ in ln D without weight decay": attempt(_slope_without, tables),
        },
        reading=LONGER
        if share.sure and share.high < -DECAY
        else _reading(share, "D / tau counts.", "Tokens count.", "Both count."),
        figure=lambda: FIGURES["memory"](tables.rows(DECAYS), {}),
        caption="The gap against D and against D / tau, by weight decay; the axis that counts brings lines together.",
    )


def _memory_rows(tables: Tables, selected: Rows) -> pd.DataFrame:
    """Logarithms of gaps, of sizes that the first of the studies has; `level`: one N and width."""
    rows = tables.rows(selected)
    rows = log_gaps(rows[rows["N"].isin(tables.pooled(selected.studies[:1])["N"].unique())])
    return rows.assign(level=rows["N"].astype(str) + rows["P_post"].astype(str), log_D=np.log(rows["D"].astype(float)))


def _of_tau(
    tables: Tables, selected: Rows, varied: str, other: str, measure: Callable[[float, float], float]
) -> Number:
    """What `measure` makes of gamma and chi in ln delta = level(N, bits) + gamma ln D + chi ln tau, from runs that
    differ in `varied` and D, at the most frequent value of the `other`."""
    tables.need(selected.studies[0])
    rows = _memory_rows(tables, selected)
    rows = rows[np.isfinite(rows["tau"].astype(float))]
    rows = rows[rows[other] == rows[other].mode().iloc[0]]
    if rows[varied].nunique() < 2 or rows["tokens"].nunique() < 2:
        raise InputError(f"the runs have one {varied}, or one D")
    rows = rows.assign(log_tau=np.log(rows["tau"].astype(float)))

    def of_part(part: pd.DataFrame) -> float:
        both = part[["log_D", "log_tau", "log"]]
        centred = (both - both.groupby(part["level"]).transform("mean")).to_numpy()
        slopes, _, rank, _ = np.linalg.lstsq(centred[:, :2], centred[:, 2], rcond=1e-6)
        return measure(*slopes) if rank == 2 else math.nan

    return left_out(of_part, rows, "run_id")


def _slope_without(tables: Tables) -> Number:
    rows = _memory_rows(tables, DECAYS)
    rows = rows[rows["weight_decay"] == 0]
    if rows["tokens"].nunique() < 2:
        raise InputError("no runs without weight decay at two D")
    return left_out(lambda part: log_slope(part, "D", "log", "level"), rows, "run_id")


CROSSED = (
    "Study `schedule`: constant-rate trunks, from whose snapshots branches decay to zero over several numbers of "
    "tokens, hold a lower rate, or are re-warmed, so that tokens before the decay (D_b) and tokens of decay (D_d) "
    "vary independently. "
)


AGAIN = "Study `schedule`, as [above](#tokens-or-decay). "
OF_TRUNKS = paired("mean over trunks of the mean of both widths, Student's t", LOGS, "trunks")

CLAIMS = (
    Claim(
        key="tokens-or-decay",
        title="The growth under a cosine schedule is one of tokens, not of decay",
        source=f"{PAPER}, Appendix G (linear decay only); {AGAINST} say decay",
        statement="delta_PTQ grows with tokens per parameter whatever the learning-rate schedule.",
        how=CROSSED
        + "S is the slope of ln delta_PTQ in ln D_b at fixed D_d (K2), over gamma_D of cosine runs of the same "
        f"sizes at 3 and 4 bits: above {TOKENS:g} tokens do it, below {DECAY:g} decay does, between both do.",
        rule=Rule.of(
            above("S", "S = K2 / gamma_D under cosine", TOKENS),
            measured=Measured(
                estimator="K2: mean over trunks, Student's t; gamma_D: slope of gaps by least squares, each chain left "
                "out in turn; errors of both added in squares",
                filter=f"{LOGS}; under cosine below {COSINE.gap_below:g} nats of the predicted gap",
                weights=f"trunks {ALIKE}; gaps under cosine by one over their variance",
            ),
            meaning=f"below {TOKENS:g}; decay alone if below {DECAY:g}",
        ),
        needs=(("schedule",),),
        beside=("overtraining",),
        measure=share,
        again={f"gaps under cosine below {LOG_GAP_BELOW:g} nat, as on trunks": lambda t: share(t, LOG_GAP_BELOW)},
    ),
    Claim(
        key="before-decay",
        title="With the same decay, more tokens before it still make models harder to quantize",
        source=f"{PAPER}, Sec. 3 and Appendix G",
        statement="Tokens have an effect of their own.",
        how=AGAIN + "K2 alone.",
        rule=Rule.of(above("K2", "the slope of ln delta_PTQ in ln D_b at fixed D_d"), measured=OF_TRUNKS),
        needs=(("schedule",),),
        beside=("overtraining",),
        measure=contrast(
            "K2", ("K4", "K1"), "The gap under each schedule that has models of one size at several token counts."
        ),
    ),
    Claim(
        key="decay",
        title="Decaying the learning rate makes models harder to quantize",
        source=AGAINST,
        statement="The error of quantization jumps when the learning rate decays, largely independent of tokens.",
        how=AGAIN
        + "K3: ln delta_PTQ at the end of a decay less that of its trunk at equal tokens; K6, the same at equal "
        "loss, shows whether it is more than that decayed models are better ones.",
        rule=Rule.of(above("K3", "ln delta_PTQ, decayed less trunk at equal tokens"), measured=OF_TRUNKS),
        needs=(("schedule",),),
        measure=contrast(
            "K3",
            ("K6", "K5"),
            "Decayed less trunk at equal tokens (K3) and at equal loss (K6), re-warmed less decayed (K5).",
            DIFFERENCE,
            ("K3", "K6", "K5"),
        ),
    ),
    Claim(
        key="constant-rate",
        title="At a constant learning rate the gap is flat in tokens",
        source=AGAINST,
        statement="Without decay the error of quantization hardly changes over trillions of tokens.",
        how=AGAIN
        + "K1: the slope of ln delta_PTQ in ln D along trunks; late: beyond twice the optimizer's memory tau = "
        "batch / (rate x weight decay).",
        rule=Rule.of(within("K1", "the slope of ln delta_PTQ in ln D on the trunk", -FLAT, FLAT), measured=OF_TRUNKS),
        needs=(("schedule",),),
        measure=contrast(
            "K1",
            ("K1 late", "K7"),
            "Slopes in tokens: on the trunk, late on it, while a lower rate is held, before and with the decay.",
            SLOPE,
            ("K1", "K1 late", "K7", "K2", "K4"),
        ),
    ),
    Claim(
        key="averages",
        title="A mean of the weights is easier to quantize than the end of a decay",
        source=AGAINST,
        statement="Averaging weights along the trajectory makes models robust to quantization; decaying the learning "
        "rate does the opposite.",
        how=AGAIN
        + "From the same snapshots the trunk's rate is kept, and the weights are averaged over as many tokens as a "
        "decay takes. AD: ln delta_PTQ of the mean less that of the decay; A3 and A6: of the mean less the trunk at "
        "equal tokens and at equal loss.",
        rule=Rule.of(
            below("AD", "ln delta_PTQ, mean of the weights less decayed over the same tokens"), measured=OF_TRUNKS
        ),
        needs=(("schedule",),),
        measure=contrast(
            "AD",
            ("A3", "A6", "A2", "AL"),
            "A mean of the weights less the trunk at equal tokens (A3), at equal loss (A6) and less a decay over the "
            "same tokens (AD); a decay less the trunk (K3).",
            DIFFERENCE,
            ("A3", "A6", "AD", "K3"),
        ),
    ),
    Claim(
        key="memory",
        title="What counts is D, not D over the optimizer's memory",
        source=f"{PAPER}, Eq. 2 (one weight decay, one batch)",
        statement="The law of the gap knows tokens and no optimizer.",
        how="Studies `weight_decay` and `batch` beside `overtraining`: tau = batch / (rate x weight decay) varies at "
        "equal D. Q is the share of the growth in ln D that goes against ln tau: 0 if D counts, 1 if D / tau does, "
        "below 0 if at equal D a longer memory makes the gap larger.",
        rule=Rule.of(
            within("Q", "Q from weight decay", -DECAY, DECAY),
            measured=paired("slopes of ln gap by least squares, each run left out in turn", LOGS, "rows"),
            meaning=f"D / tau alone if above {TOKENS:g}; neither if below {-DECAY:g}",
        ),
        needs=(("weight_decay",),),
        beside=("batch", "overtraining"),
        measure=memory,
    ),
)
