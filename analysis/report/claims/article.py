"""The claims in the words of the press: "A popular technique to make AI more efficient has drawbacks" (2024), an
article that made the paper known beyond its field.
"""

import dataclasses
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.fitting.fit import Fit
from analysis.laws.formulas import effective_share
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.plan import plan
from analysis.report.claims.claim import Claim, Finding
from analysis.report.claims.tokens import LAW, RTN, gap_fit, loss_fit
from analysis.report.claims.training import ALONE, EACH_ALONE, PER_TENSOR, drawn_number, neff
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ALIKE, ENDS, GAP_VARIANCE, loss_law
from analysis.report.evidence.numbers import Number, Scatter, attempt, left_out, log_slope
from analysis.report.evidence.other_rows import again
from analysis.report.evidence.rules import Measured, Rule, above, below, published
from analysis.report.evidence.studies import MODELS
from analysis.report.evidence.tables import Rows, Tables, at_widths, ends, full_precision

ARTICLE = 'the press article "A popular technique to make AI more efficient has drawbacks" (2024)'
NORMAL = 1.96
WIDTHS = (3, 4, 5, 6, 7, 8)
SERVED = (0.0, 1.0, 30.0)  # tokens served over tokens trained on
SMALL = ("small_or_quantized", MODELS)


# ---- below 7 or 8 bits ----


def noticeable(tables: Tables, selected: Rows = RTN) -> Finding:
    """Gaps against the scatter of losses between seeds, of each N at its largest D."""
    scatter = tables.scatter()
    rows = at_widths(tables.rows(selected), WIDTHS)
    rows = rows[rows["tokens"] == rows.groupby("N")["tokens"].transform("max")]
    if rows.empty:
        raise InputError("no gaps at 3 to 8 bits")
    excess, lines = {}, []
    for size, models in rows.groupby("N"):
        by_bits = dict(iter(models.groupby("P_post")))
        excess[size] = {bits: _beyond_scatter(group, scatter) for bits, group in by_bits.items()}
        seen = [f"{bits:g}" for bits, number in excess[size].items() if number.low > 0]
        each = {f"{b} bits": f"{by_bits[b]['gap'].mean():.4f}" if b in by_bits else "-" for b in WIDTHS}
        named = {"N": magnitude(size), "D": magnitude(models["tokens"].iloc[0])}
        lines.append({**named, "noticeable up to, bits": seen[-1] if seen else "none", **each})
    smallest, nothing = excess[min(excess)], Number.none("not quantized to that width")
    return Finding(
        numbers={
            "six": smallest.get(6.0, nothing),
            "eight": smallest.get(8.0, nothing),
            "gamma_N": tables.parameter(LAW, selected, "gamma_N"),
        },
        grids=(Grid.of(lines, "Gaps in nats, means over seeds, and the most bits at which one is noticeable."),),
        figure=lambda: drawings.by_bits(rows, scatter.loss),
        caption="The gap by bits at the largest D of each N; the band is the scatter of losses between seeds.",
    )


def _beyond_scatter(rows: pd.DataFrame, scatter: Scatter) -> Number:
    """The mean gap less the standard deviation of losses between seeds."""
    threshold = scatter.noticed(float((rows["loss"] - rows["gap"]).mean()))
    reach = NORMAL * math.sqrt(float((rows["gap_se"].fillna(0.0) ** 2).sum())) / len(rows)
    value = float(rows["gap"].mean()) - threshold.value
    low = value - math.hypot(reach, threshold.high - threshold.value)
    high = value + math.hypot(reach, threshold.value - threshold.low)
    return Number(value=value, low=low, high=high, unit="nats", note="errors over documents and of what is noticeable")


# ---- small or quantized ----


