"""Training batches: the train stream cut into windows, in an order that is a pure function of (seed, step).

The stream stays on disk: it is mapped, and a batch is the only copy that is made of its tokens. Mapped pages that were
read count as memory of the process until the kernel wants them for something else.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from scaling.data.corpus import Corpus
from scaling.data.permutation import permute


class Batches:
    """Windows of T tokens plus their last target, `batch_size` a step.

    Every window is seen once before any is seen twice; each epoch has a permutation of its own. There is no state: a
    batch may be asked for in any order, by any number of processes.
    """

    def __init__(self, corpus: Corpus, sequence_length: int, batch_size: int, share: tuple[int, int] = (0, 1)):
        """`share` (i, n): only the i-th of n equal shares of each batch."""
        self.train = corpus.train
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        i, n = share
        assert batch_size % n == 0
        self.rows = range(batch_size * i // n, batch_size * (i + 1) // n)
        self.count = corpus.unique_tokens(sequence_length) // sequence_length
        """Windows an epoch."""
        assert self.count > 0

    def windows(self, seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Which windows steps counted from 0 take: seeds and steps, of any shapes that broadcast to (...), give
        (..., B) int64. Window w is `train[w T : (w + 1) T + 1]`. Of several processes each has its rows of a batch.

        Many steps are asked for at once because numpy's hundred calls take as long for one batch as for twenty.
        """
        seeds, steps = np.broadcast_arrays(seeds, steps)
        place = steps[..., None] * self.batch_size + np.arange(self.rows.start, self.rows.stop, dtype=np.int64)
        epoch, place = np.divmod(place, self.count)
        return permute(place, self.count, seeds[..., None], epoch)

    def tokens(self, windows: np.ndarray) -> np.ndarray:
        """The tokens of windows (...) with their last targets, (..., T+1), of the stream's own type."""
        return self.overlapping[windows]

    @property
    def overlapping(self) -> np.ndarray:
        """All windows of an epoch as rows, (windows, T+1): a view, in which a row's last token is the next one's first.
        It may not be written to."""
        (size,) = self.train.strides
        shape = (self.count, self.sequence_length + 1)
        return as_strided(self.train, shape, (size * self.sequence_length, size), writeable=False)

    def at(self, step: int, seed: int) -> np.ndarray:
        """The batch of a step: (B, T+1) int64; inputs are [:, :-1], targets [:, 1:]."""
        return self.tokens(self.windows(np.int64(seed), np.int64(step))).astype(np.int64)
