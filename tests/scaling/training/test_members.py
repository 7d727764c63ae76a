"""One model for several runs until they part: the files are the same, interrupted or not."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from scaling.console.terminal import Progress
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder, snapshot_path
from scaling.records.table import collect
from scaling.study.jobs import write_stack
from scaling.training import evaluation, loop
from scaling.training.families import model_steps
from scaling.training.loop import Loop, train_stack
from tests.conftest import REPOSITORY, slow
from tests.scaling.training.test_families import wsd
from tests.scaling.training.test_loop import assert_same, trained


@pytest.fixture
def grid(make_run):
    """D = 10, 20 and 40 steps, each with a decay, and a trunk that stays at the peak and is measured where two decays
    begin: they part at their second decaying update, at the first the rate is still the peak. Besides, the mean of the
    weights of steps 9 to 18."""
    return [
        make_run(*wsd(1280, 256)),
        make_run(*wsd(2560, 512)),
        make_run(*wsd(5120, 1024, "snapshots=[1280,4096]")),
        make_run("schedule=constant", "snapshots=[1280,2048]", "data.tokens=3840"),
        make_run("schedule=average", "snapshots=[1280]", "data.tokens=2304", "schedule.decay_tokens=1280"),
    ]


GRID_STEPS = 40 + (10 - 9) + (20 - 17) + 0
"""The farthest run's own, the tails of two, and nothing for the trunk and the mean, which end before the farthest
decays."""


@pytest.fixture
def computed(monkeypatch):
    """Models in each gradient that was computed since."""
    counts = []
    call = loop.Gradients.__call__
    monkeypatch.setattr(loop.Gradients, "__call__", lambda s, stack, t: counts.append(len(t)) or call(s, stack, t))
    return counts


def assert_all_same(folders, others):
    for folder, other in zip(folders, others, strict=True):
        assert_same(folder, other)
        for tokens in folder.run.snapshots:
            a, b = (Checkpoint.load(snapshot_path(f.path, tokens)) for f in (folder, other))
            assert a.step == b.step == folder.run.step_at(tokens)
            for ours, theirs in ((a.weights, b.weights), (a.first, b.first), (a.second, b.second)):
                assert ours and all(torch.equal(ours[name], theirs[name]) for name in theirs)
        ours, theirs = folder.result(), other.result()
        for name in ("seconds", "tokens_per_second", "shared_steps"):
            ours.pop(name), theirs.pop(name)
        assert ours == theirs


def test_a_shared_trunk_gives_what_each_run_gives_alone(make_run, grid, computed, tmp_path, apart):
    """With another family and two runs that share nothing in the same stack."""
    other = [make_run(*wsd(d, 512, "precision.weights=int4", "precision.kv=int4")) for d in (1920, 2560)]
    loners = [make_run(), make_run(*wsd(2560, 512, "seed=3"))]
    folders = trained(*grid, *other, *loners)
    assert sum(computed) == GRID_STEPS + (20 + 3) + 40 + 20 == model_steps([*grid, *other, *loners])
    assert [folder.result()["shared_steps"] for folder in folders] == [9, 17, 30, 30, 18, 12, 12, 0, 0]
    assert_all_same(folders, apart(*grid, *other, *loners))
    # Nine models at their ends and five on the way, each as trained and in two formats.
    assert collect(folders[0].path.parent, tmp_path / "runs.csv") == 3 * (9 + 5)


def test_alone_nothing_is_shared(grid):
    (folder,) = trained(grid[0])
    assert folder.result()["shared_steps"] == 0


@pytest.mark.parametrize("change", ["seed=1", "optimizer.lr=1e-3", "schedule=cosine"])
def test_runs_of_two_families_are_two_models_from_the_start(make_run, computed, change):
    trained(make_run("schedule=constant"), make_run("schedule=constant", change))
    assert computed == [2] * 40


def test_equal_schedules_never_part(make_run, computed, apart):
    runs = [make_run(*wsd(2560, 512, f"snapshots=[{tokens}]")) for tokens in (1280, 2048)]
    folders = trained(*runs)
    assert computed == [1] * 20 and [f.result()["shared_steps"] for f in folders] == [20, 20]
    assert_all_same(folders, apart(*runs))


def test_branches_of_one_snapshot_share(make_run, computed):
    trunk = make_run("schedule=constant", "snapshots=[1280]", "data.tokens=1280")
    trained(trunk)
    computed.clear()
    branches = [make_run(*wsd(d, 512, f"branch.parent={trunk.run_id}", "branch.tokens=1280")) for d in (2560, 3840)]
    folders = trained(*branches)
    assert sum(computed) == model_steps(branches) == 20 + 3
    for folder, d in zip(folders, (2560, 3840), strict=True):
        (whole,) = trained(make_run(*wsd(d, 512)))
        assert (folder.windows()[str(d)] == whole.windows()[str(d)]).all()


def test_a_done_run_is_left_out_and_the_rest_share(grid, computed, apart):
    (done,) = trained(grid[2])
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*") if path.is_file()}
    computed.clear()
    folders = trained(*grid)
    assert sum(computed) == model_steps([grid[0], grid[1], grid[3]]) == 30 + 1 + 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_all_same(folders, apart(*grid))


def test_a_run_that_cannot_start_leaves_the_rest_sharing(make_run, grid, computed):
    orphan = make_run(*wsd(5120, 1024, "branch.parent=nobody", "branch.tokens=1280"))
    assert list(train_stack([orphan, *grid])) == [orphan.run_id]
    assert sum(computed) == GRID_STEPS


def test_what_members_ask_of_one_model_is_measured_once(make_run, monkeypatch, apart):
    asked = []
    measure = evaluation.measure
    monkeypatch.setattr(
        evaluation,
        "measure",
        lambda models, *rest: asked.extend((m.run.ptq, m.tokens_seen) for m in models) or measure(models, *rest),
    )
    runs = [
        make_run("schedule=constant", "data.tokens=2560"),
        make_run("schedule=constant", "data.tokens=3840", "snapshots=[2560,3840]"),
        make_run("schedule=constant", "data.tokens=3840", "ptq.formats=[int2]"),
    ]
    folders = trained(*runs)
    assert asked == [(runs[0].ptq, 2560), (runs[1].ptq, 3840), (runs[2].ptq, 3840)]
    assert_all_same(folders, apart(*runs))


def test_a_model_that_diverges_ends_all_its_members(make_run, apart):
    wild = ("optimizer.lr=1e30", "optimizer.clip=1e30", "schedule=constant")
    runs = [make_run(*wild, "data.tokens=25600"), make_run(*wild, "data.tokens=38400", "data.repeat=true")]
    calm = make_run()
    *ended, healthy = trained(*runs, calm)
    for folder in ended:
        result = folder.result()
        assert result["diverged"] and result["skipped_updates"] >= 100 and result["evaluations"] == []
        assert 0 < result["shared_steps"] < 200
    assert_all_same([*ended, healthy], apart(*runs, calm))


@pytest.mark.parametrize("models", [3, *slow(8)])
def test_rows_that_are_kept_for_nobody_change_nothing(make_run, computed, monkeypatch, models, apart):
    """As on a GPU, where a recorded step is made for one number of models: those that serve nobody any more stay, up to
    the next power of two. One diverges; two part, when there are spare rows already."""
    monkeypatch.setattr(Loop, "keeps_rows", True)
    runs = [make_run(f"seed={seed}", f"data.tokens={128 * (4 + 3 * seed)}") for seed in range(models)]
    runs += [make_run("optimizer.lr=1e30", "optimizer.clip=1e30", "data.tokens=25600")]
    runs += [make_run(*wsd(d, 512, "seed=9")) for d in (2560, 5120)]
    folders = trained(*runs)
    widths = [width for width, _ in itertools.groupby(computed)]
    assert all(b > a or b.bit_count() == 1 for a, b in itertools.pairwise(widths)) and len(widths) > 3, widths
    assert computed[-1] == 1
    assert_all_same(folders, apart(*runs))


def test_progress_counts_what_is_computed(grid, monkeypatch):
    seen = []

    class Recorded(Progress):
        def __init__(self, title, total, **more):
            super().__init__(title, total, **more)
            seen.append(total)

        def update(self, done, **fields):
            super().update(done, **fields)
            seen.append((done, fields))

    monkeypatch.setattr(loop, "Progress", Recorded)
    trained(*grid)
    total, *updates = seen
    assert total == GRID_STEPS * 128 == updates[-1][0]
    assert updates[0] == (128, {"models": "1", "runs": "5"})


# -- interrupted -------------------------------------------------------------------------------------------------------


def at_update(monkeypatch, number, act):
    """Run `act` behind the `number`-th update from now on, before snapshots and leaving."""
    count = 0
    update = Progress.update

    def wrapped(self, *values, **fields):
        nonlocal count
        count += 1
        update(self, *values, **fields)
        if count == number:
            act()

    monkeypatch.setattr(Progress, "update", wrapped)


def saving_always(run):
    return replace(run, runtime=replace(run.runtime, checkpoint_seconds=0))


@pytest.mark.parametrize("number", [9, 19, *slow(3, 10, 17, 35)], ids=lambda n: f"update{n}")
def test_interrupted_and_resumed_equals_never_interrupted(grid, computed, monkeypatch, number, apart):
    """In the common part, right before and behind the forks, and in the last tail: SIGTERM, and the same call again."""
    at_update(monkeypatch, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_stack(grid)
    folders = [RunFolder(run) for run in grid]
    # What ends right there is not measured any more: a scheduler may not wait that long.
    states = ["done" if run.steps < number else "partial" for run in grid]
    assert [folder.state() for folder in folders] == states
    trained(*grid)
    assert sum(computed) == GRID_STEPS  # nothing was computed a second time, nor apart
    assert_all_same(folders, apart(*grid))


@pytest.mark.parametrize("number", [10, *slow(5, 18)], ids=lambda n: f"update{n}")
def test_killed_in_an_update_goes_on_from_the_last_checkpoints(grid, computed, monkeypatch, number, apart):
    runs, call = [saving_always(run) for run in grid], loop.Gradients.__call__

    def dies(self, stack, tokens):
        if max(stack.optimizer.steps) == number:
            raise RuntimeError("gone")
        return call(self, stack, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Gradients, "__call__", dies)
        with pytest.raises(RuntimeError, match="gone"):
            train_stack(runs)
    folders = trained(*runs)
    assert sum(computed) == GRID_STEPS
    assert_all_same(folders, apart(*grid))


def test_checkpoints_of_two_steps_are_two_models(grid, computed, monkeypatch, apart):
    """Killed between the writing of one member's checkpoint and the next: who is behind trains the step again."""
    save, written = Checkpoint.save, []

    def stops(self, path, allowed=None):
        if self.step == 5 and written.count(5) == 2:
            raise RuntimeError("gone")
        written.append(self.step)
        save(self, path, allowed)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stops)
        with pytest.raises(RuntimeError, match="gone"):
            train_stack([saving_always(run) for run in grid])
    folders = [RunFolder(run) for run in grid]
    steps = [Checkpoint.load(folder.checkpoint_path).step for folder in folders]
    assert steps == [5, 5, 4, 4, 4]
    computed.clear()
    trained(*grid)
    assert sum(computed) == model_steps(grid[:2], 5) + model_steps(grid[2:], 4)
    assert_all_same(folders, apart(*grid))