def small_or_quantized(tables: Tables) -> Finding:
    pairs = {name: _pairs(tables, name) for name in ("bytes", "bare")}
    numbers, texts = {}, {}
    for name, quantized in pairs.items():
        three = quantized[quantized["bits"] == 3]
        numbers[name] = attempt(_mean_of, tables, three[three["tokens"] == quantized["tokens"].max()])
        numbers[f"{name} grows"] = attempt(_growth, three)
        texts[name] = {cell: _mean_of(tables, group).text for cell, group in quantized.groupby(["bits", "tokens"])}
    sizes = pairs["bytes"].drop_duplicates(["bits", "tokens", "N"]).sort_values("N")
    lines = [
        {
            "bits": f"{bits:g}",
            "D": magnitude(tokens),
            "N quantized, as small in 16 bits": ", ".join(
                f"{magnitude(r.N)} as {magnitude(r.small)}"
                for r in shared.at(sizes, bits=bits, tokens=tokens).itertuples()
            ),
            "loss, quantized less small": texts["bytes"].get((bits, tokens), "-"),
            "without scales and embeddings": texts["bare"].get((bits, tokens), "-"),
        }
        for bits, tokens in sorted({*texts["bytes"], *texts["bare"]})
    ]
    return Finding(
        numbers=numbers,
        grids=(Grid.of(lines, "At equal bytes and equal D; below zero, the large quantized model is better."),),
        figure=lambda: drawings.bytes_and_loss(_models(tables), pairs["bytes"]),
        caption="Loss against bytes at the least and the most tokens; lines join models of one width.",
    )


def _models(tables: Tables) -> pd.DataFrame:
    """Models in 16 bits and quantized per channel, by GPTQ where the table has it, else rounded to nearest; bytes with
    (`bytes`) and without (`bare`) scales and embeddings."""
    rows = ends(full_precision(tables.rows(Rows(studies=SMALL, ptq=None))))
    method = "gptq" if (rows["ptq"] == "gptq").any() else "rtn"
    rows = rows[rows["ptq"].isna() | (rows["ptq"] == method)]
    width = rows["P_post"].fillna(FULL_BITS)
    rows = rows[width.isin([3, 4, 6, FULL_BITS])]
    return rows.assign(bits=width, bare=rows["N"] * width / 8, method=method)


def _pairs(tables: Tables, column: str) -> pd.DataFrame:
    """Each quantized model with the loss (`other`) and the N (`small`) that a model in 16 bits of as many bytes (by
    `column`) has at the same D: between measured ones by the fitted law of the loss, bent through them."""
    models, fits, parts = _models(tables), tables.fits_of(loss_fit), []
    for tokens, group in models.groupby("tokens"):
        sixteen = group[group["bits"] >= FULL_BITS].groupby("N")
        whole = sixteen.agg(size=(column, "mean"), loss=("loss", "mean"), runs=("loss", "size"))
        if len(whole) < 2:
            continue
        ends_ = whole["size"].iloc[[0, -1]]
        low = group[(group["bits"] < FULL_BITS) & group[column].between(*ends_) & group["gap"].notna()]
        known, sizes = np.log(whole.index.to_numpy(float)), np.log(whole["size"].to_numpy(float))
        logs = np.interp(np.log(low[column].to_numpy(float)), sizes, known)
        bent = whole["loss"].to_numpy(float) - _law(fits, np.exp(known), tokens)
        other = _law(fits, np.exp(logs), tokens) + np.interp(logs, known, bent)
        more = {"small": np.exp(logs), "other": other, "less": low["loss"] - other, "runs": whole["runs"].mean()}
        parts.append(low[["run_id", "tokens", "bits", "N", "loss", "gap"]].assign(**more))
    rows = pd.concat(parts) if parts else pd.DataFrame()
    if rows.empty:
        raise InputError("no quantized model has as many bytes as some model in 16 bits between two sizes at its D")
    return rows


def _law(fits: dict[str, Fit], sizes: np.ndarray, tokens: float) -> np.ndarray:
    """Losses by the fitted law, zero without one."""
    at = pd.DataFrame({"N": sizes, "D": tokens})
    return next((fit.predict(at) for fit in fits.values()), np.zeros(len(at)))


