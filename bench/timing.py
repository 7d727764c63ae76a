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
    """`<= x` or `> x`: what the ratio ought to be."""

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.times:,} x {self.name}"

    def met(self, ratio: float) -> bool | None:
        if self.goal is None:
            return None
        sign, bound = self.goal.split()
        return ratio <= float(bound) if sign == "<=" else ratio > float(bound)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing to time. `make` builds it, compiles what there is to compile, and returns the function to call."""

    name: str
    make: Callable[[], Step]
    against: tuple[Against, ...] = ()
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Variants that are timed in turn."""

    name: str
    variants: tuple[Variant, ...]
    repeats: int
    block_seconds: float
    """Steps are repeated until a block takes about as long."""

    @classmethod
    def of(cls, name: str, variants: Sequence[Variant], effort: Effort, repeats: int = 5) -> "Group":
        quick = effort == "quick"
        block = 0.1 if quick else 0.3
        return cls(
            name=name, variants=tuple(variants), repeats=min(repeats, 3) if quick else repeats, block_seconds=block
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
    against: str | None = None
    ratio: Spread | None = None
    """Seconds of the variant divided by those of `against`."""
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
    faults: dict[str, str] = {}
    for variant in group.variants:
        say(f"{group.name}: preparing {variant.name}")
        try:
            torch.manual_seed(0)
            step = variant.make()
            counts[variant.name] = max(1, math.ceil(group.block_seconds / _warm(step)))
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
    return [row for variant in group.variants for row in _rows(group, variant, seconds, counts, faults)]


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
            steps[name]()  # brings its memory back into the caches
            _wait()
            began = time.perf_counter()
            for _ in range(counts[name]):
                steps[name]()
            _wait()
            seconds[name][repeat] = (time.perf_counter() - began) / counts[name]
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _rows(
    group: Group, variant: Variant, seconds: dict[str, np.ndarray], counts: dict[str, int], faults: dict[str, str]
) -> list[Row]:
    fault = faults.get(variant.name)
    own = seconds.get(variant.name)
    common = {
        "group": group.name,
        "variant": variant.name,
        "seconds": None if own is None else Spread.of(own),
        "repeats": group.repeats,
        "steps": counts.get(variant.name),
        "note": fault or variant.note,
        "failed": fault is not None and fault.startswith("failed"),
    }
    rows = []
    for against in variant.against:
        other = seconds.get(against.name)
        if own is None or other is None:
            rows.append(Row(**common, against=str(against), goal=against.goal))
            continue
        ratio = Spread.of(own / (other * against.times))
        rows.append(Row(**common, against=str(against), ratio=ratio, goal=against.goal, met=against.met(ratio.median)))
    return rows or [Row(**common)]
