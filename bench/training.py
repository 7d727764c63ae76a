"""Training steps as things to time: this package's (`Ours`), and those of the usual kind (`Usual`)."""

import dataclasses
import types
from collections.abc import Sequence
from functools import cache

import torch

from bench import peers
from bench.timing import Step, UnavailableError
from scaling.config.compose import composed
from scaling.config.data import vocab_size
from scaling.config.run import Run, build_run
from scaling.config.runtime import resolve_device
from scaling.model.transformer import EAGER, Program, losses
from scaling.records.provenance import has_compiler
from scaling.training.stack import Stack

UNQUANTIZED = "bf16"
"""The choice of configs/precision without quantization."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """What both kinds have: it names what `make` builds."""

    model: str
    """A choice of configs/model."""
    device: str
    compiled: bool
    dtype: str = "auto"
    overrides: tuple[str, ...] = ()
    """Further settings, as on the command line of scaling.train."""

    def _run(self, precision: str) -> Run:
        choices = (f"model={self.model}", f"precision={precision}")
        return run_of(*choices, f"runtime.device={self.device}", f"runtime.dtype={self.dtype}", *self.overrides)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ours(_Training):
    """A step of the trainer."""

    precision: str = UNQUANTIZED
    """A choice of configs/precision."""
    members: int = 1
    """Models that are trained as one stack."""

    @property
    def run(self) -> Run:
        return self._run(self.precision)

    def make(self) -> Step:
        runs = [dataclasses.replace(self.run, seed_init=seed, seed_data=seed) for seed in range(self.members)]
        return training_step(runs, vocab_size(self.run.data), compiled=self.compiled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usual(_Training):
    """A step of one model of the same function, written the usual way (`bench.peers`)."""

    torchao: bool = False
    """Whether its linear layers are torchao's quantized ones."""

    @property
    def run(self) -> Run:
        return self._run(UNQUANTIZED)

    def make(self) -> Step:
        if self.compiled:
            check_compiler(self.device)
        run, vocabulary = self.run, vocab_size(self.run.data)
        tokens = random_tokens([run], vocabulary)
        weights = Stack.start([run], vocabulary, [None], tokens.device).member(0)
        model = peers.with_weights(run, weights)
        peers.check_same(model, run, weights, tokens)
        if self.torchao:
            peers.quantize_linear(model)
        return peers.usual_step(model, run, tokens[0], compiled=self.compiled)


@cache
def run_of(*overrides: str) -> Run:
    """A run of the project's own configs."""
    # At a learning rate of any use, a batch that is seen hundreds of times would be learnt by heart.
    return build_run(composed(["optimizer.lr=1e-7", *overrides]))


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
    """`scaling.model.transformer.compiled_program` without its reset, which would throw away the other variants' code.
    Dynamo keeps compiled code by code object, so each program compiles copies of its own: variants then neither share a
    limit of recompilations nor make each other's widths dynamic."""
    check_compiler(device)

    def own(f: types.FunctionType) -> types.FunctionType:
        return types.FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)

    return Program(*(torch.compile(own(f), dynamic=False) for f in EAGER))


def check_compiler(device: str) -> None:
    """Raise UnavailableError where torch.compile cannot work."""
    if device == "cpu" and not has_compiler():
        raise UnavailableError("torch.compile needs g++ and Python.h")
