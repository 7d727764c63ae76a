"""Claims about formats and granularity: what holds for integers with a scale a channel holds for others.

Sec. 4.3 and Appendices I and N of Kumar et al. 2024 (arXiv 2411.04330).
"""

import dataclasses
from collections.abc import Iterator

import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.registry import FIGURES
from analysis.figures.style import magnitude
from analysis.report.claims.claim import PAPER, Claim, Finding
from analysis.report.document.blocks import Grid
from analysis.report.evidence import drawings
from analysis.report.evidence.measured import ALIKE, GAP_VARIANCE, GEOMETRIC, LOGS
from analysis.report.evidence.numbers import (
    Number,
    attempt,
    geometric_mean_or_by_size,
    left_out,
    slope_of,
    summed,
)
from analysis.report.evidence.rules import Measured, Rule, above, below
from analysis.report.evidence.studies import MODELS
from analysis.report.evidence.tables import (
    Rows,
    Tables,
    ends,
    full_precision,
    log_gaps,
)

FORMATS = Rows(studies=("formats", MODELS), granularity=None, family=None)
KINDS = {
    "int4": ("int4", "channel"),
    "e2m1": ("e2m1", "channel"),
    "mxfp4": ("mxfp4", ""),
    "nvfp4": ("nvfp4", ""),
}  # at 4 bits; microscaling formats have blocks of their own
GRAINS = Rows(studies=("granularity", MODELS), granularity=None)
SLOPE = "slope of ln delta_PTQ in ln D"


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
        figure=lambda: drawings.forest({SLOPE: numbers}, {"no slope": 0.0}),
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
    """The gaps over those of the same models."""
    pairs = own[["cluster", "N", "gap"]].assign(base=base["gap"].reindex(own.index)).dropna()
    return geometric_mean_or_by_size(pairs, "gap", "base")


def granularity(tables: Tables) -> Finding:
    rows = log_gaps(tables.rows(GRAINS))
    wide = rows.pivot_table(index=["cluster", "run_id", "N", "P_post"], columns="granularity_post", values="gap")
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
        grids=(
            Grid.of(lines, "Integers of 3 and 4 bits, paired by model and width: geometric means."),
            _blocks_by_size(wide),
        ),
        shown={"the ratio of sums, which 3 bits rule": attempt(_summed_over_channel, wide)},
        figure=lambda: FIGURES["quantizers"](tables.rows(GRAINS), {}),
        caption="The gap at 3 and 4 bits by granularity, means over seeds.",
    )


def _over_channel(wide: pd.DataFrame, grain: str) -> Number:
    return geometric_mean_or_by_size(wide[[grain, "channel"]].dropna().reset_index(), grain, "channel")


def _summed_over_channel(wide: pd.DataFrame) -> Number:
    return left_out(summed("block16", "channel"), wide[["block16", "channel"]].dropna().reset_index())


def _blocks_by_size(wide: pd.DataFrame) -> Grid:
    """Blocks of 16 over channels at each N and width."""
    pairs = wide.groupby(["N", "P_post"])
    cells = {key: attempt(_over_channel, group, "block16").text for key, group in pairs}
    sizes, widths = (sorted({key[i] for key in cells}) for i in (0, 1))
    return Grid.of(
        [{"N": magnitude(N), **{f"at {bits:g} bits": cells.get((N, bits), "-") for bits in widths}} for N in sizes],
        "The gap in blocks of 16 over that per channel by N: geometric means over models.",
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
        "paired by model and width, as a geometric mean, and gamma_D in blocks.",
        rule=Rule.of(
            below("ratio", "the gap in blocks of 16 over that per channel", 1.0),
            above("gamma_D", "gamma_D in blocks of 16"),
            measured=Measured(
                estimator=f"{GEOMETRIC}, each chain left out in turn; gamma_D: `kumar_ptq`",
                filter=LOGS,
                weights=f"pairs {ALIKE}; gamma_D: {GAP_VARIANCE}",
            ),
        ),
        needs=(("granularity", "overtraining"),),
        measure=granularity,
    ),
)
