"""What a study will take: arithmetic, time and money, before anything is spent. (Memory: `scaling.study.memory`.)"""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from scaling.config.data import vocab_size
from scaling.config.run import Run
from scaling.config.runtime import resolve_device
from scaling.console.accelerators import DEVICES
from scaling.errors import InputError
from scaling.model.transformer import losses
from scaling.ptq.settings import settings_of
from scaling.training.families import own_updates
from scaling.training.stack import Stack

CALIBRATION_SECONDS = 10.0
CALIBRATION_MEMBERS = 4
CALIBRATION_FLOPS = 2e11
"""Of one step that measures the speed: a second or so on a CPU. Larger batches are cut down to whole sequences."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
    """What hours on an accelerator are counted by."""

    device: str = "h100"
    mfu: float = 0.4
    """Share of the peak that is reached, in FLOPs of the model (`Work.total`). An assumption: nothing here was measured
    on a GPU. Fake quantization, and matrices as narrow as those of small models, stay below what large models reach."""
    per_hour: float | None = None

    def __post_init__(self):
        if self.device not in DEVICES:
            raise InputError(f"--device {self.device}: no such device; use one of {', '.join(DEVICES)}")
        if not 0 < self.mfu <= 1:
            raise InputError(f"--mfu {self.mfu}: must be above 0 and at most 1, a share of the device's peak")
        if self.per_hour is not None and not self.per_hour >= 0:
            raise InputError(f"--price-per-hour {self.per_hour}: must be 0 or above")

    def hours(self, flops: float) -> float:
        return flops / (self.mfu * DEVICES[self.device].peak) / 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What runs take, in tokens and FLOPs."""

    tokens: float = 0
    """Training tokens, those of an update that several runs share once."""
    six_nd: float = 0
    """6 N D of these tokens: N without embedding and head, and no attention."""
    training: float = 0
    """The same with the head and the attention, which weigh much in small models."""
    evaluation: float = 0
    """Measuring every final model and snapshot, as trained and under each quantization: forward passes."""

    @property
    def total(self) -> float:
        return self.training + self.evaluation

    def __add__(self, other: "Work") -> "Work":
        fields = (field.name for field in dataclasses.fields(self))
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in fields})


def work(runs: Sequence[Run]) -> Work:
    """What a list of runs takes that are trained as one stack: an update in which several are one copy counts once."""
    total = Work()
    for run, own in zip(runs, own_updates(runs), strict=True):
        tokens = len(own) * run.data.batch_tokens
        total += Work(
            tokens=tokens,
            six_nd=6.0 * run.N * tokens,
            training=3 * _forward(run) * tokens,
            evaluation=evaluation_cost(run),
        )
    return total


def total_work(stacks: Iterable[Sequence[Run]]) -> Work:
    """What the stacks of a study take."""
    return sum(map(work, stacks), start=Work())


def cost(run: Run) -> float:
    """FLOPs of a run with its evaluations: what jobs are balanced by."""
    return training_cost(run) + evaluation_cost(run)


def training_cost(run: Run) -> float:
    """FLOPs of the run's updates: three forward passes' worth a token. More than 6 N D, by the head and the
    attention."""
    return 3 * _forward(run) * (run.steps - run.first_step) * run.data.batch_tokens


def evaluation_cost(run: Run) -> float:
    """FLOPs of measuring the final model and each snapshot, as trained and under each quantization."""
    models = (1 + len(settings_of(run))) * len({run.steps, *map(run.step_at, run.snapshots)})
    return models * _forward(run) * run.data.eval_windows * run.data.sequence_length


def _forward(run: Run) -> float:
    """FLOPs of a forward pass, a token: two for each weight that it meets, four for each position that it attends to
    and each layer and channel."""
    model, t = run.model, run.data.sequence_length
    head = vocab_size(run.data) * model.d_model
    return 2.0 * (run.N + head) + 4.0 * model.n_layers * t * model.d_model


def recorded_rates(finished: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[int, float]:
    """N -> training FLOPs a second, from runs and their results. A run's seconds are its share of its stack's."""
    by_size: dict[int, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run, result in finished:
        by_size.setdefault(run.N, []).append((run, result))
    rates = {}
    for n, pairs in by_size.items():
        # Runs that were never one copy with others have made all their updates themselves.
        alone = sum(training_cost(run) for run, result in pairs if not result.get("shared_steps"))
        together = work([run for run, result in pairs if result.get("shared_steps")]).training
        seconds = sum(result["seconds"] for _, result in pairs)
        if seconds > 0:
            rates[n] = (alone + together) / seconds
    return rates


def measured_rates(runs: Sequence[Run], threads: int) -> dict[int, float]:
    """N -> training FLOPs a second, from about a second of eager forward and backward passes with random tokens on this
    machine; small models first, until `CALIBRATION_SECONDS` are over. Empty where even the smallest model's shortest
    pass is too long to wait for."""
    began, rates = time.monotonic(), {}
    for n in sorted({run.N for run in runs}):
        group = [run for run in runs if n == run.N]
        if time.monotonic() - began > CALIBRATION_SECONDS or _sequences(group[0], 1) == 0:
            break
        same = [run for run in group if run.stack_key == group[0].stack_key]
        rates[n] = _measured_rate(same[:CALIBRATION_MEMBERS], threads)
    return rates


def _sequences(run: Run, members: int) -> int:
    """How many sequences of a batch a step of `CALIBRATION_FLOPS` takes."""
    one = 3 * _forward(run) * run.data.sequence_length * members
    return min(run.tokens_at_once // run.data.sequence_length, int(CALIBRATION_FLOPS / one))


def _measured_rate(runs: list[Run], threads: int) -> float:
    torch.set_num_threads(threads)
    runs = runs if _sequences(runs[0], len(runs)) else runs[:1]
    run, vocabulary = runs[0], vocab_size(runs[0].data)
    device = torch.device(resolve_device(run.runtime.device))
    stack = Stack.start(runs, vocabulary, [None] * len(runs), device)
    shape = (len(runs), _sequences(run, len(runs)), run.data.sequence_length + 1)
    tokens = torch.randint(vocabulary, shape, device=device)
    dtype = getattr(torch, run.runtime.dtype)

    def step():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = losses(stack.weights, tokens[..., :-1], tokens[..., 1:], run.model, stack.precision).sum()
        loss.backward()
        loss.item()  # waits for a GPU

    step()  # warms up
    steps, began = 0, time.monotonic()
    while steps == 0 or time.monotonic() - began < 1.0:
        step()
        steps += 1
    tokens_a_second = steps * tokens[..., 1:].numel() / (time.monotonic() - began)
    return 3 * _forward(run) * tokens_a_second


def seconds(stack: Sequence[Run], rates: Mapping[int, float]) -> float:
    """Time to train and measure a stack at the rate of the nearest N that is known."""
    nearest = min(rates, key=lambda n: abs(n - stack[0].N))
    return work(stack).total / rates[nearest]