def test_a_member_that_joins_late_is_a_model_of_its_own(make_run, grid, computed, monkeypatch, apart):
    at_update(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_stack(grid)
    computed.clear()
    late = make_run(*wsd(1920, 256))
    folders = trained(*grid, late)
    assert sum(computed) == GRID_STEPS - 6 + 15
    assert folders[-1].result()["shared_steps"] == 0
    assert_all_same(folders, apart(*grid, late))


def test_a_damaged_checkpoint_does_not_stop_the_rest(grid, computed, monkeypatch, apart):
    at_update(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_stack(grid)
    path = RunFolder(grid[0]).checkpoint_path
    path.write_bytes(b"cut")
    computed.clear()
    assert list(train_stack(grid)) == [grid[0].run_id]
    assert sum(computed) == model_steps(grid[1:], 6)
    path.unlink()
    assert_all_same(trained(*grid), apart(*grid))


@pytest.mark.slow
def test_two_processes_share_and_resume(make_run, apart):
    """Ended where all are one model, and started again: what one process trains, but for rounding."""
    long = ("runtime.checkpoint_seconds=0", "ptq=none")
    runs = [make_run(*wsd(d, 2560, *long)) for d in (12800, 19200)]
    out = RunFolder(runs[0]).path.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["scaling.train", f"+stack={write_stack(runs)}", "study=default", f"runtime.out={out.parent}"]
    options = {"cwd": REPOSITORY, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process, begin = subprocess.Popen(command, **options), time.monotonic()
    folders = [RunFolder(run) for run in runs]
    while not all(folder.checkpoint_path.exists() for folder in folders):
        assert process.poll() is None and time.monotonic() - begin < 60
        time.sleep(0.02)
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=True)  # the workers
    process.communicate(timeout=60)
    assert not list(out.glob("*/result.json"))
    process = subprocess.Popen(command, **options)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert re.search(r"runs 1; ended after", err)
    for folder, alone in zip(folders, apart(*runs), strict=True):
        assert 0 < folder.result()["shared_steps"] < 82
        ours, theirs = (
            [json.loads(line)["loss_train"] for line in (f.path / "metrics.jsonl").read_text().splitlines()]
            for f in (folder, alone)
        )
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert (folder.windows()[str(folder.run.D)] - alone.windows()[str(folder.run.D)]).max() < 1e-4
