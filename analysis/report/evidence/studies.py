"""The studies: what each asks, and what of each was run, as its committed table says."""

from collections.abc import Iterable

import pandas as pd

from analysis.figures.style import magnitude
from analysis.report.document.blocks import Grid
from analysis.report.evidence.numbers import digits
from analysis.report.evidence.tables import Tables, ends
from analysis.report.verdicts import NOT_RUN

SECONDS_AN_HOUR = 3600.0


STUDIES = {
    "learning_rate": "Which peak learning rate is best at each N and D, and how much it moves the gap",
    "dtype": "Whether bf16 matmuls instead of float32 ones move anything",
    "overtraining": "Whether the gap grows with D, shrinks with N and falls with bits",
    "weights": "What low precision of weights in training costs",
    "activations": "The same of activations, per tensor and per token",
    "attention": "The same of the KV cache",
    "joint": "What several parts at once cost, at many widths",
    "factorial": "Whether the effects of the parts multiply",
    "robustness": "Whether training in low precision makes robust to quantization after it",
    "matched": "Which precision wins where N P is constant",
    "schedule": "Whether tokens or the decay of the learning rate make models hard to quantize",
    "formats": "Integers, floats and microscaling formats at equal bits",
    "granularity": "How many values share a scale",
    "small_or_quantized": "At equal bytes, small in 16 bits or large and quantized",
    "weight_decay": "Whether D or D over the optimizer's memory counts",
    "batch": "The same with another batch",
    "corpus": "Whether English prose gives what Python code gives",
    "seeds": "How much runs scatter that differ in their seeds alone",
}
"""What each study asks, by the name of its folder in results/ and of its file in sweeps/."""
MODELS = "overtraining"
AGAIN = ("formats", "granularity", "small_or_quantized")
"""Studies that quantize the models of `MODELS` again, whose table may hold their rows."""


def overview(tables: Tables) -> Grid:
    """What was run: a row a study, from its table alone."""
    heads = ("study", "question", "runs", "rows", "N", "D (tokens)", "hours")
    return Grid(heads=heads, rows=tuple(_row(name, tables) for name in STUDIES))


def _row(name: str, tables: Tables) -> tuple[str, ...]:
    head = (f"`{name}`", STUDIES[name])
    if not tables.has(name):
        state = f"rows of `{MODELS}` alone" if name in AGAIN and tables.has(MODELS) else NOT_RUN
        return (*head, tables.faults.get(name, state), *[""] * 4)
    frame = tables.frames[name]
    runs = frame.drop_duplicates("run_id")
    diverged = int((runs["diverged"].astype(str).str.lower() == "true").sum())
    return (
        *head,
        f"{len(runs)}" + (f" ({diverged} diverged)" if diverged else ""),
        f"{len(frame):,}",
        ", ".join(magnitude(n) for n in sorted(runs["N"].unique())),
        span(runs["D"]),
        f"{hours(runs):.2g}",
    )


def provenance(tables: Tables) -> Grid:
    """Where the tables come from: a row for studies alike in machine, arithmetic and commits."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for study in STUDIES:
        if tables.has(study):
            runs = tables.frames[study].drop_duplicates("run_id")
            key = tuple(listed(runs[column]) for column in ("device", "dtype", "commit"))
            alike.setdefault(key, []).append(f"`{study}`")
    rows = tuple((", ".join(names), *key) for key, names in alike.items())
    heads = ("studies", "machine", "matmuls", "commit of the runs")
    return Grid(heads=heads, rows=rows, caption="A + behind a commit: with changes that were not in it.")


def hours(runs: pd.DataFrame) -> float:
    """Of computing, one machine: what the runs took of their stacks' time."""
    return float(pd.to_numeric(runs["seconds"], errors="coerce").sum()) / SECONDS_AN_HOUR


def total(tables: Tables) -> str:
    """All studies together, in a sentence."""
    if not tables.frames:
        return "No study has been run yet."
    runs = pd.concat(frame.drop_duplicates("run_id") for frame in tables.frames.values())
    alone = runs.drop_duplicates("run_id")
    rows = sum(len(frame) for frame in tables.frames.values())
    ratio = ends(alone)["D"] / ends(alone)["N"]
    return (
        f"{len(tables.frames)} of {len(STUDIES)} studies, {len(alone)} different runs, {rows:,} evaluated models, "
        f"{hours(runs):.2g} hours of computing; {span(alone['N'])} parameters (without embeddings), {span(alone['D'])} "
        f"tokens, {digits(ratio.min())} to {digits(ratio.max())} tokens a parameter."
    )


def grid_of(tables: Tables, studies: Iterable[str]) -> str:
    """Which runs a claim rests on, in a sentence."""
    present = tuple(study for study in studies if tables.has(study))
    frame = tables.pooled(present)
    runs = frame.drop_duplicates("run_id")
    names = ", ".join(f"`{study}`" for study in present)
    seeds = runs["cluster"].nunique()
    return (
        f"Tables: {names}; {len(runs)} runs in {seeds} chains of one size and seed, "
        f"N = {', '.join(magnitude(n) for n in sorted(runs['N'].unique()))}, D = {span(runs['D'])} tokens."
    )


def span(values: pd.Series) -> str:
    """`2M to 64M`, or one of them."""
    low, high = magnitude(values.min()), magnitude(values.max())
    return low if low == high else f"{low} to {high}"


def listed(values: pd.Series, most: int = 3) -> str:
    """Different values, the most frequent first."""
    texts = [str(v) for v in values.dropna().value_counts().index]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
