"""The claims in the words of the press: "A popular technique to make AI more efficient has drawbacks" (2024), an
article that made the paper known beyond its field.
"""

import contextlib
import dataclasses
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.fitting.fit import Fit
from analysis.laws.formulas import effective_share
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.plan import plan
from analysis.report.claims.claim import Claim, Finding
from analysis.report.claims.tokens import LAW, RTN, gap_fit, loss_fit
from analysis.report.claims.training import ALONE, EACH_ALONE, drawn_number, neff
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.numbers import Number, attempt, left_out, slope_within
from analysis.report.evidence.rules import Rule, above, below
from analysis.report.evidence.studies import with_models
from analysis.report.evidence.tables import Rows, Tables, ends, full_precision

ARTICLE = 'the press article "A popular technique to make AI more efficient has drawbacks" (2024)'
NORMAL = 1.96
WIDTHS = (3, 4, 5, 6, 7, 8)
SERVED = (0.0, 1.0, 30.0)  # tokens served over tokens trained on
SMALL = with_models("small_or_quantized")


# ---- below 7 or 8 bits ----


def noticeable(tables: Tables) -> Finding:
    """Gaps against the scatter of losses between seeds, of each N at its largest D."""
    scatter = tables.scatter()
    rows = ends(full_precision(tables.rows(RTN)))
    rows = rows[rows["gap"].notna() & rows["P_post"].isin(WIDTHS)]
    rows = rows[rows["tokens"] == rows.groupby("N")["tokens"].transform("max")]
    if rows.empty:
        raise InputError("no gaps at 3 to 8 bits")
    found, gaps = {}, {}
    for (size, bits), group in rows.groupby(["N", "P_post"]):
        threshold = scatter.noticed(float((group["loss"] - group["gap"]).mean()))
        se = math.sqrt(float((group["gap_se"].fillna(0.0) ** 2).sum())) / len(group)
        gaps[size, bits] = float(group["gap"].mean())
        value = gaps[size, bits] - threshold.value
        low = value - math.hypot(NORMAL * se, threshold.high - threshold.value)
        high = value + math.hypot(NORMAL * se, threshold.value - threshold.low)
        note = "errors over documents and of what is noticeable"
        found[size, bits] = Number(value=value, low=low, high=high, unit="nats", note=note)
    sizes = sorted({size for size, _ in found})
    lines = []
    for size in sizes:
        seen = [bits for bits in WIDTHS if (size, bits) in found and found[size, bits].low > 0]
        tokens = rows.loc[rows["N"] == size, "tokens"].iloc[0]
        each = (f"{gaps[size, b]:.4f}" if (size, b) in gaps else "-" for b in WIDTHS)
        lines.append((magnitude(size), magnitude(tokens), f"{max(seen)}" if seen else "none", *each))
    nothing = Number.none("not quantized to that width")
    grid = Grid(
        heads=("N", "D", "noticeable up to, bits", *(f"{b} bits" for b in WIDTHS)),
        rows=tuple(lines),
        caption="Gaps in nats, means over seeds, and the most bits at which one is noticeable.",
    )
    return Finding(
        numbers={
            "six": found.get((sizes[0], 6.0), nothing),
            "eight": found.get((sizes[0], 8.0), nothing),
            "gamma_N": attempt(tables.parameter, LAW, RTN, "gamma_N"),
        },
        grids=(grid,),
        figure=lambda: drawings.by_bits(rows, scatter.loss),
        caption="The gap by bits at the largest D of each N; the band is the scatter of losses between seeds.",
    )


# ---- small or quantized ----


def small_or_quantized(tables: Tables) -> Finding:
    pairs = {name: _pairs(tables, name) for name in ("bytes", "bare")}
    numbers, cells = {}, {}
    for name, found in pairs.items():
        last = found[(found["bits"] == 3) & (found["tokens"] == found["tokens"].max())]
        numbers[name] = attempt(_mean_of, tables, last)
        numbers[f"{name} grows"] = attempt(_growth, found[found["bits"] == 3])
        for key, group in found.groupby(["bits", "tokens"]):
            sizes = group.drop_duplicates("N").sort_values("N")
            about = ", ".join(f"{magnitude(r.N)} as {magnitude(r.small)}" for r in sizes.itertuples())
            cells.setdefault(key, {})[name] = (about, _mean_of(tables, group).text)
    nothing = ("", "-")
    lines = [
        (f"{bits:g}", magnitude(tokens), *cell.get("bytes", nothing), cell.get("bare", nothing)[1])
        for (bits, tokens), cell in sorted(cells.items())
    ]
    less = "loss, quantized less small"
    grid = Grid(
        heads=("bits", "D", "N quantized, as small in 16 bits", less, "without scales and embeddings"),
        rows=tuple(lines),
        caption="At equal bytes and equal D; below zero, the large quantized model is better.",
    )
    return Finding(
        numbers=numbers,
        grids=(grid,),
        figure=lambda: drawings.bytes_and_loss(_models(tables), pairs["bytes"]),
        caption="Loss against bytes at the least and the most tokens; lines join models of one width.",
    )


def _models(tables: Tables) -> pd.DataFrame:
    """Models in 16 bits and quantized per channel, by GPTQ where the table has it, else rounded to nearest; bytes with
    (`bytes`) and without (`bare`) scales and embeddings."""
    asked = Rows(studies=SMALL, ptq=None)
    rows = ends(full_precision(tables.rows(asked)))
    method = "gptq" if (rows["ptq"] == "gptq").any() else "rtn"
    rows = rows[rows["ptq"].isna() | (rows["ptq"] == method)]
    width = rows["P_post"].fillna(FULL_BITS)
    rows = rows[width.isin([3, 4, 6, FULL_BITS])]
    return rows.assign(bits=width, bare=rows["N"] * width / 8, method=method)


