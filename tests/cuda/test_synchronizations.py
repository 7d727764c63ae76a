"""How often the host waits for the card in one update: reported, with the lines that wait."""

import contextlib
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from bench.training import random_batches
from scaling.config.data import vocab_size
from scaling.data.feed import Feed
from scaling.training.distributed import ALONE
from scaling.training.gradients import Gradients
from scaling.training.stack import Stack
from scaling.training.steps import Steps
from tests.cuda.runs import elsewhere, trained

pytestmark = pytest.mark.cuda

PRESETS = ("bf16", "w4a4kv4", "nvfp4", "quartet")


@contextlib.contextmanager
def synchronizations(card):
    """A Counter of file:line, filled when the block ends. On a CPU there are none to count."""
    found = Counter()
    if card.type == "cpu":
        yield found
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found.update(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message))


@pytest.mark.parametrize("precision", PRESETS)
def test_of_a_step(card, card_run, report, precision):
    runs = [card_run(f"precision={precision}", f"seed={seed}") for seed in (0, 1)]
    vocabulary = vocab_size(runs[0].data)
    stack, gradients = Stack.start(runs, vocabulary, [None, None], card), Gradients(runs, card, ALONE)
    steps = Steps(stack, gradients, Feed(random_batches(runs[0], vocabulary), card), left=4)
    for _ in range(2):
        with synchronizations(card) as found:
            steps.take()
    report("synchronizations of a step", (found.total(), dict(found)))
    assert not found


def test_of_a_step_of_the_loop(card, card_run, report):
    """The difference of two runs, of which one has 20 steps more; batches, records and checkpoints are in it."""
    found = []
    for steps in (20, 40):
        run = elsewhere(card_run(f"data.tokens={128 * steps}", "schedule=constant", "ptq=none"), str(steps))
        with synchronizations(card) as by_line:
            trained(run)
        found.append(by_line)
    more = found[1] - found[0]
    report("synchronizations a step", (more.total() / 20, {line: count / 20 for line, count in more.most_common()}))
