"""Rows: how fast models of one size train, alone and as stacks, against the usual way to train them one after the other
and against their matmuls alone.

The FLOPs are model FLOPs, six for every token and weight of a matmul: what the matmuls of the forward and the backward
pass take. A tied head is such a matmul, so every parameter counts; the embedding of a model with a head of its own is
looked up and does not. Attention, norms and the update are not counted, nor is anything that is computed again: they
are what keeps the share of the peak below one.

The peak is measured in the turns of the others: exactly these matmuls, at the shapes and in the dtype of the variant,
one after the other into memory that is there. In float32 and bfloat16 it is another one, and it rises with the size.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch

from bench.steps import SAME, TORCHAO
from bench.timing import Against, Effort, Group, Step, Variant
from bench.training import UNQUANTIZED, Ours, Usual, run_of
from scaling.config.data import vocab_size
from scaling.config.run import Run
from scaling.config.runtime import resolve_device

QUANTIZED = "w4a4kv4"
SHORT = {"float32": "f32", "bfloat16": "bf16"}

SMALL = ("data.batch_tokens=4096",)
LARGE = (
    "data.batch_tokens=32768",
    "data.sequence_length=1024",
    "data/tokenizer=bpe",
    "data.tokenizer.vocab_size=32768",
)
"""The paper's sequences, an eighth of its batch, and a vocabulary of the usual size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """A choice of configs/model."""

    model: str
    stacks: tuple[int, ...]
    overrides: tuple[str, ...] = SMALL
    repeats: int = 5
    full: tuple[int, ...] = (1,)
    """Stacks that are compiled in float32 too: each takes 10 to 40 s to compile where no cache has it."""


SIZES = (
    Size(model="24k", stacks=(1, 4, 16, 64)),
    Size(model="100k", stacks=(1, 4, 16, 64), repeats=3, full=(1, 16)),
    Size(model="800k", stacks=(1, 4, 16), repeats=3),
    Size(model="3M", stacks=(1, 4), repeats=3),  # 16 take more than five seconds a step
)
"""For a CPU; bench.gpu.cells has those of a card."""

USUAL_DTYPE = "float32"
"""What a plain loop trains in on a CPU."""

PLAIN, COMPILED, MATMULS = "plain", "compiled", "matmuls"
GOALS = {
    # model, stack, precision, against what: how many times as fast
    ("100k", 1, UNQUANTIZED, PLAIN): 1.8,
    ("100k", 4, QUANTIZED, PLAIN): 2,
    ("100k", 16, QUANTIZED, PLAIN): 2,
    ("800k", 1, UNQUANTIZED, PLAIN): 2.5,
    ("800k", 1, UNQUANTIZED, COMPILED): 1.8,
    ("3M", 1, UNQUANTIZED, PLAIN): 2.5,
    ("3M", 1, UNQUANTIZED, COMPILED): 1.8,
    ("3M", 1, UNQUANTIZED, MATMULS): 0.5,
}
"""Goals of the fastest way to train, which is compiled and in bfloat16."""


def groups(device: str, effort: Effort) -> Iterator[Group]:
    """A group for each size."""
    for size in SIZES[:1] if effort == "quick" else SIZES:
        variants = list(_Variants(size, device, effort).all())
        yield Group.of(f"throughput/{size.model}", variants, effort, size.repeats, memory=device)


def matmul_shapes(run: Run) -> list[tuple[int, int]]:
    """(out, in) of every matrix of a model that a matmul multiplies by, the head among them."""
    shapes = run.model.shapes(vocab_size(run.data))
    return [shape for name, shape in shapes.items() if name != "embedding" or run.model.tied_head]


def model_flops(run: Run, members: int) -> float:
    """Model FLOPs of one step of a stack."""
    weights = sum(rows * columns for rows, columns in matmul_shapes(run))
    return 6.0 * weights * run.data.batch_tokens * members


def matmuls(run: Run, members: int, dtype: torch.dtype) -> Step:
    """The matmuls of a step and nothing else: for each matrix W those of the outputs x W^T, of the inputs' gradient
    dy W, and of the matrix's gradient dy^T x. Matrices of one shape share their operands."""
    device, tokens = resolve_device(run.runtime.device), run.data.batch_tokens

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(members, *shape, device=device, dtype=dtype)

    operands = {shape: (new(tokens, shape[1]), new(*shape), new(tokens, shape[0])) for shape in set(matmul_shapes(run))}
    results = {shape: tuple(torch.empty_like(t) for t in tensors) for shape, tensors in operands.items()}

    def step() -> None:
        for shape in matmul_shapes(run):
            (x, w, dy), (dx, dw, y) = operands[shape], results[shape]
            torch.bmm(x, w.transpose(1, 2), out=y)
            torch.bmm(dy, w, out=dx)
            torch.bmm(dy.transpose(1, 2), x, out=dw)

    return step