def _mean_of(tables: Tables, group: pd.DataFrame) -> Number:
    """Loss of quantized models less that of small ones, with the scatter of both between seeds."""
    if group.empty:
        raise InputError("no models of equal bytes there")
    scatter, k = tables.scatter(), len(group)
    own = scatter.sd(group["loss"] - group["gap"], group["gap"])
    small = scatter.sd(group["other"]) / np.sqrt(group["runs"])
    # Models in 16 bits are the same ones for all that are compared with them.
    sd = math.hypot(float(np.sqrt(np.sum(own**2))) / k, float(np.mean(small)))
    return scatter.around(float(group["less"].mean()), sd)


def _growth(differences: pd.DataFrame) -> Number:
    """By how much an octave of D moves the difference, each N having a level of its own."""
    octave = math.log(2)
    return left_out(
        lambda part: octave * log_slope(part, "tokens", "less", "N"), differences, "run_id", unit="nats an octave"
    )


# ---- what low precision in training costs and saves ----


def saving(tables: Tables) -> Finding:
    fit = neff(tables)
    if not {*PARTS} <= {*fit.law.variables}:
        raise InputError(f"{fit.law.name} does not know all of {', '.join(PARTS)}")
    cost = {bits: _cost(fit, bits) for bits in (*WIDTHS, 12)}
    by_bits = Grid.of(
        [
            {
                "P in training": f"{bits}",
                "cost over that of 16 bits at equal loss": number.text,
                "with the paper's constants": "-" if number.paper is None else f"{number.paper:.2f}",
            }
            for bits, number in cost.items()
        ],
        "Cost N P a token at the same D, P F(16) / (16 F(P)): of training, and of serving the model as trained.",
    )
    try:
        planned, note = _plans(tables, fit)
    except InputError as fault:
        planned, note = (), f"No plan: {fault}."
    return Finding(
        numbers={"eight": cost[8], "four": cost[4]},
        notes=(note,),
        grids=(by_bits, *planned),
        figure=lambda: FIGURES["inference_optimum"](tables.rows(RTN), tables.fits_of(gap_fit, loss_fit)),
        caption="The best model to serve at a given cost N P (Eq. 29), trained in 16 bits and quantized.",
    )


def _cost(fit: Fit, bits: float) -> Number:
    """N P of a model with all parts at `bits` over that of one in 16 bits with the same loss and tokens."""

    def ratio(constants) -> np.ndarray:
        full, low = (effective_share(constants, np.array([b])) for b in (FULL_BITS, bits))
        return bits / FULL_BITS * full / low

    # Drawn as -1 / cost: no effective parameters is an infinite cost, the lowest there.
    share = drawn_number(fit, lambda c: -1 / ratio(c), note="draws of the N_eff fit")
    low, high = (-1 / end if end < 0 else end if math.isnan(end) else math.inf for end in (share.low, share.high))
    ends = {"low": min(low, high), "high": max(low, high)} if share.known else {}
    paper = None if share.paper is None else -1 / share.paper
    return dataclasses.replace(share, value=-1 / share.value, paper=paper, **ends)


def _plans(tables: Tables, fit: Fit) -> tuple[tuple[Grid, ...], str]:
    """`analysis plan` for the budget of the largest model on the most tokens, when few or many tokens are served; the
    last plan in a sentence."""
    frame = tables.pooled(tuple(s for s in (*ALONE, "overtraining") if tables.has(s)))
    N, D = float(frame["N"].max()), float(frame["D"].max())
    gap = {} if not tables.has("overtraining") else {"kumar_ptq": gap_fit(tables)}
    lines = []
    for times in SERVED:
        budget = 6 * N * D + 2 * N * D * times
        made = plan({fit.law.name: fit, **gap}, flops=budget, serve_tokens=times * D or None, seed=tables.seed)
        best, sixteen = made.best, made.sixteen
        excess = Number.none("no room") if sixteen is None else Number.of(sixteen.excess, unit="nats")
        lines.append(
            {
                "tokens served / trained": f"{times:g}",
                "bits in training": Number.of(made.trained).text,
                "served": best.post or "as trained",
                "N": magnitude(best.N.value),
                "D": magnitude(best.D.value),
                "loss": f"{best.loss.value:.3f}",
                "16 bits throughout, above that": excess.text,
            }
        )
    caption = f"The best plan for the operations of N = {magnitude(N)}, D = {magnitude(D)} in 16 bits and of serving it"
    note = f"Serving {times:g} tokens for each token trained on: {made.sentence}"
    return (Grid.of(lines, f"{caption} (`analysis plan`)."),), note


