"""Rows: a whole training step in each precision against the unquantized one, and against the usual way to write it."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir

from bench import peers
from bench.timing import Against, Effort, Group, Step, UnavailableError, Variant
from scaling.config import Run, build_run, resolve_device
from scaling.estimate import vocab_size
from scaling.model import EAGER, Program, losses
from scaling.provenance import has_compiler
from scaling.stack import Stack
from scaling.train import CONFIGS, plain_config

UNQUANTIZED = "unquantized"
PRECISIONS = ("w4a4kv4", "fp4", "mxfp4", "nvfp4", "quest", "quartet")
SLOWEST = 1.15
"""Goal on a CPU: a quantized step takes at most so many unquantized ones."""


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
    for name in (UNQUANTIZED, *precisions):

        def make(precision: str = "bf16" if name == UNQUANTIZED else name) -> Step:
            runs = _members(size, device, precision)
            return training_step(runs, vocab_size(runs[0].data), compiled=compiled)

        against = () if name == UNQUANTIZED else (Against(name=UNQUANTIZED, goal=goal),)
        stack = f"{size.members} models as one stack" if name == UNQUANTIZED and size.members > 1 else None
        yield Variant(name=name, make=make, against=against, note=stack)


def _usual(size: Size, device: str, compiled: bool) -> Iterator[Variant]:
    """The peers: the same model with torch's own modules, and with torchao's linear layers."""

    def make(*, torchao: bool) -> Step:
        if compiled:
            check_compiler(device)
        (run,) = _members(size, device, "bf16")
        tokens = random_tokens([run], vocab_size(run.data))
        weights = Stack.start([run], vocab_size(run.data), [None], tokens.device).member(0)
        model = peers.with_weights(run, weights)
        peers.check_same(model, run, weights, tokens)
        if torchao:
            peers.quantize_linear(model)
        return peers.usual_step(model, run, tokens[0], compiled=compiled)

    plain = "plain PyTorch"
    yield Variant(
        name=plain,
        make=lambda: make(torchao=False),
        against=(Against(name=UNQUANTIZED),),
        note=f"the same loss as ours on the same weights, within {peers.TOLERANCE:g}",
    )
    yield Variant(
        name="torchao int4",
        make=lambda: make(torchao=True),
        against=(Against(name="w4a4kv4", goal="> 1"), Against(name=plain)),
        note="plain PyTorch, FakeQuantizedLinear: int4 weights a channel, int4 activations a token with zero points; "
        "torchao quantizes no KV cache, and activations not with one scale a tensor",
    )


def run_of(*overrides: str) -> Run:
    """A run of the project's own configs."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        # At a learning rate of any use, a batch that is seen hundreds of times would be learnt by heart.
        return build_run(plain_config(compose("train", ["optimizer.lr=1e-7", *overrides])))


def _members(size: Size, device: str, precision: str) -> list[Run]:
    where = (f"model={size.model}", f"precision={precision}", f"runtime.device={device}")
    return [run_of(*where, f"seed={seed}") for seed in range(size.members)]


def random_tokens(runs: Sequence[Run], vocabulary: int) -> torch.Tensor:
    """(M, B, T + 1) on the runs' device."""
    run = runs[0]
    shape = (len(runs), run.batch_size, run.data.sequence_length + 1)
    return torch.randint(vocabulary, shape, device=resolve_device(run.runtime.device))


def training_step(runs: Sequence[Run], vocabulary: int, *, compiled: bool) -> Step:
    """A step of the trainer: losses, gradients, clipping and AdamW, on one batch of random tokens."""
    run = runs[0]
    device = torch.device(resolve_device(run.runtime.device))
    stack = Stack.start(list(runs), vocabulary, [None] * len(runs), device)
    tokens = random_tokens(runs, vocabulary)
    program = own_program(device.type) if compiled else EAGER
    dtype = getattr(torch, run.runtime.dtype)

    def step() -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss_MB = losses(stack.weights, tokens[..., :-1], tokens[..., 1:], run.model, stack.precision, program)
        loss_M = loss_MB.mean(dim=1)
        loss_M.sum().backward()
        stack.optimizer.step(stack.weights)
        return loss_M.detach()

    return step


def own_program(device: str) -> Program:
    """`scaling.model.compiled_program` without its reset, which would throw away the other variants' code. Dynamo keeps
    compiled code by code object, so each program compiles copies of its own: variants then neither share a limit of
    recompilations nor make each other's widths dynamic."""
    check_compiler(device)

    def own(f: types.FunctionType) -> types.FunctionType:
        return types.FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)

    return Program(*(torch.compile(own(f), dynamic=False) for f in EAGER))


def check_compiler(device: str) -> None:
    """Raise UnavailableError where torch.compile cannot work."""
    if device == "cpu" and not has_compiler():
        raise UnavailableError("torch.compile needs g++ and Python.h")
