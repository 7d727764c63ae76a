"""Simulated tables of all studies, in the grids of the project's sweeps, from laws and effects that are planted.

`python -m analysis simulate FOLDER` writes FOLDER/<study>/runs.csv; `python -m analysis report --results FOLDER` then
shows which verdicts the rules give, and how wide intervals are with so many runs, before any is trained. The tests
plant truths under which claims hold, under which they do not, and noise that hides it.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from analysis.files import replacing
from analysis.validation.simulator import (
    BATCH,
    FULL_WIDTHS,
    INTS,
    L2,
    L3,
    L4,
    L5,
    L6,
    RATE,
    SHAPES,
    USUAL,
    WEIGHT_DECAY,
    M,
    Quantization,
    Run,
    Truth,
    rows,
)

IN_BLOCKS = tuple(dataclasses.replace(q, granularity="block16", group=16.0) for q in INTS)
EVERY = tuple(dataclasses.replace(q, ptq=ptq) for ptq in ("rtn", "gptq", "awq") for q in (*INTS, *IN_BLOCKS))
MORE = (
    Quantization(format="e2m1", bits=4),
    Quantization(format="mxfp4", bits=4, granularity="block32", group=32.0),
    Quantization(format="nvfp4", bits=4, granularity="block16", group=16.0),
    *(dataclasses.replace(q, granularity="tensor") for q in INTS[1:3]),
)
"""Formats and granularities beside those of `EVERY`."""
NORMAL = NormalDist()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Makes the rows of one study. `plain`: with integers per channel, rounded to nearest, alone."""

    name: str
    truth: Truth
    seed: int
    plain: bool = False

    def normal(self, *names) -> float:
        """A standard normal that depends on the names alone, times the noise: a run has the same in every study."""
        text = "/".join(map(str, (self.seed, *names)))
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
        return self.truth.noise * NORMAL.inv_cdf((number + 0.5) / 2**48)

    def run(self, N: int, D: float, seed: int, *, seen: float | None = None, **settings) -> Run:
        """A run of whole batches, evaluated after `seen` tokens or at its end."""
        batch = settings.get("batch_tokens", BATCH)
        D, seen = (float(int(tokens // batch) * batch) for tokens in (D, seen or D))
        return Run(study=self.name, N=N, D=D, tokens_seen=seen, seed=seed, **settings)

    def rows(self, run: Run, quantizations: Iterable[Quantization] = INTS) -> list[dict]:
        return rows(run, self.truth, self.normal, quantizations)


def tables(
    truth: Truth, *, seed: int = 0, only: Iterable[str] | None = None, plain: bool = False
) -> dict[str, pd.DataFrame]:
    """{study: tidy table}, of all studies or of those in `only`; `plain` as in `Study`."""
    made = {}
    for name in STUDIES if only is None else only:
        study = Study(name=name, truth=truth, seed=seed, plain=plain)
        made[name] = pd.DataFrame([row for group in STUDIES[name](study) for row in group])
    return made


# ---- the studies ----


def _overtraining(study: Study) -> Iterator[list[dict]]:
    cells = [(n, d, s) for n in (L2, L3) for d in (2, 4, 8, 16, 32, 64) for s in (0, 1)]
    cells += [(L4, d, s) for d in (4, 8, 16, 32) for s in (0, 1)] + [(L4, 64, 0)]
    cells += [(L5, d, 0) for d in (4, 8, 16, 32)] + [(L6, d, 0) for d in (8, 32)]
    for n, d, s in cells:
        run = study.run(n, d * M, 1000 * d + 10 * SHAPES[n][1] + s)
        yield study.rows(run, INTS if study.plain else (*EVERY, *MORE))


CELLS = tuple((n, d, 7000 + 100 * d + s) for n, d in ((L3, 8), (L2, 4), (L2, 32), (L4, 8)) for s in (0, 1))


def _weights(study: Study) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        for bits in (16, 2, 3, 4, 5, 6, 8) if n == L3 else (16, 3, 4, 6):
            yield study.rows(study.run(n, d * M, seed, widths=(bits, 16, 16)))


def _activations(study: Study) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:  # at 3 bits the planted law leaves no effective parameters
        yield study.rows(study.run(n, d * M, seed), ())
        for granularity, bits in (*(("tensor", b) for b in (4, 5, 6, 8)), ("token", 4), ("token", 6)):
            yield study.rows(study.run(n, d * M, seed, widths=(16, bits, 16), granularity=granularity), ())


def _attention(study: Study) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        yield study.rows(study.run(n, d * M, seed), ())
        for granularity, bits in (*(("tensor", b) for b in (3, 4, 5, 6, 8)), ("token", 4), ("token", 6)):
            yield study.rows(study.run(n, d * M, seed, widths=(16, 16, bits), granularity=granularity), ())


def _joint(study: Study) -> Iterator[list[dict]]:
    points = ((3, 5, 4), (4, 4, 6), (5, 8, 3), (6, 6, 6), (8, 4, 5), (4, 6, 4))
    points += ((3, 8, 8), (8, 5, 4), (5, 5, 5), (6, 4, 3), (4, 5, 8), (8, 6, 3))
    for widths in (FULL_WIDTHS, *points):
        yield study.rows(study.run(L3, 8 * M, 7800, widths=widths), ())


def _factorial(study: Study) -> Iterator[list[dict]]:
    for n, s in ((L3, 0), (L3, 1), (L3, 2), (L4, 0), (L4, 1)):
        for widths in itertools.product((16, 4), repeat=3):
            yield study.rows(study.run(n, 8 * M, 7900 + 10 * SHAPES[n][1] + s, widths=widths), ())


def _robustness(study: Study) -> Iterator[list[dict]]:
    for n, d, seed in CELLS:
        for bits in (16, 4, 5, 6, 8):
            yield study.rows(study.run(n, d * M, seed, widths=(bits, 16, 16)))


def _matched(study: Study) -> Iterator[list[dict]]:
    for bits, s in itertools.product((4, 6, 8, 16), (0, 1)):
        yield study.rows(study.run(int(8 * L3 / bits), 16 * M, 600 + s, widths=(bits,) * 3), ())


def _schedule(study: Study) -> Iterator[list[dict]]:
    arms = [(L2, s, rate, WEIGHT_DECAY) for s in (0, 1, 2) for rate in (RATE / 3, RATE, 2 * RATE)]
    arms += [(L2, s, RATE, 0.0) for s in (0, 1)] + [(L3, s, RATE, WEIGHT_DECAY) for s in (0, 1, 2)]
    for n, s, rate, decay in arms:
        yield from _trunk(study, n, s, {"lr": rate, "weight_decay": decay})


def _trunk(study: Study, n: int, s: int, recipe: dict) -> Iterator[list[dict]]:
    """A trunk with its branches. Rows come with the slope gamma_D in ln D, which `log_gap` takes out again."""
    truth, last = study.truth, 32 * M

    def log_gap(counted: float, tokens: float, slope: float = truth.before) -> float:
        """ln delta that grows by `slope` with the tokens that are `counted`, of a model that saw `tokens`."""
        return slope * np.log(counted / USUAL) - truth.gap["gamma_D"] * np.log(tokens / USUAL)

    for tokens in (M * 2**i for i in range(6)):
        run = study.run(n, last, s, schedule="constant", seen=tokens, log_gap=log_gap(tokens, tokens), **recipe)
        yield study.rows(run)
    branch = {**recipe, "parent": run.run_id, "trunk": run.run_id}
    for before, over in itertools.product((2 * M, 8 * M, last), (0.5 * M, 2 * M, 8 * M)):
        effect = log_gap(before, before + over) + truth.jump
        more = {"decay_tokens": over, "log_gap": effect, "suffix": f"-{over:g}"}
        run = study.run(n, before + over, s, schedule="wsd", **more, **branch)
        yield study.rows(run)
        if recipe["lr"] == RATE:
            mean = {**more, "log_gap": effect + truth.mean - truth.jump, "suffix": f"-mean-{over:g}"}
            yield study.rows(study.run(n, before + over, s, schedule="average", **mean, **branch))
        if (before, over) == (8 * M, 2 * M):
            again = {**branch, "parent": run.run_id, "log_gap": log_gap(16 * M, 16 * M), "suffix": "-again"}
            yield study.rows(study.run(n, 16 * M, s, schedule="constant", **again))
    for tokens in (12 * M, 16 * M, last):
        lower = {**branch, "lr": 0.1 * recipe["lr"], "suffix": "-held"}
        level = log_gap(USUAL, tokens) + truth.jump - truth.rate * np.log(0.1)
        yield study.rows(study.run(n, last, s, schedule="constant", seen=tokens, log_gap=level, **lower))


def _weight_decay(study: Study) -> Iterator[list[dict]]:
    for decay, d, s in itertools.product((0.0, 0.1, 0.3), (4, 16, 64), (0, 1)):
        yield study.rows(study.run(L2, d * M, 8000 + d + s, weight_decay=decay))


def _batch(study: Study) -> Iterator[list[dict]]:
    for batch, d in itertools.product((512, 8192), (4, 16)):
        yield study.rows(study.run(L2, d * M, 8100 + d, batch_tokens=batch))


def _corpus(study: Study) -> Iterator[list[dict]]:
    for n, d in itertools.product((L2, L3), (4, 16, 64)):
        yield study.rows(study.run(n, d * M, 8200 + d, corpus="text"))


def _seeds(study: Study) -> Iterator[list[dict]]:
    for s in range(8):
        yield study.rows(study.run(L2, 8 * M, 9000 + s))


def _learning_rate(study: Study) -> Iterator[list[dict]]:
    grid = [(L2, 4, 5), (L2, 32, 4), (L3, 4, 5), (L3, 16, 4), (L4, 8, 4), (L5, 8, 3), (L6, 8, 3)]
    for place, (n, d, count) in enumerate(grid):
        for rate in (1e-3 * 2**i for i in range(count)):
            worse = 0.03 * np.log(rate / RATE) ** 2
            made = study.rows(study.run(n, d * M, 10 + place, lr=rate))
            yield [row | {"loss": row["loss"] + worse} for row in made]


def _dtype(study: Study) -> Iterator[list[dict]]:
    """Twins see the same batches: they share the noise of their run, but for 2% of the gap."""
    for (n, s), dtype in itertools.product([(L2, s) for s in range(6, 14)], ("float32", "bfloat16")):
        shift = study.truth.bf16 * (dtype == "bfloat16") + 0.001 * study.normal("dtype", n, s, dtype)
        factor = 1 + 0.02 * study.normal("twin", n, s, dtype)
        for row in study.rows(study.run(n, 4 * M, s, dtype="float32")):
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
    "factorial": _factorial,
    "robustness": _robustness,
    "matched": _matched,
    "schedule": _schedule,
    "weight_decay": _weight_decay,
    "batch": _batch,
    "corpus": _corpus,
    "seeds": _seeds,
}
"""Formats, granularity and small_or_quantized are rows on overtraining's models."""


def write(folder: Path, truth: Truth | None = None, *, seed: int = 0, only: Iterable[str] | None = None) -> None:
    """Write the tables as FOLDER/<study>/runs.csv."""
    for name, frame in tables(truth or Truth(), seed=seed, only=only).items():
        with replacing(folder / name / "runs.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
