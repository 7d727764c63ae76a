"""Training batches: the train stream cut into windows, in an order that is a pure function of (seed, step)."""

import numpy as np

from scaling.data.corpus import Corpus
from scaling.data.permutation import permute


class Batches:
    """Windows of T tokens plus their last target, `batch_size` a step.

    Every window is seen once before any is seen twice; each epoch has a permutation of its own. There is no state: a
    batch may be asked for in any order, by any number of processes.
    """

    def __init__(self, corpus: Corpus, sequence_length: int, batch_size: int, seed: int):
        self.train = corpus.train
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self.windows = corpus.unique_tokens(sequence_length) // sequence_length
        """Windows an epoch."""
        assert self.windows > 0

    def at(self, step: int) -> np.ndarray:
        """The batch of a step counted from 0: (B, T+1) int64; inputs are [:, :-1], targets [:, 1:]."""
        place = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epoch, place = np.divmod(place, self.windows)
        window = permute(place, self.windows, self.seed, epoch)
        token = window[:, None] * self.sequence_length + np.arange(self.sequence_length + 1)
        return self.train[token].astype(np.int64)
