"""The source's entropies against enumeration, and its samples against its table."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from scaling.config.data import SyntheticCorpus
from scaling.data.shards import prepare
from scaling.data.synthetic import Chain, reachable_loss


def small(size: int, seed: int = 0) -> Chain:
    table = np.random.default_rng(seed).dirichlet(np.full(size, 0.7), size=(size, size)) * 0.98 + 0.02 / size
    return Chain.of(table)


def probability(chain: Chain, word: tuple[int, ...]) -> float:
    p = chain.pairs[word[0], word[1]]
    for a, b, c in zip(word, word[1:], word[2:], strict=False):
        p *= chain.transition[a, b, c]
    return p


def block_entropy(chain: Chain, length: int) -> float:
    """Entropy of `length` symbols in a row, by enumeration of all words."""
    size = len(chain.pairs)
    p = np.array([probability(chain, word) for word in product(range(size), repeat=length)])
    return float(-(p * np.log(p)).sum())


@pytest.mark.parametrize("size", [2, 3])
def test_entropies_by_enumeration(size):
    chain = small(size)
    single = chain.pairs.sum(0)
    first = block_entropy(chain, 2) + (single * np.log(single)).sum()
    assert chain.first_order_entropy == pytest.approx(first, abs=1e-12)
    for length in (3, 6):
        step = block_entropy(chain, length) - block_entropy(chain, length - 1)
        assert chain.entropy_rate == pytest.approx(step, abs=1e-12)


def test_stationary_pairs():
    chain = small(5)
    assert np.allclose(np.einsum("ab,abc->bc", chain.pairs, chain.transition), chain.pairs, rtol=0, atol=1e-13)
    assert np.allclose(chain.pairs.sum(0), chain.pairs.sum(1), rtol=0, atol=1e-13)


def test_known_entropies():
    uniform = Chain.of(np.full((4, 4, 4), 0.25))
    assert uniform.entropy_rate == pytest.approx(np.log(4)) == uniform.first_order_entropy
    # A chain of order one whose two symbols are left with probability .1 and .3.
    flip = np.array([[0.9, 0.1], [0.3, 0.7]])
    chain = Chain.of(np.broadcast_to(flip, (2, 2, 2)))
    entropy = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)  # noqa: E731
    assert chain.entropy_rate == pytest.approx(0.75 * entropy(0.1) + 0.25 * entropy(0.3))
    assert chain.first_order_entropy == pytest.approx(chain.entropy_rate)


def test_reachable_loss_by_enumeration():
    """The best predictor of the train stream, worked out word by word, scored on windows inside documents."""
    chain, length, window = small(2), 5, 3
    separator = 2
    words = {word: probability(chain, word) for word in product(range(2), repeat=length)}
    seen: dict[tuple, Counter] = {}
    for one, other in product(words, repeat=2):  # two documents in a row, cut at every phase
        stream = (*one, separator, *other, separator)
        for start in range(length + 1):
            for k in range(1, window + 1):
                context, following = stream[start : start + k], stream[start + k]
                seen.setdefault(context, Counter())[following] += words[one] * words[other]
    loss = 0.0
    starts = length - window
    for word, p in words.items():
        for start in range(starts):
            for k in range(1, window + 1):
                found = seen[word[start : start + k]]
                loss -= p * np.log(found[word[start + k]] / found.total()) / (starts * window)
    assert chain.reachable_loss(window, length) == pytest.approx(loss, abs=1e-12)


def test_samples_follow_the_table():
    chain = small(3, seed=2)
    symbols = chain.draw(4000, 100, np.random.default_rng(0))
    counts = np.zeros((3, 3, 3))
    np.add.at(counts, (symbols[:, :-2], symbols[:, 1:-1], symbols[:, 2:]), 1)
    total = counts.sum(-1, keepdims=True)
    error = np.sqrt(chain.transition * (1 - chain.transition) / total)
    assert (np.abs(counts / total - chain.transition) < 4.5 * error).all()
    # The first two symbols are stationary already.
    first = np.zeros((3, 3))
    np.add.at(first, (symbols[:, 0], symbols[:, 1]), 1)
    assert (np.abs(first / 4000 - chain.pairs) < 4.5 * np.sqrt(chain.pairs / 4000)).all()
    # And the surprise of the sample is the entropy rate.
    surprise = -np.log(chain.transition[symbols[:, :-2], symbols[:, 1:-1], symbols[:, 2:]]).mean(1)
    assert abs(surprise.mean() - chain.entropy_rate) < 4 * surprise.std() / np.sqrt(len(surprise))


def test_corpus(settings, tmp_path):
    config = SyntheticCorpus(alphabet=6, zipf=1.5, order_one=0.5, smoothing=0.05, documents=1500, document_tokens=30)
    data = settings(config, validation_documents=50)
    corpus = prepare(data, tmp_path)
    assert corpus.vocab_size == 7 and corpus.manifest["separator"] == 6
    assert len(corpus.train) == 1500 * 31 and len(corpus.validation) == 50 * 31
    train = np.asarray(corpus.train).reshape(1500, 31)
    assert (train[:, -1] == 6).all() and train[:, :-1].max() == 5
    assert len({row.tobytes() for row in train[::1024]}) == 2  # a later chunk is not the first again
    chain = Chain.drawn(config, data.seed)
    assert corpus.manifest["entropy_rate_nats"] == chain.entropy_rate < np.log(6)
    assert reachable_loss(data) == chain.reachable_loss(8, 30) > chain.entropy_rate
    assert (corpus.windows(16, 8).tokens < 6).all()


def test_drawn_table():
    config = SyntheticCorpus(alphabet=5, zipf=2, order_one=0.25, smoothing=0.1, documents=1, document_tokens=9)
    chain = Chain.drawn(config, 3)
    assert np.allclose(chain.transition.sum(-1), 1)
    zipf = np.array([1, 1 / 4, 1 / 9, 1 / 16, 1 / 25])
    zipf /= zipf.sum()
    # Every probability is the uniform part plus one Zipf weight of each of the two rankings.
    allowed = 0.02 + 0.9 * (0.25 * zipf[:, None] + 0.75 * zipf)
    assert np.isclose(chain.transition[..., None], allowed.ravel(), atol=1e-12).any(-1).all()
    assert not np.allclose(chain.transition, Chain.drawn(config, 4).transition)
    assert all(not np.allclose(a, b) for a, b in pairwise(chain.transition.reshape(25, 5)))
