"""Rows: what belongs to whole processes. How to share out cores, several processes with few threads or one with all of
them; and what keeping freed memory is worth (`scaling.model.allocator`). On a CPU only."""

from collections.abc import Iterator
from functools import partial

import torch

from bench.team import Team
from bench.throughput import SMALL, model_flops, name_of
from bench.timing import Against, Effort, Group, Variant
from bench.training import Ours, Usual

PLACED = ("24k", "100k")
KEPT = ("24k", "800k")
WAYS = (
    {"members": 1, "compiled": False, "dtype": "float32"},
    {"members": 8, "compiled": False, "dtype": "float32"},
    {"members": 8, "compiled": True, "dtype": "bfloat16"},
)
"""What each of two processes trains. Compiling takes 10 to 40 s for each kind of process."""


def groups(device: str, effort: Effort) -> Iterator[Group]:
    if device != "cpu":
        return
    quick, threads = effort == "quick", torch.get_num_threads()
    if threads > 1:
        for model in PLACED[:1] if quick else PLACED:
            yield Group.of(f"placement/{model}", list(_placements(model, threads, quick)), effort)
    for model in KEPT[:1] if quick else KEPT:
        yield Group.of(f"allocator/{model}", list(_allocators(model, threads)), effort)


def _placements(model: str, threads: int, quick: bool) -> Iterator[Variant]:
    for settings in WAYS[:1] if quick else WAYS:
        half = Ours(model=model, device="cpu", overrides=SMALL, **settings)
        whole = Ours(model=model, device="cpu", overrides=SMALL, **settings | {"members": 2 * half.members})
        one = f"1 process, {threads} threads: {name_of(whole)}"
        each = threads // 2
        common = {
            "tokens": whole.run.data.batch_tokens * whole.members,
            "flops": model_flops(whole.run, whole.members),
        }
        yield Variant(name=one, make=_team(whole, 1, threads), **common)
        yield Variant(
            name=f"2 processes, {each} thread{'s' * (each > 1)} each: {name_of(half)}",
            make=_team(half, 2, each),
            against=(Against(name=one),),
            **common,
        )


def _allocators(model: str, threads: int) -> Iterator[Variant]:
    eager = {"model": model, "device": "cpu", "overrides": SMALL, "compiled": False, "dtype": "float32"}
    for way in (Ours(**eager), Usual(**eager)):
        common = {"tokens": way.run.data.batch_tokens, "flops": model_flops(way.run, 1)}
        yield Variant(name=name_of(way), make=_team(way, 1, threads, keep=False), **common)
        yield Variant(
            name=f"{name_of(way)}, memory kept",
            make=_team(way, 1, threads),
            against=(Against(name=name_of(way)),),
            **common,
        )


def _team(way: Ours | Usual, size: int, threads: int, *, keep: bool = True) -> partial:
    return partial(Team, way.make, size=size, threads=threads, keep=keep)
