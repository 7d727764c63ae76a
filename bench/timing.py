"""Times variants side by side.

Seconds are noise: clock rates, neighbours and the memory allocator change them by a third within minutes. So variants
that are compared are timed in turn, block by block, and what is reported of two is the median over the repeats of the
ratio within a repeat, with its quartiles.
"""

import gc
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch._dynamo.utils import counters

from bench.memory import Watch

Step = Callable[[], object]
Effort = Literal["quick", "normal", "all"]


class UnavailableError(Exception):
    """A variant cannot be measured here. Its message says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a variant is compared with."""

    name: str
    """Another variant of the group."""
    times: int = 1
    """How many steps of that one step of this is compared with."""
    goal: str | None = None
    """`<= x` or `> x`: what the ratio ought to be. `>= yx`: that of this y ought to be done in the time of one."""

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.times:,} x {self.name}"

    def met(self, ratio: float) -> bool | None:
        if self.goal is None:
            return None
        sign, bound = self.goal.split()
        if bound.endswith("x"):
            assert sign == ">="
            return 1 / ratio >= float(bound[:-1])
        return ratio <= float(bound) if sign == "<=" else ratio > float(bound)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing to time. `make` builds it, compiles what there is to compile, and returns the function to call."""

    name: str
    make: Callable[[], Step]
    against: tuple[Against, ...] = ()
    note: str | None = None
    tokens: int | None = None
    """Tokens that one step trains on, those of all its models together."""
    flops: float | None = None
    """Model FLOPs of one step (`bench.throughput.model_flops`)."""
    peak: str | None = None
    """The variant of the group that does the matmuls of these FLOPs and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Variants that are timed in turn."""

    name: str
    variants: tuple[Variant, ...]
    repeats: int
    block_seconds: float
    """Steps are repeated until a block takes about as long."""
    memory: str | None = None
    """The device whose memory each variant's step is watched for; None: not watched."""

    @classmethod
    def of(
        cls, name: str, variants: Sequence[Variant], effort: Effort, repeats: int = 5, memory: str | None = None
    ) -> "Group":
        quick = effort == "quick"
        return cls(
            name=name,
            variants=tuple(variants),
            repeats=min(repeats, 3) if quick else repeats,
            block_seconds=0.1 if quick else 0.3,
            memory=memory,
        )


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        low, median, high = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median=median, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant against one other; `seconds` is None where it could not be measured, and `note` says why."""

    group: str
    variant: str
    seconds: Spread | None
    """A step's."""
    repeats: int
    steps: int | None
    """Timed steps in a block."""
    tokens_per_second: float | None = None
    """Tokens of all models together, at the median time."""
    model_flops: float | None = None
    """Model FLOP/s at the median time."""
    peak_share: Spread | None = None
    """Model FLOP/s as a share of those of the same matmuls alone."""
    peak_memory_mb: float | None = None
    """Most that tensors take during a step, those between steps included (`bench.memory`)."""
    against: str | None = None
    ratio: Spread | None = None
    """Seconds of the variant divided by those of `against`."""
    speed_up: Spread | None = None
    """How many of the variant are done in the time of what it is against: 1 / ratio."""
    goal: str | None = None
    met: bool | None = None
    note: str | None = None
    failed: bool = False


def measure(group: Group, say: Callable[[str], None]) -> list[Row]:
    """Prepare every variant, then time them in turn. A variant that cannot be prepared costs its own rows only."""
    # Compiled code of the group before would count towards dynamo's limits.
    torch._dynamo.reset()
    gc.collect()
    steps: dict[str, Step] = {}
    counts: dict[str, int] = {}
    memory: dict[str, float] = {}
    faults: dict[str, str] = {}
    for variant in group.variants:
        say(f"{group.name}: preparing {variant.name}")
        try:
            torch.manual_seed(0)
            watch = Watch(group.memory) if group.memory else None
            step = variant.make()
            counts[variant.name] = max(1, math.ceil(group.block_seconds / _warm(step)))
            if watch:
                memory[variant.name] = watch.peak(step)
            steps[variant.name] = step
        except UnavailableError as fault:
            faults[variant.name] = f"skipped: {fault}"
        except Exception as fault:
            say(traceback.format_exc())
            faults[variant.name] = f"failed: {type(fault).__name__}: {(str(fault).splitlines() or [''])[0]}"
    graphs = counters["stats"]["unique_graphs"]
    seconds = _in_turn(group, steps, counts, say)
    if counters["stats"]["unique_graphs"] != graphs:
        faults |= {name: "failed: something was compiled while it was timed" for name in steps}
    measured = _Measured(seconds=seconds, counts=counts, memory=memory, faults=faults)
    return [row for variant in group.variants for row in _rows(group, variant, measured)]


def _warm(step: Step) -> float:
    """Seconds a step, once it has been compiled and its memory is there."""
    step()
    _wait()
    began, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - began < 0.05:
        step()
        _wait()
        count += 1
    return (time.perf_counter() - began) / count


def _in_turn(
    group: Group, steps: dict[str, Step], counts: dict[str, int], say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Seconds a step of every variant, (repeats,)."""
    seconds = {name: np.zeros(group.repeats) for name in steps}
    for repeat in range(group.repeats):
        say(f"{group.name}: timing {len(steps)} variants, {repeat + 1} of {group.repeats}")
        # To and fro, so that a steady drift of the clock rate does not favour whoever comes first.
        for name in list(steps) if repeat % 2 == 0 else reversed(steps):
            step = steps[name]
            if counts[name] > 1:
                step()  # brings its memory back into the caches, which matters to short ones
                _wait()
            began = time.perf_counter()
            for _ in range(counts[name]):
                step()
            _wait()
            seconds[name][repeat] = (time.perf_counter() - began) / counts[name]
    return seconds


def _wait() -> None:
    """Until a GPU has done what was ordered."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What was measured in a group, by variant."""

    seconds: dict[str, np.ndarray]
    """(repeats,) each."""
    counts: dict[str, int]
    memory: dict[str, float]
    faults: dict[str, str]


def _rows(group: Group, variant: Variant, measured: _Measured) -> list[Row]:
    name, fault = variant.name, measured.faults.get(variant.name)
    own = measured.seconds.get(name)
    common = {
        "group": group.name,
        "variant": name,
        "seconds": None if own is None else Spread.of(own),
        "repeats": group.repeats,
        "steps": measured.counts.get(name),
        "peak_memory_mb": measured.memory.get(name),
        "note": fault or variant.note,
        "failed": fault is not None and fault.startswith("failed"),
    }
    if own is not None:
        middle, peak = np.median(own).item(), measured.seconds.get(variant.peak)
        common["tokens_per_second"] = variant.tokens and variant.tokens / middle
        common["model_flops"] = variant.flops and variant.flops / middle
        common["peak_share"] = None if peak is None else Spread.of(peak / own)
    rows = []
    for against in variant.against:
        compared = {"against": str(against), "goal": against.goal}
        other = measured.seconds.get(against.name)
        if own is not None and other is not None:
            ratios = own / (other * against.times)
            ratio = Spread.of(ratios)
            compared |= {"ratio": ratio, "speed_up": Spread.of(1 / ratios), "met": against.met(ratio.median)}
        rows.append(Row(**common, **compared))
    return rows or [Row(**common)]
