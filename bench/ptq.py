"""Rows: what quantizing and evaluating a trained model costs, as a share of training it at D/N = 20.

Training is timed in the same group, in the turn of the others; its cost is that of one step times the number of steps.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from bench.timing import Against, Effort, Group, Step, Variant
from bench.training import run_of, training_step
from scaling.config.run import Run
from scaling.data.corpus import Corpus
from scaling.data.shards import prepare
from scaling.model.transformer import Weights, initialize
from scaling.ptq.apply import quantized
from scaling.ptq.calibration import calibrate
from scaling.ptq.measure import Trained, _stack_losses, measure
from scaling.ptq.settings import settings_of

MODELS = ("24k", "83k", "201k")
TOKENS_A_PARAMETER = 20
MOST = 0.05
"""Goal: all methods together take at most this share of the training."""

TOGETHER = 4
"""Models that are measured together, as a stack of them does at its end."""

EVALUATED = 4
"""Settings that are evaluated together: about as many as the harness would take at once."""


def groups(device: str, effort: Effort, scratch: Path) -> Iterator[Group]:
    """A group for each model. The corpus is built in `scratch`."""
    for model in MODELS[:1] if effort == "quick" else MODELS:
        yield Group.of(f"ptq/{model}", list(_Model(model, device, scratch).variants()), effort)


class _Model:
    """One model with fresh weights: what is timed does not depend on what they are."""

    def __init__(self, model: str, device: str, scratch: Path):
        # 4 million tokens instead of 33 million: calibration takes 16,384 of them wherever they are.
        data = ("data=synthetic", "data.corpus.documents=2048")
        self.overrides = (f"model={model}", *data, f"runtime.device={device}")
        self.device, self.scratch = torch.device(device), scratch

    def run(self, ptq: str) -> Run:
        return run_of(*self.overrides, f"ptq={ptq}")

    @property
    def corpus(self) -> Corpus:
        return _corpus(self.run("none"), self.scratch)

    @property
    def weights(self) -> Weights:
        fresh = initialize(self.run("none").model, self.corpus.vocab_size, [0])
        return {name: w.to(self.device) for name, w in fresh.items()}

    def variants(self) -> Iterator[Variant]:
        run = self.run("none")
        steps = TOKENS_A_PARAMETER * run.N // run.data.batch_tokens
        eager, compiled = "training step, eager", "training step, compiled"

        def share(goal: str | None = None, times: int = 1) -> tuple[Against, ...]:
            return tuple(Against(name=name, times=times * steps, goal=goal) for name in (eager, compiled))

        yield Variant(name=eager, make=lambda: self.training(compiled=False))
        yield Variant(name=compiled, make=lambda: self.training(compiled=True))
        count = len(settings_of(self.run("all")))
        goal = f"<= {MOST}"
        yield Variant(
            name="all methods",
            make=lambda: self.quantization("all", calibrated=False),
            against=share(goal),
            note=f"with calibration; {count} settings: rtn, gptq and awq, int2 to int8, channel and block16",
        )
        yield Variant(
            name=f"measurement of {TOGETHER} models",
            make=self.measurement,
            against=share(times=TOGETHER),
            note="that end together: as trained and as the next row has it; against their training one after the other",
        )
        for ptq in ("rtn", "gptq", "awq"):
            yield Variant(
                name="rtn" if ptq == "rtn" else f"calibration and {ptq}",
                make=lambda ptq=ptq: self.quantization(ptq, calibrated=False),
                against=share(goal),
                note="int2 to int8, channel, here and below" if ptq == "rtn" else None,
            )
        yield Variant(name="calibration", make=self.calibration, against=share())
        for ptq in ("gptq", "awq"):
            yield Variant(name=ptq, make=lambda ptq=ptq: self.quantization(ptq, calibrated=True), against=share())
        yield Variant(
            name="evaluation of one setting",
            make=self.evaluation,
            against=share(),
            note=f"{run.data.eval_windows:,} windows; timed as {EVALUATED} settings on a quarter of them",
        )

    def measurement(self) -> Step:
        """All that is recorded of models that end together: their losses, and those in every setting."""
        run = self.run("rtn")
        windows = self.corpus.windows(run.data.eval_windows, run.data.sequence_length)
        model = Trained(run=run, weights=self.weights, tokens_seen=run.D, settings=settings_of(run))
        return lambda: measure([model] * TOGETHER, self.corpus, windows)

    def training(self, *, compiled: bool) -> Step:
        return training_step([self.run("none")], self.corpus.vocab_size, compiled=compiled)

    def calibration(self) -> Step:
        run, weights, corpus = self.run("all"), self.weights, self.corpus
        return lambda: calibrate(run, weights, corpus)

    def quantization(self, ptq: str, *, calibrated: bool) -> Step:
        """Every setting of a choice of configs/ptq; with `calibrated` the calibration is there already."""
        run, weights, corpus = self.run(ptq), self.weights, self.corpus
        settings = settings_of(run)
        calibration = calibrate(run, weights, corpus) if calibrated else None

        def step() -> object:
            return quantized(weights, settings, cache(lambda: calibration or calibrate(run, weights, corpus)))

        return step

    def evaluation(self) -> Step:
        run = self.run("rtn")
        settings = settings_of(run)[:EVALUATED]
        stack, _ = quantized(self.weights, settings, self.calibration())
        windows = self.corpus.windows(run.data.eval_windows // EVALUATED, run.data.sequence_length)
        precisions = [s.precision(run.precision) for s in settings]
        return lambda: _stack_losses([run] * len(precisions), stack, precisions, windows)


_corpora: dict[Path, Corpus] = {}


def _corpus(run: Run, scratch: Path) -> Corpus:
    """The same for all models."""
    if scratch not in _corpora:
        _corpora[scratch] = prepare(run.data, scratch, lambda line: None)
    return _corpora[scratch]
