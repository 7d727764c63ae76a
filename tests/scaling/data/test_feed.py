"""The batches of a stack, made ahead: those that each model would be given alone, however they travel."""

import numpy as np
import pytest
import torch

from scaling.data import feed
from scaling.data.batches import Batches
from scaling.data.feed import Feed, Wanted
from tests.scaling.data.test_batches import corpus

CPU = torch.device("cpu")


def with_dtype(dtype):
    found = corpus(3000)
    object.__setattr__(found, "train", (found.train * 23).astype(dtype))
    return found


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_tokens_of_each_step_and_model(dtype, on_device):
    """Of 16 bits all are there, those that torch takes for negative too."""
    batches = Batches(with_dtype(dtype), 10, 4)
    assert batches.train.max() > {1: 127, 2: 2**15, 4: 2**16}[batches.train.itemsize]
    fed = Feed(batches, CPU, on_device)
    wanted = Wanted(seeds=(5, 1, 5, 5), starts=(0, 7, 3, 0), steps=6)
    sent = fed.get(wanted)
    assert sent.shape == ((6, 4, 4) if on_device else (6, 4, 4, 11))
    for k in range(6):
        found = fed.tokens(sent, torch.tensor([k]))
        assert found.dtype == torch.int64
        for m, (seed, start) in enumerate(zip(wanted.seeds, wanted.starts, strict=True)):
            assert np.array_equal(found[m].numpy(), batches.at(start + k, seed))


def test_what_was_asked_for_ahead_is_given_and_nothing_else():
    fed = Feed(Batches(corpus(3000), 10, 4), CPU)
    first, second, other = (Wanted(seeds=(seed,), starts=(start,), steps=3) for seed, start in ((1, 0), (1, 3), (2, 3)))
    fed.get(first, then=second)
    assert torch.equal(fed.get(other), fed._made(other))  # the stack has changed
    fed.get(first, then=second)
    ahead = fed.next[1].result()
    assert fed.get(second) is ahead and fed.next is None


def test_a_fault_of_the_thread_is_raised_where_its_batches_are_asked_for():
    fed = Feed(Batches(corpus(3000), 10, 4), CPU)
    wanted, broken = (Wanted(seeds=(1,), starts=(start,), steps=3) for start in (0, 3))
    fed.batches.tokens = lambda windows: windows[10**6] if windows[0, 0, 0] != first else batches.tokens(windows)
    batches = Batches(corpus(3000), 10, 4)
    first = batches.windows(np.int64(1), np.int64(0))[0]
    fed.get(wanted, then=broken)
    with pytest.raises(IndexError):
        fed.get(broken)


def test_no_more_tokens_are_made_at_once_than_stated(monkeypatch):
    monkeypatch.setattr(feed, "TOKENS", 400)
    fed = Feed(Batches(corpus(3000), 10, 4), CPU)
    assert [fed.steps(models, left) for models, left in ((1, 100), (2, 100), (50, 100), (1, 3))] == [10, 5, 1, 3]
    assert Feed(Batches(corpus(3000), 10, 4), CPU, on_device=True).steps(50, 100) == feed.STEPS
