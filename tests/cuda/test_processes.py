"""Process groups: NCCL on cards, gloo on a CPU."""

import datetime
import gc
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from scaling.console.torchrun import Place
from scaling.records.run_folder import RunFolder
from scaling.training.distributed import Processes
from tests.conftest import REPOSITORY
from tests.cuda.runs import apart, assert_same, elsewhere, trained, write

pytestmark = pytest.mark.cuda

TEN = ("data.tokens=1280", "ptq=none", "tracking.points_per_doubling=100")


class Group(Processes):
    """A group of one that goes the way of several."""

    def __init__(self):
        super().__init__(Place())
        self.alone = False


@pytest.fixture
def group(card, tmp_path, monkeypatch):
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")  # peers are on this machine, which may have no network
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if card.type == "cuda" else "gloo",
        init_method=f"file://{tmp_path / 'group'}",
        rank=0,
        world_size=1,
        timeout=datetime.timedelta(seconds=60),
    )
    yield Group()
    gc.collect()  # a wrapped module that waits to be collected would hold the group
    dist.destroy_process_group()


def test_a_group_of_one_equals_no_group(card_run, deterministic, group):
    """Gradients travel in buckets and are summed by NCCL, over one process: the same numbers."""
    runs = [card_run(*TEN), card_run(*TEN, "precision.weights=int4", "seed=1")]
    together = trained(*runs, processes=group)
    for folder, alone in zip(together, trained(*(elsewhere(run, "alone") for run in runs)), strict=True):
        assert_same(folder, alone)


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(card, card_run, tmp_path, report):
    if card.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    run = card_run(*TEN)
    write(stack := RunFolder(run).path.parent / "stacks" / "runs.json", run)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, "-m", "scaling.train", f"+stack={stack}"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (alone,) = trained(elsewhere(run, "alone"))
    report("largest difference", apart(RunFolder(run), alone))
    assert apart(RunFolder(run), alone) < 1e-4
