"""The memory that a plan predicts for a card, against what PyTorch's allocator counts there.

Counted from behind the first matmuls: cuBLAS takes workspaces from the same allocator once (32 MB a stream on an H100),
which a stack of small models would notice and which is reported on its own.
"""

import dataclasses
import gc

import pytest
import torch

from bench.training import random_batches
from scaling.config.data import vocab_size
from scaling.data.feed import Feed
from scaling.study.memory import in_a_step, memory, moments
from scaling.study.passes import Shapes
from scaling.training.distributed import ALONE
from scaling.training.gradients import Gradients
from scaling.training.stack import Stack
from scaling.training.steps import Steps

pytestmark = pytest.mark.cuda

DATA = ("data.corpus.alphabet=255", "data.sequence_length=256", "data.corpus.document_tokens=1100")
CASES = [
    (64, "24k", 2048, ("runtime.dtype=bfloat16",)),
    (64, "24k", 2048, ("precision=w4a4kv4",)),
    (4, "3M", 8192, ("runtime.dtype=bfloat16", "precision=w4a4kv4")),
    (4, "3M", 8192, ()),
    (1, "30M", 8192, ("runtime.dtype=bfloat16",)),
    (1, "30M", 8192, ("runtime.dtype=bfloat16", "precision=quartet")),
    (1, "30M", 8192, ("runtime.dtype=bfloat16", "runtime.checkpoint_activations=true")),
]


def steps(runs, device, count):
    """So many updates on random tokens."""
    run, vocabulary = runs[0], vocab_size(runs[0].data)
    stack, gradients = Stack.start(runs, vocabulary, [None] * len(runs), device), Gradients(runs, device, ALONE)
    taken = Steps(stack, gradients, Feed(random_batches(run, vocabulary), device), left=count)
    for _ in range(count):
        taken.take()


@pytest.mark.parametrize("models, size, tokens, overrides", CASES)
def test_a_step_takes_what_was_predicted(card, card_run, report, models, size, tokens, overrides):
    if card.type == "cpu":
        models, size, tokens = 2, "2k", 512
    data = (f"data.batch_tokens={tokens}", f"data.tokens={4 * tokens}", "schedule.warmup_tokens=0")
    run = card_run(f"model={size}", *DATA, *data, *overrides, "ptq=none")
    runs = [dataclasses.replace(run, seed_init=seed, seed_data=seed) for seed in range(models)]
    shapes = Shapes.of(runs, card.type)
    names = {moment.name for moment in in_a_step(run, shapes)} | {"update"}
    predicted = max(moment.of(models) for moment in moments(runs, shapes) if moment.name in names)
    assert predicted <= memory(runs).tensors  # the plan counts more moments than those of a step
    if card.type == "cpu":
        return steps(runs, card, 2)
    gc.collect()
    torch.cuda.empty_cache()
    steps(runs[:1], card, 1)  # handles and workspaces
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    steps(runs, card, 2)
    measured = torch.cuda.max_memory_allocated() - before
    report("predicted / measured", f"{predicted / 1e6:.1f} MB / {measured / 1e6:.1f} MB = {predicted / measured:.3f}")
    report("there before, reserved", (before, torch.cuda.max_memory_reserved()))
    assert predicted == pytest.approx(measured, rel=0.15)