CLAIMS = (
    Claim(
        key="article-tokens",
        title="Quantized models do worse if the originals were trained on more data",
        source=ARTICLE,
        statement="The more data a model was trained on, the more it loses when it is quantized.",
        how="As [above](#tokens).",
        follows="tokens",
    ),
    Claim(
        key="article-turning",
        title="At some point more training makes the quantized model worse",
        source=ARTICLE,
        statement="There is a point beyond which further training data hurt the model that is served.",
        how="As [above](#turning).",
        follows="turning",
    ),
    Claim(
        key="article-bits",
        title="Below 7 or 8 bits quality drops noticeably, unless the model is very large",
        source=ARTICLE,
        statement="Precisions below 7 or 8 bits may bring a noticeable step down in quality unless the original "
        "model has very many parameters.",
        how="Study `overtraining`, rounded to nearest per channel at the largest D of each N. Noticeable is a gap "
        "above the standard deviation of losses between seeds; asked at the smallest N.",
        rule=Rule.of(
            above("six", "the gap at 6 bits less what is noticeable"),
            below("eight", "the gap at 8 bits less what is noticeable"),
            above("gamma_N", "gamma_N"),
            measured=Measured(
                estimator="mean gap less the pooled standard deviation of losses between seeds, errors of both added; "
                f"gamma_N: `{LAW}`",
                filter=f"{RTN.how}, the largest D of each N; gamma_N: {RTN.limits}",
                weights=f"seeds {ALIKE}; gamma_N: {GAP_VARIANCE}",
            ),
        ),
        needs=(("overtraining",),),
        measure=noticeable,
        again=again(noticeable, RTN),
    ),
    Claim(
        key="article-small",
        title="It can be better to train a smaller model than to quantize a large one",
        source=ARTICLE,
        statement="Instead of squeezing a large, long-trained model it may at some point be better to train a "
        "smaller one.",
        how="Studies `small_or_quantized` and `overtraining`: a model quantized per channel (by GPTQ where the table "
        "has it) against one in 16 bits of as many bytes at the same D, scales and 16-bit embeddings counted, and "
        "again without them.",
        rule=Rule.of(
            above("bytes", "the loss of 3-bit models less that of small ones of as many bytes, at the most tokens"),
            above("bare", "the same without scales and embeddings"),
            above("bytes grows", "what an octave of D adds to it"),
            measured=Measured(
                estimator="difference of mean losses against the scatter between seeds; growth: slope in ln D by least "
                "squares, each run left out in turn",
                filter=f"a scale a channel, GPTQ where there is any; {ENDS}",
                weights=f"pairs {ALIKE}",
            ),
            meaning="the large quantized model is better, or gets better as D grows",
        ),
        needs=(("small_or_quantized", "overtraining"),),
        measure=small_or_quantized,
    ),
    Claim(
        key="article-saving",
        title="Training in low precision saves, but not without limit",
        source=f"{ARTICLE}; Sec. 4.3 of the paper, 1/F(4) = 5.2",
        statement="Fewer bits from the start make training and serving cheaper down to a point, below which models "
        "would have to be disproportionately larger; costs of serving count, too.",
        how="From the N_eff law of `weights`, `activations` and `attention`: what a model with all parts at P bits "
        "costs a token, N P, over one in 16 bits with the same loss and tokens. Then the best plan for a budget, "
        "with the tokens that will be served counted.",
        rule=Rule.of(
            below("eight", "the cost at 8 bits over that at 16", 1.0),
            above("four", "the cost at 4 bits over that at 16", 1.0),
            measured=loss_law("the N_eff law, draws of the fit", f"{PER_TENSOR}; {ENDS}"),
            published=(
                published("eight", "the cost at 8 bits over that at 16"),
                published("four", "the cost at 4 bits over that at 16"),
            ),
        ),
        needs=EACH_ALONE,
        beside=("joint", "overtraining"),
        measure=saving,
    ),
)
