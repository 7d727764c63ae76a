"""Training steps as things to time: this package's (`Ours`), and those of the usual kind (`Usual`)."""

import dataclasses
import types
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from bench import peers
from bench.timing import Step, UnavailableError
from scaling.config.compose import composed
from scaling.config.data import vocab_size
from scaling.config.run import Run, build_run
from scaling.config.runtime import resolve_device
from scaling.data.batches import Batches
from scaling.data.corpus import Corpus
from scaling.data.feed import Feed
from scaling.model.transformer import EAGER, Program
from scaling.records.provenance import has_compiler
from scaling.training.distributed import ALONE
from scaling.training.gradients import Gradients
from scaling.training.stack import Stack
from scaling.training.steps import Steps

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
    graph: bool = False
    """Whether a GPU records the step and launches it as one."""

    @property
    def run(self) -> Run:
        return self._run(self.precision)

    def make(self) -> Step:
        runs = [dataclasses.replace(self.run, seed_init=seed, seed_data=seed) for seed in range(self.members)]
        return training_step(runs, vocab_size(self.run.data), compiled=self.compiled, graph=self.graph)


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
        batch = torch.from_numpy(random_batches(run, vocabulary).at(0, run.seed_data))
        tokens = batch[None].to(resolve_device(run.runtime.device))
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


def random_batches(run: Run, vocabulary: int) -> Batches:
    """Batches of a corpus of random tokens, of which every batch has all windows in another order."""
    count = run.batch_size * run.data.sequence_length
    train = torch.randint(vocabulary, (count + 1,)).numpy().astype(np.uint16 if vocabulary <= 2**16 else np.uint32)
    nothing = np.zeros(1, dtype=np.int64)
    corpus = Corpus(
        name="random", manifest={}, train=train, validation=train, train_offsets=nothing, validation_offsets=nothing
    )
    return Batches(corpus, run.data.sequence_length, run.batch_size)


def training_step(runs: Sequence[Run], vocabulary: int, *, compiled: bool, graph: bool = False) -> Step:
    """A step of the trainer on random tokens: batch, losses, gradients, clipping and AdamW; with `graph` it is recorded
    and launched as one. It returns the losses (M,), not read."""
    run = runs[0]
    device = torch.device(resolve_device(run.runtime.device))
    stack = Stack.start(list(runs), vocabulary, [None] * len(runs), device)
    gradients = Gradients(runs, device, ALONE)
    gradients.program = own_program(device.type) if compiled else EAGER
    steps = Steps(stack, gradients, Feed(random_batches(run, vocabulary), device), left=10**9, graph=graph)

    def step() -> torch.Tensor:
        if steps.unread == len(steps.ring):
            steps.read()
        steps.take()
        return steps.ring[steps.taken - 1, 0]

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
