"""Section `throughput`: what is timed on a card, in the order of what is worth most if time runs out.

Most cells are a group of variants that are timed in turn (`bench.timing`), so that their ratios hold whatever the clock
does. Preparing them, compilation included, is counted too. Of each step of this package is recorded how many kernels
it launches and for how long they keep the card busy: a step takes no less than the larger of the time to launch them
and that time. `floor` are the fewest FLOPs and bytes of a step.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from bench.gpu import host
from bench.gpu.launches import launches
from bench.gpu.results import Results
from bench.throughput import LARGE, SMALL, matmul_shapes, matmuls, model_flops, models
from bench.timing import Against, Group, Variant, measure
from bench.training import UNQUANTIZED, Ours, Usual
from scaling.config.from_dict import plain

EAGER, COMPILED, MATMULS = "plain PyTorch, eager", "plain PyTorch, compiled", "matmuls"
PRECISIONS = ("w4a4kv4", "nvfp4")
GOAL_100K, GOAL_3M, GOAL_110M, SLOWEST = ">= 20x", ">= 6x", ">= 0.45x", "<= 1.15"
"""Predicted before anything was measured: against models one after the other in plain PyTorch, eager; of the
matmuls' speed; and a quantized step against an unquantized one."""
WIDE = ("30M", "110M")
"""Models that are timed with the paper's sequences and a vocabulary of the usual size."""
TINY = ("data.batch_tokens=256", "data.sequence_length=64")

