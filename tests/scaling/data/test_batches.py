"""Batches: which tokens, in which order, how often."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scaling.data.batches import Batches
from scaling.data.corpus import Corpus


def corpus(tokens: int) -> Corpus:
    """Tokens that name their own place in the stream."""
    stream = np.arange(tokens, dtype=np.uint32)
    nothing = np.zeros(1, dtype=np.int64)
    return Corpus(
        name="c", manifest={}, train=stream, validation=stream, train_offsets=nothing, validation_offsets=nothing
    )


def starts(batches: Batches, steps: range, seed: int) -> list[int]:
    return np.concatenate([batches.at(step, seed)[:, 0] for step in steps]).tolist()


def test_windows_are_pieces_of_the_stream_with_their_targets():
    batch = Batches(corpus(1000), 10, 7).at(3, seed=0)
    assert batch.shape == (7, 11) and batch.dtype == np.int64
    assert (np.diff(batch, axis=1) == 1).all()
    assert (batch[:, 0] % 10 == 0).all()


def test_every_window_once_before_any_twice():
    # 100 tokens hold 9 windows of 10 whose last target exists, and batches of 4 straddle the epochs.
    seen = starts(Batches(corpus(100), 10, 4), range(27), seed=1)
    epochs = [seen[i : i + 9] for i in range(0, 108, 9)]
    assert all(sorted(epoch) == list(range(0, 90, 10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_last_target_is_inside_the_stream():
    exact = Batches(corpus(101), 10, 10)
    assert exact.count == 10 and exact.at(0, seed=0).max() == 100
    assert Batches(corpus(100), 10, 10).count == 9


def test_pure_function_of_seed_and_step():
    one, other = Batches(corpus(5000), 8, 16), Batches(corpus(5000), 8, 16)
    forward = [one.at(step, seed=3) for step in range(20)]
    assert all(np.array_equal(other.at(step, seed=3), forward[step]) for step in reversed(range(20)))
    assert not np.array_equal(Batches(corpus(5000), 8, 16).at(0, seed=4), forward[0])


def test_batch_size_does_not_change_the_order():
    large, small = Batches(corpus(5000), 8, 16), Batches(corpus(5000), 8, 4)
    assert starts(large, range(3), seed=3) == starts(small, range(12), seed=3)


def test_many_seeds_and_steps_at_once_are_each_alone():
    batches = Batches(corpus(300), 10, 4, share=(1, 2))  # epochs of 29 windows end within
    seeds, steps = np.array([3, 0, 3]), np.array([0, 5, 9]) + np.arange(12)[:, None]
    windows = batches.windows(seeds, steps)
    assert windows.shape == (12, 3, 2)
    for k in range(12):
        for m in range(3):
            alone = batches.at(steps[k, m], seeds[m])
            assert np.array_equal(batches.tokens(windows[k, m]), alone)
            assert np.array_equal(alone[:, 0], windows[k, m] * 10)


def test_stream_of_200_million_windows_is_not_enumerated():
    endless = SimpleNamespace(train=None, unique_tokens=lambda length: 200_000_000 * length)
    windows = Batches(endless, 128, 512).windows(np.int64(0), np.int64(10**6))
    assert len(np.unique(windows)) == 512 and windows.min() >= 0 and windows.max() < 200_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux gives a process's own memory")
def test_batches_of_a_large_shard_copy_nothing_but_themselves(tmp_path):
    """A shard of 200 MB is mapped: memory of the process's own grows by batches alone, wherever they are read."""
    shard = np.memmap(tmp_path / "train.bin", dtype="<u2", mode="w+", shape=100_000_000)
    shard[:] = 7
    shard.flush()
    del shard
    train = np.memmap(tmp_path / "train.bin", dtype="<u2", mode="r")
    nothing = np.zeros(1, dtype=np.int64)
    mapped = Corpus(
        name="c", manifest={}, train=train, validation=train, train_offsets=nothing, validation_offsets=nothing
    )
    batches = Batches(mapped, 1024, 16)
    batches.at(0, seed=0)
    before = own_memory()
    for step in range(1, 6104, 3):  # a third of all windows: their pages are most of the file
        batch = batches.at(step, seed=0)
    assert (batch == 7).all()
    assert own_memory() - before < 10_000_000


def own_memory() -> int:
    """Bytes that are this process's alone, without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
