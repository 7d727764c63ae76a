"""What the host does in a training step while the card waits, and what measuring costs beside training.

The real loop is timed (`scaling.training.loop`), and beside it each of its pieces alone: batches and rates, which are
made for many steps at once and of which a step's share is given, a step as the host asks for it, and reading what many
steps showed.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.timing import Spread
from bench.training import Ours, training_step
from scaling.config.run import Run
from scaling.config.runtime import resolve_device
from scaling.data.batches import Batches
from scaling.data.feed import Feed, Wanted
from scaling.data.shards import prepare
from scaling.model.transformer import initialize
from scaling.ptq.measure import Trained, measure_quantized, models_at_once
from scaling.ptq.settings import Setting, settings_of
from scaling.records.run_folder import RunFolder
from scaling.train import train
from scaling.training.adamw import rates

STEPS, TINY_STEPS = (100, 400), (2, 4)
CORPUS = ("data=synthetic", "data.corpus.documents=2048")
TINY_CORPUS = ("data=synthetic", "data.corpus.alphabet=8", "data.corpus.documents=400", "data.sequence_length=32")
OTHERS = ("e2m1", "e3m2", "e2m3", "e4m3", "e5m2", "mxfp4", "mxfp6", "mxfp8", "nvfp4", "nf4")
"""Formats in which models of `overtraining` are rounded as well."""


def loop(way: Ours, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds a step of the trainer's own loop, of a bare step, and of the pieces of host work. The loop's are those
    that a longer training takes more than a shorter one, in which code is compiled as well."""
    with tempfile.TemporaryDirectory() as scratch:
        took = []
        for steps in STEPS if way.compiled else TINY_STEPS:
            runs = _runs(way, steps, Path(scratch))
            say(f"host: {len(runs)} models, {steps} steps of the loop")
            for line in train(runs).values():
                raise RuntimeError(line)
            took.append((steps, sum(RunFolder(run).result()["seconds"] for run in runs)))
        (short, before), (long, after) = took
        run, device = runs[0], torch.device(resolve_device(way.device))
        corpus = prepare(run.data, Path(run.runtime.cache), say)
        feed = Feed(Batches(corpus, run.data.sequence_length, run.batch_size), device)
        count, starts = feed.steps(len(runs), 10**9), (0,) * len(runs)
        wanted = Wanted(seeds=tuple(run.seed_data for run in runs), starts=starts, steps=count)
        ring = torch.ones(count, 3, len(runs), device=device)
        pieces = {
            "bare step": (1, training_step(runs, corpus.vocab_size, compiled=way.compiled)),
            "batches": (count, lambda: feed.get(wanted)),
            "rates": (count, lambda: rates(runs, starts, count)),
            "reading": (count, ring.tolist),
        }
        seconds = {name: _seconds(piece, steps) for name, (steps, piece) in pieces.items()}
    return {"failed": False, "models": len(runs), "loop": (after - before) / (long - short), "pieces": seconds}


def measurement(way: Ours, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds to quantize and evaluate one model in all settings, with as many others as the trainer takes together,
    beside those of a step of the stack: with D / N = 20 a stack takes 20 N / batch steps."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = _runs(way, 1, Path(scratch))
        run, device = runs[0], torch.device(resolve_device(way.device))
        corpus = prepare(run.data, Path(run.runtime.cache), say)
        windows = corpus.windows(run.data.eval_windows, run.data.sequence_length)
        weights = {name: w.to(device) for name, w in initialize(run.model, corpus.vocab_size, [0]).items()}
        settings = _settings(run)[: 2 if not way.compiled else None]
        base = np.zeros(len(windows.tokens), dtype=np.float32)
        trained = Trained(run=run, weights=weights, tokens_seen=run.D, settings=settings)
        together = models_at_once(len(settings), run, weights)
        began = time.perf_counter()
        for again in range(2):  # the first one allocates
            if again:
                began = time.perf_counter()
            say(f"measurement: {len(settings)} settings, {again + 1} of 2")
            measure_quantized([trained] * together, corpus, windows, [base] * together)
        one = (time.perf_counter() - began) / together
        step = _seconds(training_step(runs, corpus.vocab_size, compiled=way.compiled))
    steps = 20 * run.N // run.data.batch_tokens
    share = one * len(runs) / (steps * step["median"])
    return {
        "failed": False,
        "models": len(runs),
        "settings": len(settings),
        "one model": one,
        "step": step,
        "share of training": share,
    }


def _settings(run: Run) -> list[Setting]:
    methods = dataclasses.replace(run.ptq, methods=("rtn", "gptq", "awq"), granularities=("channel", "block16"))
    others = dataclasses.replace(run.ptq, methods=("rtn",), formats=OTHERS)
    return [s for ptq in (methods, others) for s in settings_of(dataclasses.replace(run, ptq=ptq))]


def _runs(way: Ours, steps: int, scratch: Path) -> Sequence[Run]:
    run = way.run
    tokens = steps * run.data.batch_tokens
    data = dataclasses.replace(run.data, tokens=tokens, eval_windows=min(run.data.eval_windows, 1024))
    schedule = dataclasses.replace(run.schedule, warmup_tokens=min(run.schedule.warmup_tokens, tokens))
    runtime = dataclasses.replace(
        run.runtime, out=str(scratch), cache=str(scratch / "cache"), compile="on" if way.compiled else "off"
    )
    tracking = dataclasses.replace(run.tracking, mode="off", val_windows=0)
    ptq = dataclasses.replace(run.ptq, methods=())
    common = {"data": data, "schedule": schedule, "runtime": runtime, "tracking": tracking}
    plain = dataclasses.replace(run, **common, ptq=ptq)
    return [dataclasses.replace(plain, seed_init=seed, seed_data=seed) for seed in range(way.members)]


def _seconds(piece: Callable[[], object], steps: int = 1, repeats: int = 20) -> dict[str, float]:
    """Of a piece that is done once for so many steps, those of one."""
    piece()
    seconds = np.zeros(repeats)
    for i in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        piece()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[i] = (time.perf_counter() - began) / steps
    return dataclasses.asdict(Spread.of(seconds))
