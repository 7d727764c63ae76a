"""The `synthetic` corpus: a Markov source whose entropy is known, so that a fitted E can be compared with the truth.

The next symbol c follows the last two, (a, b), with probability

    P(c | a, b) = smoothing / A + (1 - smoothing) * (order_one * Z1(c | b) + (1 - order_one) * Z2(c | a, b))

where A is the size of the alphabet and every Z is the Zipf distribution rank^-s under a ranking of the symbols drawn at
random for that context. Small models learn the part that needs one symbol, larger ones the table of pairs.

Documents are independent stretches of the stationary source, `document_tokens` = L symbols and a separator each. The
entropy rate h is the mean entropy of P under the stationary distribution of pairs, and what a model can reach on
windows of T tokens lies a little above it, for two reasons that can be computed as well (`Chain.reachable_loss`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from scaling.config.data import DataConfig, SyntheticCorpus
from scaling.data.documents import Document

_CHUNK = 1024
"""Documents that are drawn at once."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A stationary Markov chain of order two over A symbols."""

    transition: np.ndarray
    """(A, A, A) float64: P(c | a, b) at [a, b, c]; all positive."""
    pairs: np.ndarray
    """(A, A) float64: stationary probability of two symbols in a row."""

    @staticmethod
    def drawn(config: SyntheticCorpus, seed: int) -> "Chain":
        """The chain of a corpus (formula above)."""
        rng, size = np.random.default_rng(seed), config.alphabet
        zipf = np.arange(1.0, size + 1) ** -config.zipf
        zipf /= zipf.sum()

        def ranked(*shape: int) -> np.ndarray:
            return zipf[rng.random((*shape, size)).argsort(-1)]

        mixed = config.order_one * ranked(size)[None] + (1 - config.order_one) * ranked(size, size)
        return Chain.of(config.smoothing / size + (1 - config.smoothing) * mixed)

    @staticmethod
    def of(transition: np.ndarray) -> "Chain":
        """Find the stationary pairs by power iteration, to rounding error."""
        size = transition.shape[-1]
        pairs, change = np.full((size, size), size**-2.0), 1.0
        while change > 1e-14:
            after = np.einsum("ab,abc->bc", pairs, transition)
            after /= after.sum()
            change, pairs = np.abs(after - pairs).sum(), after
        return Chain(transition=transition, pairs=pairs)

    @property
    def entropy_rate(self) -> float:
        """h: nats a symbol, given all symbols before it."""
        return float((self.pairs[..., None] * -self.transition * np.log(self.transition)).sum())

    @property
    def first_order_entropy(self) -> float:
        """H(X2 | X1): nats a symbol, given the one before it only."""
        single = self.pairs.sum(0)
        return float(-(self.pairs * np.log(self.pairs)).sum() + (single * np.log(single)).sum())

    def reachable_loss(self, length: int, document_tokens: int) -> float:
        """Mean loss (nats a token) of a model that has learnt the source perfectly, on held-out windows.

        The first target of a window of T = `length` tokens has one symbol of context: H(X2 | X1) instead of h. And a
        window lies inside one document, which the model cannot know: after k symbols without a separator it gives the
        separator a probability of 1 / (L - k + 1), which costs ln((L - k + 1) / (L - k)) at target k and sums to
        ln(L / (L - T)).
        """
        ends = np.log(document_tokens / (document_tokens - length))
        return float((self.first_order_entropy + (length - 1) * self.entropy_rate + ends) / length)

    def draw(self, documents: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """(documents, length) symbols, each row from the stationary source."""
        size = self.transition.shape[-1]
        # One sorted array for all contexts: context i owns the cumulative probabilities between i and i + 1.
        cumulative = self.transition.reshape(size * size, size).cumsum(1)
        cumulative = (np.arange(size * size)[:, None] + cumulative / cumulative[:, -1:]).ravel()
        out = np.empty((documents, length), dtype=np.uint8)
        context = np.searchsorted(self.pairs.ravel().cumsum(), rng.random(documents)).clip(max=size * size - 1)
        for t in range(length):
            if t < 2:
                symbol = context // size if t == 0 else context % size
            else:
                place = np.searchsorted(cumulative, context + rng.random(documents), side="right")
                symbol = (place - context * size).clip(0, size - 1)
                context = context % size * size + symbol
            out[:, t] = symbol
        return out


def reachable_loss(data: DataConfig) -> float:
    """What the loss of a run on its synthetic corpus can fall to (`Chain.reachable_loss`), in nats a token."""
    assert isinstance(data.corpus, SyntheticCorpus)
    return Chain.drawn(data.corpus, data.seed).reachable_loss(data.sequence_length, data.corpus.document_tokens)


class SyntheticSource:
    """Held-out documents first, then those to train on."""

    max_tokens = None

    def __init__(self, config: SyntheticCorpus, seed: int, validation_documents: int):
        self.config, self.seed, self.validation_documents = config, seed, validation_documents

    def fingerprint(self) -> list:
        return []

    def scan(self, note: Callable[[str], None]) -> None:
        self.chain = Chain.drawn(self.config, self.seed)
        self.size = (self.config.documents + self.validation_documents) * self.config.document_tokens

    def documents(self) -> Iterator[Document]:
        rng = np.random.default_rng([self.seed, 1])
        total = self.config.documents + self.validation_documents
        for first in range(0, total, _CHUNK):
            rows = self.chain.draw(min(_CHUNK, total - first), self.config.document_tokens, rng)
            for number, row in enumerate(rows, first):
                yield Document(text=row, size=len(row), held_out=number < self.validation_documents)

    def describe(self) -> dict:
        return {
            "entropy_rate_nats": self.chain.entropy_rate,
            "first_order_entropy_nats": self.chain.first_order_entropy,
        }
