"""Rows: a whole training step in each precision against the unquantized one, and against the usual way to write it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import peers
from bench.timing import Against, Effort, Group, Variant
from bench.training import UNQUANTIZED, Ours, Usual

NAME = "unquantized"
PRECISIONS = ("w4a4kv4", "fp4", "mxfp4", "nvfp4", "quest", "quartet")
SLOWEST = 1.15
"""Goal on a CPU: a quantized step takes at most so many unquantized ones."""

TORCHAO = (
    "plain PyTorch, FakeQuantizedLinear: int4 weights a channel, int4 activations a token with zero points; torchao "
    "quantizes no KV cache, and activations not with one scale a tensor"
)
SAME = f"the same loss as ours on the same weights, within {peers.TOLERANCE:g}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A choice of configs/model."""

    model: str
    members: int = 1
    """Models that are trained as one stack."""
    repeats: int = 5
    compiled: tuple[str, ...] = ("w4a4kv4",)
    """Precisions that are measured compiled too: each takes 10 to 40 s to compile where no cache has it."""


SIZES = (
    Size(model="24k"),
    Size(model="24k", members=4),
    Size(model="83k"),
    Size(model="664k", compiled=PRECISIONS),
    Size(model="3M", repeats=3, compiled=("w4a4kv4", "nvfp4")),
)


def groups(device: str, effort: Effort) -> Iterator[Group]:
    """A group for each size, eager and compiled."""
    for size in SIZES[:1] if effort == "quick" else SIZES:
        for compiled in (False, True):
            precisions = size.compiled if compiled and effort != "all" else PRECISIONS
            variants = list(_ours(size, precisions, device, compiled))
            if size.members == 1:
                variants += _usual(size, device, compiled)
            stacked = f"-x{size.members}" if size.members > 1 else ""
            name = f"step/{size.model}{stacked}/{'compiled' if compiled else 'eager'}"
            yield Group.of(name, variants, effort, size.repeats)


def _ours(size: Size, precisions: Sequence[str], device: str, compiled: bool) -> Iterator[Variant]:
    goal = f"<= {SLOWEST}" if device == "cpu" else None
    for name in (NAME, *precisions):
        step = Ours(
            model=size.model,
            members=size.members,
            precision=UNQUANTIZED if name == NAME else name,
            device=device,
            compiled=compiled,
        )
        against = () if name == NAME else (Against(name=NAME, goal=goal),)
        stack = f"{size.members} models as one stack" if name == NAME and size.members > 1 else None
        yield Variant(name=name, make=step.make, against=against, note=stack)


def _usual(size: Size, device: str, compiled: bool) -> Iterator[Variant]:
    """The peers: the same model with torch's own modules, and with torchao's linear layers."""
    plain = "plain PyTorch"
    yield Variant(
        name=plain,
        make=Usual(model=size.model, device=device, compiled=compiled).make,
        against=(Against(name=NAME),),
        note=SAME,
    )
    yield Variant(
        name="torchao int4",
        make=Usual(model=size.model, device=device, compiled=compiled, torchao=True).make,
        against=(Against(name="w4a4kv4", goal="> 1"), Against(name=plain)),
        note=TORCHAO,
    )
