"""Losses of a batch and their gradients, however it is computed: in one pass or in several, on one process or on
several, compiled or not, with activations kept or computed again.

The loss of a model is the mean over the sequences of the batch. A pass over some of them contributes its sum divided by
the number of all, so that gradients add up over passes and processes, and each flows backward at the size that it has
when the batch is computed at once.
"""

import contextlib
from collections.abc import Sequence

import torch

from scaling.config.run import Run
from scaling.console import interrupt
from scaling.console.terminal import note
from scaling.errors import InputError
from scaling.model.transformer import EAGER, Program, compiled_program, in_chunks, losses, recomputing
from scaling.quantization.autocast import autocast, without_instructions
from scaling.records import provenance
from scaling.training.distributed import Processes
from scaling.training.stack import Stack

# Compiling costs tens of seconds and saves about a third of a step: it pays from some minutes of eager work on.
COMPILE_FLOPS = 2e13


class Gradients:
    """Computes them for runs that share a program."""

    def __init__(self, runs: Sequence[Run], device: torch.device, processes: Processes):
        self.run, self.device, self.processes = runs[0], device, processes
        self.dtype = getattr(torch, self.run.runtime.dtype)
        self.program = _program(runs, self.device, self.dtype)
        self.stack: Stack | None = None

    @property
    def compiled(self) -> bool:
        return self.program is not EAGER

    def __call__(self, stack: Stack, tokens_MBT: torch.Tensor) -> torch.Tensor:
        """Mean loss of each model over the whole batch (M,), of which `tokens` (M, B, T+1) are this process's share;
        the gradients of the sum of these means are left in the weights."""
        if self.stack is not stack:
            # Only several processes need a module: one trains on the bare weights.
            module = _losses if self.processes.alone else self.processes.wrapped(_Module(stack))
            self.stack, self.module = stack, module
        try:
            loss_M = self._by(self.program, tokens_MBT)
        except torch._dynamo.exc.BackendCompilerFailed as fault:
            interrupt.check()  # a scheduler's signal ends the compiler's processes as well
            # Several processes cannot start over: some of their gradients may be summed already.
            if self.run.runtime.compile == "on" or not self.processes.alone:
                wish, line = self.run.runtime.compile, str(fault).splitlines()[0]
                raise InputError(f"runtime.compile={wish}: {line}; use auto or off") from None
            note(f"torch.compile failed ({type(fault).__name__}); going on in eager mode")
            self.program = EAGER
            for w in stack.weights.values():
                w.grad = None
            loss_M = self._by(EAGER, tokens_MBT)
        return self.processes.sum_(loss_M)

    def _by(self, program: Program, tokens_MBT: torch.Tensor) -> torch.Tensor:
        if self.run.runtime.checkpoint_activations:
            program = recomputing(program)
        if self.run.runtime.loss_tokens:
            program = in_chunks(program, self.run.runtime.loss_tokens)
        pieces = tokens_MBT.split(self.run.tokens_at_once // self.run.data.sequence_length, dim=1)
        piece_losses = []
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            # Gradients are summed over the processes once, behind the last piece.
            with contextlib.nullcontext() if last or self.processes.alone else self.module.no_sync():
                with autocast(self.device, self.dtype):
                    loss_MB = self.module(self.stack, piece, program)
                whole = loss_MB.shape[1] == self.run.batch_size
                loss_M = loss_MB.mean(dim=1) if whole else loss_MB.sum(dim=1) / self.run.batch_size
                loss_M.sum().backward()  # a sum, not a mean: each model's gradient is that of its own loss
            piece_losses.append(loss_M.detach())
        return sum(piece_losses[1:], start=piece_losses[0])


def _losses(stack: Stack, tokens_MBT: torch.Tensor, program: Program) -> torch.Tensor:
    model, precision = stack.runs[0].model, stack.precision
    return losses(stack.weights, tokens_MBT[..., :-1], tokens_MBT[..., 1:], model, precision, program)


class _Module(torch.nn.Module):
    """A stack in the shape that DistributedDataParallel takes: weights as parameters, which they are from then on, and
    losses as the forward pass."""

    def __init__(self, stack: Stack):
        super().__init__()
        self.weights = torch.nn.ParameterList(stack.weights.values())
        stack.weights = dict(zip(stack.weights, self.weights, strict=True))

    forward = staticmethod(_losses)


def _program(runs: Sequence[Run], device: torch.device, dtype: torch.dtype) -> Program:
    wish = runs[0].runtime.compile
    if wish != "off" and without_instructions(device, dtype):
        # Compiled casts to bfloat16 are slow there: a third of the speed of eager mode.
        if wish == "auto":
            return EAGER
        note("this CPU has no bfloat16 instructions, and compiled code is slower there: use runtime.compile=off")
    worth_it = sum(r.flops for r in runs) >= COMPILE_FLOPS and provenance.has_compiler()
    return compiled_program() if wish == "on" or (wish == "auto" and worth_it) else EAGER