Say = Callable[[str], None]
Work = Callable[[Say], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One line of throughput.jsonl."""

    name: str
    seconds: float
    """What it needs at least: with less left it is not begun."""
    work: Work
    """Measures, given where to say how far it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """Training steps that are timed in turn. The first is compared with all that train a single model and with the
    matmuls, the others of as many models with the first."""

    ours: tuple[Ours, ...]
    usual: tuple[Usual, ...] = ()
    goals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What is compared with -> what the ratio ought to be, as `bench.timing.Against` has it."""
    peak: bool = False
    """Whether the matmuls alone are timed too."""
    repeats: int = 5

    def group(self, name: str) -> Group:
        first, variants = self.ours[0], [_usual(usual) for usual in self.usual]
        if self.peak:
            make = partial(matmuls, first.run, first.members, getattr(torch, first.run.runtime.dtype))
            variants.append(Variant(name=MATMULS, make=make, flops=model_flops(first.run, first.members)))
        alone = [*(v.name for v in variants if v.name != MATMULS)]
        alone += [name_of(way) for way in self.ours[1:] if way.members == 1 < first.members]
        against = [self._against(other, first.members) for other in alone]
        against += [self._against(MATMULS, 1)] if self.peak else []
        variants.append(self._variant(first, tuple(against)))
        for way in self.ours[1:]:
            same = way.members == first.members
            variants.append(self._variant(way, (self._against(name_of(first), 1),) if same else ()))
        return Group(name=name, variants=tuple(variants), repeats=self.repeats, block_seconds=0.3, memory=first.device)

    def _against(self, other: str, times: int) -> Against:
        return Against(name=other, times=times, goal=self.goals.get(other))

    def _variant(self, way: Ours, against: tuple[Against, ...]) -> Variant:
        return Variant(
            name=name_of(way),
            make=way.make,
            tokens=way.run.data.batch_tokens * way.members,
            flops=model_flops(way.run, way.members),
            peak=MATMULS if self.peak else None,
            against=against,
        )


def name_of(way: Ours) -> str:
    """What a variant is called."""
    quantized = "" if way.precision == UNQUANTIZED else f", {way.precision}"
    recorded = ", recorded" if way.graph else ""
    return f"{models(way.members)}{quantized}, {'compiled' if way.compiled else 'eager'}{recorded}"


def _usual(way: Usual) -> Variant:
    name = COMPILED if way.compiled else EAGER
    return Variant(name=name, make=way.make, tokens=way.run.data.batch_tokens, flops=model_flops(way.run, 1))


def cells(device: str, *, tiny: bool) -> list[Cell]:
    """All cells, the first ones first. `tiny`: a few of them, with models that a CPU steps in a moment."""

    def common(model: str, compiled: bool = True) -> dict[str, Any]:
        overrides = TINY if tiny else LARGE if model in WIDE else SMALL
        size = {"model": "2k" if tiny else model, "overrides": overrides, "compiled": compiled and not tiny}
        return {**size, "device": device, "dtype": "bfloat16"}

    def ours(
        model: str, members: int, precision: str = UNQUANTIZED, compiled: bool = True, graph: bool = False
    ) -> Ours:
        members = min(members, 2) if tiny else members
        return Ours(members=members, precision=precision, graph=graph, **common(model, compiled))

    def recorded(model: str, members: int, precision: str = UNQUANTIZED) -> Steps:
        ways = [
            ours(model, members, precision, compiled, graph) for compiled in (True, False) for graph in (False, True)
        ]
        return Steps(ours=tuple(ways))

    def quantized(model: str, members: int, slowest: str | None = None) -> Steps:
        ways = [ours(model, members, precision) for precision in (UNQUANTIZED, *PRECISIONS)]
        return Steps(ours=tuple(ways), goals={name_of(ways[0]): slowest} if slowest else {})

    def usual(model: str, *compiled: bool) -> tuple[Usual, ...]:
        return tuple(Usual(**{**common(model), "compiled": c}) for c in compiled)

    def steps(name: str, seconds: float, timed: Steps) -> Cell:
        timed = dataclasses.replace(timed, repeats=2) if tiny else timed
        return Cell(name=name, seconds=0 if tiny else seconds, work=partial(_timed, timed, name))

    def other(name: str, seconds: float, work: Callable[[Ours, Say], dict[str, Any]]) -> Cell:
        corpus = host.TINY_CORPUS if tiny else host.CORPUS
        way = ours("24k", 64)
        way = dataclasses.replace(way, overrides=(*way.overrides, *corpus))
        return Cell(name=name, seconds=0 if tiny else seconds, work=partial(work, way))

    peer = usual("100k", False) if tiny else usual("100k", False, True)
    every = [
        steps("100k", 45, Steps(ours=(ours("100k", 64), ours("100k", 1)), usual=peer, goals={EAGER: GOAL_100K})),
        steps("110M", 40, Steps(ours=(ours("110M", 1),), peak=True, goals={MATMULS: GOAL_110M})),
        other("host", 30, host.loop),
        steps("100k recorded", 60, recorded("100k", 64)),
        steps("3M", 40, Steps(ours=(ours("3M", 16), ours("3M", 1)), usual=usual("3M", False), goals={EAGER: GOAL_3M})),
        steps("24k", 30, Steps(ours=(ours("24k", 256), ours("24k", 1)))),
        steps("100k quantized", 40, quantized("100k", 64)),
        steps("110M quantized", 50, quantized("110M", 1, SLOWEST)),
        steps("3M quantized", 40, quantized("3M", 16)),
        steps("30M", 30, Steps(ours=(ours("30M", 1),), peak=True)),
        steps("24k recorded", 60, recorded("24k", 64, "w4a4kv4")),
        steps("100k eager", 20, Steps(ours=(ours("100k", 64, compiled=False), ours("100k", 1, compiled=False)))),
        other("measurement", 40, host.measurement),
    ]
    return [cell for cell in every if not tiny or cell.name in ("100k", "110M", "host", "measurement")]


def run(results: Results, end: float, device: str, *, tiny: bool, say: Say) -> int:
    """Measure what is not measured yet, until `end` on the monotonic clock.

    Exit status: 0, 1 where a cell failed, 3 where time ran out.
    """
    failed = False
    measured = {line["cell"] for line in results.lines("throughput") if not line["failed"]}
    for cell in cells(device, tiny=tiny):
        left = end - time.monotonic()
        if cell.name in measured:
            say(f"{cell.name}: measured before")
        elif left < cell.seconds:
            say(f"{cell.name}: needs {cell.seconds:.0f} s, {max(0, left):.0f} s are left")
            return 1 if failed else 3
        else:
            began = time.monotonic()
            try:
                outcome = cell.work(say)
            except Exception as fault:  # one cell's fault costs no other
                outcome = {"failed": True, "note": f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}"}
            failed |= outcome["failed"]
            line = {"cell": cell.name, "device": device, **outcome, "took": round(time.monotonic() - began, 1)}
            results.add("throughput", line)
            torch.cuda.empty_cache()
    return int(failed)


def _timed(steps: Steps, name: str, say: Say) -> dict[str, Any]:
    """Rows of a group, and what each of its steps launches."""
    seen: dict[str, dict[str, float]] = {}

    def watched(variant: Variant) -> Variant:
        def make():
            began = time.monotonic()
            step = variant.make()
            step()
            seconds = time.monotonic() - began
            seen[variant.name] = {"prepared": round(seconds, 1), **launches(step)}
            return step

        return dataclasses.replace(variant, make=make)

    group = steps.group(name)
    rows = plain(measure(dataclasses.replace(group, variants=tuple(map(watched, group.variants))), say))
    floors = {name_of(way): floor(way) for way in steps.ours}
    return {"failed": any(row["failed"] for row in rows), "rows": rows, "steps": seen, "floors": floors}


def floor(way: Ours) -> dict[str, float]:
    """Least work of a step: FLOPs of its matmuls; bytes of weights and both moments, read and written in float32, of
    gradients, written and read, and of what the three matmuls of each matrix read and write in the step's dtype."""
    run, shapes = way.run, matmul_shapes(way.run)
    size = torch.finfo(getattr(torch, run.runtime.dtype)).bits // 8
    weights = sum(rows * columns for rows, columns in shapes)
    streams = sum(3 * (rows + columns) * run.data.batch_tokens for rows, columns in shapes)
    each = 4 * 2 * 4 * weights + size * (3 * weights + streams)
    return {"flops": model_flops(run, way.members), "bytes": float(way.members * each)}