def _pairs(tables: Tables, column: str) -> pd.DataFrame:
    """Each quantized model with the loss (`other`) and the N (`small`) that a model in 16 bits of as many bytes (by
    `column`) has at the same D: between measured ones by the fitted law of the loss, bent through them."""
    models, fit, found = _models(tables), loss_fits(tables).get("loss"), []
    for tokens, group in models.groupby("tokens"):
        sixteen = group[group["bits"] >= FULL_BITS].groupby("N")
        whole = sixteen.agg(size=(column, "mean"), loss=("loss", "mean"), runs=("loss", "size"))
        if len(whole) < 2:
            continue
        ends_ = whole["size"].iloc[[0, -1]]
        low = group[(group["bits"] < FULL_BITS) & group[column].between(*ends_) & group["gap"].notna()]
        known, sizes = np.log(whole.index.to_numpy(float)), np.log(whole["size"].to_numpy(float))
        logs = np.interp(np.log(low[column].to_numpy(float)), sizes, known)
        bent = whole["loss"].to_numpy(float) - _law(fit, np.exp(known), tokens)
        other = _law(fit, np.exp(logs), tokens) + np.interp(logs, known, bent)
        more = {"small": np.exp(logs), "other": other, "less": low["loss"] - other, "runs": whole["runs"].mean()}
        found.append(low[["run_id", "tokens", "bits", "N", "loss", "gap"]].assign(**more))
    rows = pd.concat(found) if found else pd.DataFrame()
    if rows.empty:
        raise InputError("no quantized model has as many bytes as some model in 16 bits between two sizes at its D")
    return rows


def loss_fits(tables: Tables) -> dict[str, Fit]:
    """The fit of the loss, if there is one."""
    with contextlib.suppress(InputError):
        return {"loss": loss_fit(tables)}
    return {}


def _law(fit: Fit | None, sizes: np.ndarray, tokens: float) -> np.ndarray:
    if fit is None:
        return np.zeros(len(sizes))
    return fit.predict(pd.DataFrame({"N": sizes, "D": tokens}))


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


def _growth(found: pd.DataFrame) -> Number:
    """By how much an octave of D moves the difference, each N having a level of its own."""

    def measure(part: pd.DataFrame) -> float:
        return slope_within(np.log2(part["tokens"].astype(float)), part["less"], part["N"])

    return left_out(measure, found, "run_id", unit="nats an octave")


# ---- what low precision in training costs and saves ----


def saving(tables: Tables) -> Finding:
    fit = neff(tables)
    if not {*PARTS} <= {*fit.law.variables}:
        raise InputError(f"{fit.law.name} does not know all of {', '.join(PARTS)}")
    cost = {bits: _cost(fit, bits) for bits in (*WIDTHS, 12)}
    lines = [(f"{bits}", n.text, "-" if n.paper is None else f"{n.paper:.2f}") for bits, n in cost.items()]
    by_bits = Grid(
        heads=("P in training", "cost over that of 16 bits at equal loss", "with the paper's constants"),
        rows=tuple(lines),
        caption="Cost N P a token at the same D, P F(16) / (16 F(P)): of training, and of serving the model as "
        "trained.",
    )
    grids = [by_bits]
    try:
        planned, best = _plans(tables, fit)
        grids.append(planned)
        notes = (best,)
    except InputError as fault:
        notes = (f"No plan: {fault}.",)
    return Finding(
        numbers={"eight": cost[8], "four": cost[4]},
        notes=notes,
        grids=tuple(grids),
        figure=lambda: FIGURES["inference_optimum"](tables.rows(RTN), _served(tables)),
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


def _served(tables: Tables) -> dict[str, Fit]:
    try:
        fits = (gap_fit(tables), loss_fit(tables))
    except InputError:
        return {}
    return {fit.law.name: fit for fit in fits}


def _plans(tables: Tables, fit: Fit) -> tuple[Grid, str]:
    """`analysis plan` for the budget of the largest model on the most tokens, when few or many tokens are served."""
    frame = tables.pooled(tuple(s for s in (*ALONE, "overtraining") if tables.has(s)))
    N, D = float(frame["N"].max()), float(frame["D"].max())
    gap = {} if not tables.has("overtraining") else {"kumar_ptq": gap_fit(tables)}
    lines, best = [], ""
    for times in SERVED:
        budget = 6 * N * D + 2 * N * D * times
        made = plan({fit.law.name: fit, **gap}, flops=budget, serve_tokens=times * D or None, seed=tables.seed)
        b, sixteen = made.best, made.sixteen
        excess = (
            Number.none("no room")
            if sixteen is None
            else Number(**{k: getattr(sixteen.excess, k) for k in ("value", "low", "high")}, unit="nats")
        )
        trained = Number(value=made.trained.value, low=made.trained.low, high=made.trained.high)
        lines.append(
            (
                f"{times:g}",
                trained.text,
                b.post or "as trained",
                magnitude(b.N.value),
                magnitude(b.D.value),
                f"{b.loss.value:.3f}",
                excess.text,
            )
        )
        best = f"Serving {times:g} tokens for each token trained on: {made.sentence}"
    grid = Grid(
        heads=(
            "tokens served / trained",
            "bits in training",
            "served",
            "N",
            "D",
            "loss",
            "16 bits throughout, above that",
        ),
        rows=tuple(lines),
        caption=f"The best plan for the operations of N = {magnitude(N)}, D = {magnitude(D)} in 16 bits and of "
        "serving it (`analysis plan`).",
    )
    return grid, best


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
        ),
        needs=(("overtraining",),),
        measure=noticeable,
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
        ),
        needs=EACH_ALONE,
        beside=("joint", "overtraining"),
        measure=saving,
    ),
)
