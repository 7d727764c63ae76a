"""Batches for the steps of a stack, so that no step waits for them.

A thread makes them for many steps at once while those before are trained on, and one copy sends them to the device.
Where the stream fits on the device it is kept there, and only the numbers of windows are sent; otherwise their tokens
are. On a CPU the stream stays mapped and tokens are gathered by the thread, which takes reading from the disk off the
critical path too: 512 windows of 1,025 tokens took 1.2 ms from memory, and 6 to 800 ms where the file had to be read.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from scaling.data.batches import Batches

STEPS = 64
"""Made and sent at once."""

TOKENS = 2**22
"""Of all models and steps together that are sent at once, where tokens are: fewer steps then."""

ON_DEVICE_BYTES = 2**28
"""Streams up to this size lie on a GPU while it trains: little beside its memory, so that plans do not count it."""

SIGNED = {1: np.uint8, 2: np.int16, 4: np.int32}
"""Types of tokens that torch can gather on every device, by their size in bytes: those of two are wrapped around."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """The batches of some steps of a stack: model m's are those of `seeds[m]` from step `starts[m]` on."""

    seeds: tuple[int, ...]
    starts: tuple[int, ...]
    steps: int


class Feed:
    """Makes the batches of stacks that train on one corpus."""

    def __init__(self, batches: Batches, device: torch.device, on_device: bool | None = None):
        """`on_device`: whether the stream is kept on the device; None: on every one but a CPU, where it is small."""
        self.batches, self.device = batches, device
        if on_device is None:
            on_device = device.type != "cpu" and batches.train.nbytes <= ON_DEVICE_BYTES
        self.stream = self._on_device() if on_device else None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.next: tuple[Wanted, Future[torch.Tensor]] | None = None

    def steps(self, models: int, left: int) -> int:
        """How many steps of so many models to ask for at once, with `left` steps to go."""
        if self.stream is not None:
            return min(STEPS, left)
        each = models * len(self.batches.rows) * self.batches.sequence_length
        return min(STEPS, max(1, TOKENS // each), left)

    def get(self, wanted: Wanted, then: Wanted | None = None) -> torch.Tensor:
        """What `tokens` takes a step's batches from, (steps, M, B, ...), on the CPU (pinned, where a GPU reads it).
        `then` is made by the thread meanwhile."""
        made = None if self.next is None or self.next[0] != wanted else self.next[1]
        batches = self._made(wanted) if made is None else made.result()
        self.next = None if then is None else (then, self.thread.submit(self._made, then))
        return batches

    def tokens(self, sent: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The batch (M, B, T+1) int64 of the step that `place` (1,) counts in what was sent; inputs are [..., :-1],
        targets [..., 1:]."""
        tokens = sent.index_select(0, place)[0]
        if self.stream is not None:
            tokens = self.stream.index_select(0, tokens.view(-1)).view(*tokens.shape, -1)
        wraps = tokens.dtype == torch.int16
        tokens = tokens.long()
        return tokens.bitwise_and_(0xFFFF) if wraps else tokens

    def _made(self, wanted: Wanted) -> torch.Tensor:
        # Models of one seed at one step see the same batch.
        streams = dict.fromkeys(zip(wanted.seeds, wanted.starts, strict=True))
        seeds, starts = (np.array(values, dtype=np.int64) for values in zip(*streams, strict=True))
        windows = self.batches.windows(seeds, starts + np.arange(wanted.steps)[:, None])
        chosen = self._places(wanted, list(streams))
        if self.stream is not None:
            batches = windows[:, chosen]
        else:
            tokens = self.batches.tokens(windows)
            batches = tokens.view(SIGNED[tokens.dtype.itemsize])[:, chosen]
        return self.pinned(torch.from_numpy(np.ascontiguousarray(batches)))

    def pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in memory from which a GPU copies while the host goes on."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    @staticmethod
    def _places(wanted: Wanted, streams: Sequence[tuple[int, int]]) -> list[int] | slice:
        models = list(zip(wanted.seeds, wanted.starts, strict=True))
        return slice(None) if models == streams else [streams.index(model) for model in models]

    def _on_device(self) -> torch.Tensor:
        train = self.batches.train
        stream = torch.from_numpy(train.view(SIGNED[train.dtype.itemsize]).copy()).to(self.device)
        length = self.batches.sequence_length
        return stream.as_strided((self.batches.count, length + 1), (length, 1))
