"""Training batches: the train stream cut into windows, in an order that is a pure function of (seed, step).

The stream stays on disk: it is mapped, and a batch is the only copy that is made of its tokens. Mapped pages that were
read count as memory of the process until the kernel wants them for something else.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scaling.data.corpus import Corpus
from scaling.data.permutation import permute


class Batches:
    """Windows of T tokens plus their last target, `batch_size` a step.

    Every window is seen once before any is seen twice; each epoch has a permutation of its own. There is no state: a
    batch may be asked for in any order, by any number of processes.
    """

    def __init__(
        self, corpus: Corpus, sequence_length: int, batch_size: int, seed: int, share: tuple[int, int] = (0, 1)
    ):
        """`share` (i, n): only the i-th of n equal shares of each batch."""
        self.train = corpus.train
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        i, n = share
        assert batch_size % n == 0
        self.rows = range(batch_size * i // n, batch_size * (i + 1) // n)
        self.windows = corpus.unique_tokens(sequence_length) // sequence_length
        """Windows an epoch."""
        assert self.windows > 0

    def at(self, step: int) -> np.ndarray:
        """The batch of a step counted from 0: (B, T+1) int64; inputs are [:, :-1], targets [:, 1:]. Of several
        processes each has its rows of it."""
        place = step * self.batch_size + np.arange(self.rows.start, self.rows.stop, dtype=np.int64)
        epoch, place = np.divmod(place, self.windows)
        window = permute(place, self.windows, self.seed, epoch)
        token = window[:, None] * self.sequence_length + np.arange(self.sequence_length + 1)
        return self.train[token].astype(np.int64)


class Ahead:
    """Batches of steps that follow each other: a thread fetches the next one while this one is trained on.

    It pays where windows come from a disk: 512 of 1,025 tokens took 1.2 ms from memory, and 6 to 800 ms where the file
    had to be read first.
    """

    def __init__(self, batches: Batches):
        self.batches = batches
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.step, self.next = -1, None

    def at(self, step: int) -> np.ndarray:
        batch = self.next.result() if step == self.step else self.batches.at(step)
        self.step, self.next = step + 1, self.thread.submit(self.batches.at, step + 1)
        return batch