def name_of(way: Ours | Usual) -> str:
    """What a variant is called."""
    how = f"{'compiled' if way.compiled else 'eager'}, {SHORT[way.dtype]}"
    if isinstance(way, Usual):
        return f"{'torchao int4' if way.torchao else 'plain PyTorch'}, {how}"
    quantized = "" if way.precision == UNQUANTIZED else f", {way.precision}"
    return f"{models(way.members)}{quantized}, {how}"


def models(count: int) -> str:
    return f"{count} model{'s' * (count > 1)}"


def _peak_name(members: int, dtype: str) -> str:
    return f"matmuls of {models(members)}, {SHORT[dtype]}"


class _Variants:
    """Those of one size."""

    def __init__(self, size: Size, device: str, effort: Effort):
        self.size, self.device, self.effort = size, device, effort
        self.common = {"model": size.model, "device": device, "overrides": size.overrides}
        self.stacks = size.stacks[:2] if effort == "quick" else size.stacks
        self.run = run_of(f"model={size.model}", f"runtime.device={device}", *size.overrides)
        self.ways = list(self._ours())
        self.names = {name_of(way) for way in self.ways}

    def all(self) -> Iterator[Variant]:
        for usual in self._usual():
            note = TORCHAO if usual.torchao else SAME
            # Once: those of the compiled ones are the same.
            once = None if usual.compiled else note
            yield self._variant(usual, 1, peak=_peak_name(1, usual.dtype), note=once)
        for peak, members, dtype in dict.fromkeys((self._peak(w), w.members, w.dtype) for w in self.ways):
            make = partial(matmuls, self.run, members, getattr(torch, dtype))
            yield Variant(name=peak, make=make, flops=model_flops(self.run, members))
        for way in self.ways:
            yield self._variant(way, way.members, peak=self._peak(way), against=tuple(self._against(way)))

    def _variant(self, way: Ours | Usual, members: int, **more) -> Variant:
        # What both count is the same in every precision and dtype.
        tokens, flops = self.run.data.batch_tokens * members, model_flops(self.run, members)
        return Variant(name=name_of(way), make=way.make, tokens=tokens, flops=flops, **more)

    def _peak(self, way: Ours) -> str:
        return _peak_name(way.members, way.dtype)

    def _usual(self) -> Iterator[Usual]:
        for compiled in (False, True):
            yield self._plain(compiled)
        yield self._plain(True, "bfloat16")
        for compiled in (False, True):
            yield dataclasses.replace(self._plain(compiled), torchao=True)

    def _plain(self, compiled: bool, dtype: str | None = None) -> Usual:
        return Usual(compiled=compiled, dtype=dtype or USUAL_DTYPE, **self.common)

    def _ours(self) -> Iterator[Ours]:
        """Eager as the plain loop is, compiled in bfloat16, and some compiled in float32 too."""
        for members in self.stacks:
            common = {"members": members, **self.common}
            if members <= 16:
                yield Ours(compiled=False, dtype=USUAL_DTYPE, **common)
            if self.effort == "quick" and members > 1:
                continue
            full = self.effort == "all" or (members in self.size.full and self.effort == "normal")
            for precision in (UNQUANTIZED, QUANTIZED):
                if full:
                    yield Ours(compiled=True, dtype=USUAL_DTYPE, precision=precision, **common)
                yield Ours(compiled=True, dtype="bfloat16", precision=precision, **common)

    def _against(self, way: Ours) -> Iterator[Against]:
        def usual(peer: Usual, kind: str) -> Against:
            return Against(name=name_of(peer), times=way.members, goal=self._goal(way, kind))

        yield usual(self._plain(False), PLAIN)
        if way.precision == UNQUANTIZED:
            yield usual(self._plain(True), COMPILED)
            if way.dtype != USUAL_DTYPE:
                yield usual(self._plain(True, way.dtype), f"{COMPILED} in {way.dtype}")
        else:
            yield usual(dataclasses.replace(self._plain(True), torchao=True), "torchao")
            yield Against(name=name_of(dataclasses.replace(way, precision=UNQUANTIZED)))
        alone = name_of(dataclasses.replace(way, members=1))
        if way.members > 1 and alone in self.names:
            yield Against(name=alone, times=way.members)
        if goal := self._goal(way, MATMULS):
            yield Against(name=self._peak(way), goal=goal)

    def _goal(self, way: Ours, kind: str) -> str | None:
        if not way.compiled or way.dtype != "bfloat16":
            return None
        times = GOALS.get((self.size.model, way.members, way.precision, kind))
        return None if times is None else f">= {times:g}x"
