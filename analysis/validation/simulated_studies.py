"""A dress rehearsal: tables of all studies, simulated from a world whose truths are planted, before any is run.

`python -m analysis simulate FOLDER` writes FOLDER/<study>/runs.csv; `python -m analysis report --results FOLDER` then
shows which verdicts the rules give, and how wide intervals are with so many runs. The tests plant worlds in which
claims hold, in which they do not, and in which noise hides it.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.validation.simulated_runs import (
    DECAY,
    FULL,
    INTS,
    L2,
    L3,
    L4,
    L5,
    L6,
    RATE,
    SHAPES,
    USUAL,
    Author,
    M,
    Setting,
    World,
)

IN_BLOCKS = tuple(dataclasses.replace(s, granularity="block16", group=16.0) for s in INTS)
EVERY = tuple(dataclasses.replace(s, ptq=p) for p in ("rtn", "gptq", "awq") for s in (*INTS, *IN_BLOCKS))
MORE = (
    Setting(format="e2m1", bits=4),
    Setting(format="mxfp4", bits=4, granularity="block32", group=32.0),
    Setting(format="nvfp4", bits=4, granularity="block16", group=16.0),
    *(dataclasses.replace(s, granularity="tensor") for s in INTS[1:3]),
)
"""Formats and granularities beside those of `EVERY`."""


def tables(
    world: World, *, seed: int = 0, only: Iterable[str] | None = None, plain: bool = False
) -> dict[str, pd.DataFrame]:
    """{study: tidy table}, of all studies or of those in `only`, in the grids of the project's sweeps; `plain`: with
    integers per channel rounded to nearest alone."""
    author = Author(world, seed, plain=plain)
    wanted = STUDIES if only is None else {name: STUDIES[name] for name in only}
    return {name: pd.DataFrame([r for rows in make(author) for r in rows]) for name, make in wanted.items()}


# ---- the studies ----


def _overtraining(a: Author) -> Iterator[list[dict]]:
    cells = [(n, d, s) for n in (L2, L3) for d in (2, 4, 8, 16, 32, 64) for s in (0, 1)]
    cells += [(L4, d, s) for d in (4, 8, 16, 32) for s in (0, 1)] + [(L4, 64, 0)]
    cells += [(L5, d, 0) for d in (4, 8, 16, 32)] + [(L6, d, 0) for d in (8, 32)]
    for n, d, s in cells:
        yield a.rows(
            "overtraining", n, d * M, 1000 * d + 10 * SHAPES[n][1] + s, ptq=INTS if a.plain else (*EVERY, *MORE)
        )


CELLS = tuple((n, d, 7000 + 100 * d + s) for n, d in ((L3, 8), (L2, 4), (L2, 32), (L4, 8)) for s in (0, 1))


def _weights(a: Author) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        for bits in (16, 2, 3, 4, 5, 6, 8) if n == L3 else (16, 3, 4, 6):
            yield a.rows("weights", n, d * M, seed, widths=(bits, 16, 16))


def _activations(a: Author) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:  # at 3 bits the planted law leaves no effective parameters
        yield a.rows("activations", n, d * M, seed, ptq=())
        for grain, bits in (*(("tensor", b) for b in (4, 5, 6, 8)), ("token", 4), ("token", 6)):
            yield a.rows("activations", n, d * M, seed, widths=(16, bits, 16), grain=grain, ptq=())


def _attention(a: Author) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        yield a.rows("attention", n, d * M, seed, ptq=())
        for grain, bits in (*(("tensor", b) for b in (3, 4, 5, 6, 8)), ("token", 4), ("token", 6)):
            yield a.rows("attention", n, d * M, seed, widths=(16, 16, bits), grain=grain, ptq=())


def _joint(a: Author) -> Iterator[list[dict]]:
    points = ((3, 5, 4), (4, 4, 6), (5, 8, 3), (6, 6, 6), (8, 4, 5), (4, 6, 4))
    points += ((3, 8, 8), (8, 5, 4), (5, 5, 5), (6, 4, 3), (4, 5, 8), (8, 6, 3))
    for widths in (FULL, *points):
        yield a.rows("joint", L3, 8 * M, 7800, widths=widths, ptq=())


def _robustness(a: Author) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        for bits in (16, 4, 5, 6, 8):
            yield a.rows("robustness", n, d * M, seed, widths=(bits, 16, 16))


def _matched(a: Author) -> Iterator[list[dict]]:
    for bits, s in itertools.product((4, 6, 8, 16), (0, 1)):
        yield a.rows("matched", int(8 * L3 / bits), 16 * M, 600 + s, widths=(bits,) * 3, ptq=())


def _schedule(a: Author) -> Iterator[list[dict]]:
    arms = [(L2, s, rate, DECAY) for s in (0, 1, 2) for rate in (RATE / 3, RATE, 2 * RATE)]
    arms += [(L2, s, RATE, 0.0) for s in (0, 1)] + [(L3, s, RATE, DECAY) for s in (0, 1, 2)]
    for n, s, rate, decay in arms:
        yield from _trunk(a, n, s, {"rate": rate, "decay": decay})


def _trunk(a: Author, n: int, s: int, how: dict) -> Iterator[list[dict]]:
    """A trunk with its branches. Rows come with the slope gamma_D in ln D, which `effect` takes out again."""
    w, last = a.world, 32 * M

    def effect(counted: float, tokens: float, slope: float = w.before) -> float:
        """ln delta that grows by `slope` with the tokens that are `counted`, of a model that saw `tokens`."""
        return slope * np.log(counted / USUAL) - w.gap["gamma_D"] * np.log(tokens / USUAL)

    for tokens in (M * 2**i for i in range(6)):
        rows = a.rows("schedule", n, last, s, schedule="constant", seen=tokens, effect=effect(tokens, tokens), **how)
        trunk = rows[0]["run_id"]
        yield rows
    branch = {**how, "parent": trunk, "trunk": trunk}
    for before, over in itertools.product((2 * M, 8 * M, last), (0.5 * M, 2 * M, 8 * M)):
        more = {"decay_tokens": over, "effect": effect(before, before + over) + w.jump, "name": f"-{over:g}"}
        rows = a.rows("schedule", n, before + over, s, schedule="wsd", **more, **branch)
        decayed = rows[0]["run_id"] if (before, over) == (8 * M, 2 * M) else ""
        yield rows
        if how["rate"] == RATE:
            mean = {**more, "effect": more["effect"] + w.mean - w.jump, "name": f"-mean-{over:g}"}
            yield a.rows("schedule", n, before + over, s, schedule="average", **mean, **branch)
        if decayed:
            again = {**branch, "parent": decayed, "effect": effect(16 * M, 16 * M), "name": "-again"}
            yield a.rows("schedule", n, 16 * M, s, schedule="constant", **again)
    for tokens in (12 * M, 16 * M, last):
        lower = {**branch, "rate": 0.1 * how["rate"], "name": "-held"}
        level = effect(USUAL, tokens) + w.jump - w.rate * np.log(0.1)
        yield a.rows("schedule", n, last, s, schedule="constant", seen=tokens, effect=level, **lower)


def _weight_decay(a: Author) -> Iterator[list[dict]]:
    for decay, d, s in itertools.product((0.0, 0.1, 0.3), (4, 16, 64), (0, 1)):
        yield a.rows("weight_decay", L2, d * M, 8000 + d + s, decay=decay)


def _batch(a: Author) -> Iterator[list[dict]]:
    for batch, d in itertools.product((512, 8192), (4, 16)):
        yield a.rows("batch", L2, d * M, 8100 + d, batch=batch)


def _corpus(a: Author) -> Iterator[list[dict]]:
    for n, d in itertools.product((L2, L3), (4, 16, 64)):
        yield a.rows("corpus", n, d * M, 8200 + d, corpus="text")


def _seeds(a: Author) -> Iterator[list[dict]]:
    for s in range(8):
        yield a.rows("seeds", L2, 8 * M, 9000 + s)


def _learning_rate(a: Author) -> Iterator[list[dict]]:
    grid = [(L2, 4, 5), (L2, 32, 4), (L3, 4, 5), (L3, 16, 4), (L4, 8, 4), (L5, 8, 3), (L6, 8, 3)]
    for place, (n, d, count) in enumerate(grid):
        for rate in (1e-3 * 2**i for i in range(count)):
            worse = 0.03 * np.log(rate / RATE) ** 2
            rows = a.rows("learning_rate", n, d * M, 10 + place, rate=rate)
            yield [row | {"loss": row["loss"] + worse} for row in rows]


def _dtype(a: Author) -> Iterator[list[dict]]:
    """Twins see the same batches: they share the luck of their run, but for 2% of the gap."""
    for (n, s), dtype in itertools.product([(L2, s) for s in range(6)] + [(L3, 0), (L3, 1)], ("float32", "bfloat16")):
        shift = a.world.bf16 * (dtype == "bfloat16") + 0.001 * a.luck("dtype", n, s, dtype)
        factor = 1 + 0.02 * a.luck("twin", n, s, dtype)
        for row in a.rows("dtype", n, 4 * M, s, dtype="float32"):
            own = {"dtype": dtype, "run_id": row["run_id"].replace("float32", dtype), "loss": row["loss"] + shift}
            yield [row | own | ({} if row["gap"] is None else {"gap": row["gap"] * factor})]


STUDIES = {
    "learning_rate": _learning_rate,
    "dtype": _dtype,
    "overtraining": _overtraining,
    "weights": _weights,
    "activations": _activations,
    "attention": _attention,
    "joint": _joint,
    "robustness": _robustness,
    "matched": _matched,
    "schedule": _schedule,
    "weight_decay": _weight_decay,
    "batch": _batch,
    "corpus": _corpus,
    "seeds": _seeds,
}
"""Formats, granularity and small_or_quantized are rows on overtraining's models."""


def write(folder: Path, world: World | None = None, *, seed: int = 0, only: Iterable[str] | None = None) -> None:
    """Write the tables as FOLDER/<study>/runs.csv."""
    for name, frame in tables(world or World(), seed=seed, only=only).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        frame.to_csv(folder / name / "runs.csv", index=False, float_format="%.8g", lineterminator="\n")
