"""The steps of a stack, each taken without waiting: batch, losses, gradients and update are queued on the
device, and their results stay in a ring buffer there until they are read.

All that a step needs from the host is made for many steps at once: numbers of windows (or tokens) by a thread
(`scaling.data.feed`), learning rates and corrections as tables (`adamw.rates`). Which of these steps is next is counted
on the device. So a step is the same operations on the same memory each time, and a GPU can record it and launch it as
one (`CudaGraph`):

    place                 (1,)         the step's row of everything below
    sent                  (K, M, ...)  batches
    rates                 (K, 3, M)    learning rates, corrections of the moments
    ring                  (K, 3, M)    losses, norms of the gradients, whether the update was made
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from scaling.config.run import Run
from scaling.data.feed import Feed, Wanted
from scaling.errors import InputError
from scaling.model.transformer import Weights
from scaling.training.adamw import rates
from scaling.training.distributed import Processes
from scaling.training.gradients import Gradients
from scaling.training.stack import Stack

WARM_UP = 3
"""Real steps before one is recorded, on a stream of their own: code is compiled, and libraries take their memory."""


class Update(NamedTuple):
    """What one update showed of M models."""

    losses: list[float]
    """Of the batch, before the update."""
    norms: list[float]
    """Of the gradients."""
    made: list[bool]
    """Whether the model was changed: not, where its gradient was not finite, and not once it has diverged."""


class Steps:
    """Takes the steps of one stack."""

    def __init__(self, stack: Stack, gradients: Gradients, feed: Feed, left: int, *, graph: bool = False):
        """`left` steps at most; with `graph` a GPU records one and launches it as a whole."""
        self.stack, self.gradients, self.feed, self.left = stack, gradients, feed, left
        self.launch = CudaGraph(self._step, stack.weights) if graph else self._step
        self.unread = self.taken = 0
        """Steps since the last reading, and of those that were sent."""
        wanted = self._wanted(0)
        rows, models, device = wanted.steps, len(stack.runs), gradients.device
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = torch.zeros(rows, 3, models, device=device)
        self.ring = torch.zeros(rows, 3, models, device=device)
        self.sent: torch.Tensor | None = None
        self._send(wanted)

    @property
    def until_full(self) -> int:
        """How many more steps can be taken before what they showed has to be read."""
        return self.rows - self.taken if self.taken < self.rows else min(len(self.ring), self.left)

    def take(self) -> None:
        """One step of every model."""
        if self.taken == self.rows:
            assert not self.unread, "the ring is full"
            self._send(self._wanted(0))
        self.launch()
        self.taken += 1
        self.unread += 1
        self.left -= 1
        optimizer = self.stack.optimizer
        optimizer.steps = [step + 1 for step in optimizer.steps]

    def read(self) -> list[Update]:
        """What the steps since the last call showed, in order. This waits for a GPU."""
        rows = self.ring[self.taken - self.unread : self.taken].tolist()
        self.unread = 0
        return [Update(losses, norms, [value > 0 for value in made]) for losses, norms, made in rows]

    def _step(self) -> None:
        optimizer = self.stack.optimizer
        losses = self.gradients(self.stack, self.feed.tokens(self.sent, self.place))
        norms, made = optimizer.update(self.stack.weights, self.rates.index_select(0, self.place)[0])
        self.ring.index_copy_(0, self.place, torch.stack([losses, norms, made.float()])[None])
        self.place += 1

    def _send(self, wanted: Wanted) -> None:
        """Send what these steps need, and have the next ones made meanwhile."""
        runs, self.rows, self.taken = self.stack.runs, wanted.steps, 0
        sent = self.feed.get(wanted, self._wanted(self.rows) if self.left > self.rows else None)
        table = torch.from_numpy(rates(runs, wanted.starts, self.rows))
        if self.sent is None:
            self.sent = torch.empty_like(sent, device=self.gradients.device)
        for into, values in ((self.sent, sent), (self.rates, self.feed.pinned(table))):
            into[: self.rows].copy_(values, non_blocking=True)
        self.place.zero_()

    def _wanted(self, ahead: int) -> Wanted:
        """The batches of the steps behind `ahead` more."""
        runs, steps = self.stack.runs, self.stack.optimizer.steps
        return Wanted(
            seeds=tuple(run.seed_data for run in runs),
            starts=tuple(step + ahead for step in steps),
            steps=self.feed.steps(len(runs), self.left - ahead),
        )


class CudaGraph:
    """A training step recorded on a GPU once and launched as one from then on.

    Small models keep a card busy for less time than the host takes to launch their hundreds of kernels. A CUDA graph is
    the list of them with the addresses that they work on. Not tried on a GPU yet: off unless `runtime.cuda_graph` asks
    for it.

    Called in place of a step, which leaves no gradients behind. The first steps are taken as they are; then one is
    recorded, which takes none, and launched."""

    def __init__(self, step: Callable[[], None], weights: Weights):
        self.step, self.weights = step, weights
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = 0

    def __call__(self) -> None:
        if self.warm < WARM_UP:
            self.warm += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step()
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:
            # Gradients that are there would be added to, at addresses outside the graph's memory.
            assert all(w.grad is None for w in self.weights.values())
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        self.graph.replay()


def wants_graph(runs: Sequence[Run], device: torch.device, processes: Processes) -> bool:
    """Whether `runtime.cuda_graph` asks for recorded steps here.

    Raises:
        InputError: it says `on` where steps cannot be recorded.
    """
    wish = runs[0].runtime.cuda_graph
    if wish == "off":
        return False
    obstacle = None
    if device.type != "cuda":
        obstacle = f"steps are recorded on a CUDA device only, and this is {device.type}"
    elif not processes.alone:
        obstacle = "not with several processes"
    elif any(run.schedule.kind == "average" for run in runs):
        obstacle = "not with schedule=average, which reads the weights after each step"
    if obstacle and wish == "on":
        raise InputError(f"runtime.cuda_graph=on: {obstacle}; use off or auto")
    return obstacle is None
