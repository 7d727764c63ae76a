"""What the members of a stack go on from: restored into the stack when it starts, and saved while it is trained.

Checkpoints lie in run folders, which the first process alone reads and writes.
"""

import dataclasses
import time
from collections.abc import Sequence

import torch

from scaling.model.transformer import Weights, as_stack
from scaling.records.checkpoint import Checkpoint
from scaling.training.distributed import Processes
from scaling.training.members import Member, SharedModel
from scaling.training.stack import Stack


def restored(models: Sequence[SharedModel], vocab_size: int, device: torch.device, processes: Processes) -> Stack:
    """The stack at the start of its models; their members' metrics and means are then of that step too, and their
    checkpoints are let go of."""
    # Only the first process has read checkpoints; those of one model's members are equal.
    starts = [model.farthest.start for model in models]
    stack = Stack.start([model.run for model in models], vocab_size, starts, device)
    optimizer = stack.optimizer
    optimizer.steps = processes.from_first(lambda: optimizer.steps)
    for group in (stack.weights, optimizer.first, optimizer.second):
        processes.copy_from_first_(group.values())
    processes.copy_from_first_([optimizer.skipped])
    for model, step in zip(models, optimizer.steps, strict=True):
        for member in model.members:
            if processes.first:
                member.folder.forget_metrics_after(step * member.run.data.batch_tokens)
            if member.mean and member.start:
                member.mean.weights = as_stack(member.start.mean, device)
            member.start = None
    return stack


class Checkpointer:
    """Saves, every so often, what members go on from."""

    def __init__(self):
        self.saved_at = time.monotonic()

    def is_due(self, seconds: float) -> bool:
        """Whether more than so many seconds have passed since all were saved."""
        return time.monotonic() - self.saved_at > seconds

    def save_all(self, stack: Stack, models: Sequence[SharedModel]) -> None:
        for m, model in enumerate(models):
            for member in model.members:
                member.folder.save_checkpoint(resumable(stack, m, member))
        self.saved_at = time.monotonic()


def save_snapshot(stack: Stack, m: int, member: Member, tokens: int) -> None:
    """What branches of the member start from: its model behind so many tokens."""
    member.folder.save_snapshot(_state(stack, m, member), tokens)


def resumable(stack: Stack, m: int, member: Member) -> Checkpoint:
    """What a member of model m goes on from."""
    state = _state(stack, m, member)
    return dataclasses.replace(state, mean=_one(member.mean.weights)) if member.mean else state


def final(stack: Stack, m: int, member: Member) -> Checkpoint:
    """The trained model of a member: the mean of its weights where it averages them. A member that is killed behind
    this checkpoint comes back with the mean as its weights, and without a mean."""
    state = _state(stack, m, member, moments=False)
    mean = member.mean.weights if member.mean else {}
    return dataclasses.replace(state, weights=_one(mean) or state.weights)


def _state(stack: Stack, m: int, member: Member, *, moments: bool = True) -> Checkpoint:
    return stack.checkpoint(
        m,
        moments=moments,
        step=member.last_step or stack.optimizer.steps[m],
        seconds=member.seconds,
        skipped=member.skipped,
        skipped_in_a_row=member.skipped_in_a_row,
    )


def _one(weights: Weights) -> Weights:
    """Those of one model, (1, out, in), as a checkpoint has them, (out, in)."""
    return {name: w[0] for name, w in weights.items()}
