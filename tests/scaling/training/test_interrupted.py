"""What interrupts, other writers and divergence may do to a run: nothing that its records do not say."""

import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
import torch

from scaling.data import feed
from scaling.ptq.measure import is_measured
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder, snapshot_path
from scaling.records.writer import HeldError, Writer, holder
from scaling.study.jobs import write_stack
from scaling.study.sweeper import wait_for_others
from scaling.training import evaluation
from scaling.training.adamw import SKIPS
from scaling.training.loop import Loop, train_stack
from tests.conftest import REPOSITORY
from tests.scaling.training.test_loop import assert_same, elsewhere, trained


def stopped_at_measurement(monkeypatch, runs, number):
    """Train until the measurement of that number, counted from 0, which a second Ctrl-C cuts short."""
    measure, count = evaluation.measure, [0]

    def cut(*arguments):
        count[0] += 1
        if count[0] > number:
            raise KeyboardInterrupt
        return measure(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "measure", cut)
        with pytest.raises(KeyboardInterrupt):
            train_stack(runs)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_snapshot_whose_measurement_was_cut_short_is_measured(make_run, monkeypatch, number, apart):
    runs = [make_run("snapshots=[1280,2560]"), make_run("snapshots=[1280]", "seed=1", "precision.weights=int4")]
    stopped_at_measurement(monkeypatch, runs, number)
    for run, folder in zip(runs, trained(*runs), strict=True):
        assert all(is_measured(folder, tokens) for tokens in (*run.snapshots, run.D))
        assert len(folder.result()["evaluations"]) == len(run.snapshots) + 1
        assert_same(folder, *apart(run))


def test_a_snapshot_that_was_passed_is_measured_from_its_file(make_run, monkeypatch):
    """Rows that were lost while the run went on; and a file that was lost as well is that run's fault alone."""
    run, other, neighbour = make_run("snapshots=[1280]"), make_run("snapshots=[1280]", "seed=1"), make_run("seed=2")
    stopped_at_measurement(monkeypatch, [run, other, neighbour], 1)  # at their ends
    for folder in map(RunFolder, (run, other)):
        assert folder.state() == "partial" and Checkpoint.load(folder.checkpoint_path).step == 40
        (folder.path / "ptq.jsonl").unlink()
    lost = snapshot_path(RunFolder(other).path, 1280)
    lost.unlink()
    failures = train_stack([run, other, neighbour])
    assert list(failures) == [other.run_id]
    assert str(lost) in str(failures[other.run_id]) and "from its start" in str(failures[other.run_id])
    for done in (run, neighbour):
        assert_same(RunFolder(done), trained(elsewhere(done, "whole"))[0])


def test_a_held_run_is_left_out_of_its_stack_and_left_alone(make_run):
    runs = [make_run(), make_run("seed=1"), make_run("seed=2")]
    held = RunFolder(runs[1])
    with closing(Writer.take(held.path)):
        failures = train_stack(runs)
        assert list(failures) == [runs[1].run_id] and isinstance(failures[runs[1].run_id], HeldError)
        assert sorted(p.name for p in held.path.iterdir()) == ["lock", "writer.json"]
    assert train_stack(runs) == {}
    assert all(holder(RunFolder(run).path) is None for run in runs)


def test_folders_are_free_after_a_stack_that_failed(make_run, monkeypatch):
    runs = [make_run(), make_run("seed=1")]
    monkeypatch.setattr(Loop, "update", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_stack(runs)
    assert all(holder(RunFolder(run).path) is None for run in runs)


@pytest.mark.slow
def test_the_same_run_started_twice(make_run, tmp_path):
    """The second leaves it to the first, says so, and changes nothing; nor does it when it is killed."""
    run = make_run("data.tokens=256000", "data.repeat=true")
    path = write_stack([run])
    command = [sys.executable, "-m", "scaling.train", f"+stack={path}", "hydra.run.dir=."]

    def start():
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start()
    folder = RunFolder(run)
    deadline = time.monotonic() + 60
    while holder(folder.path) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode != 0 and f"process {first.pid} on" in err and "Traceback" not in err
    assert not folder.has_error()
    first.communicate(timeout=60)
    assert first.returncode == 0 and folder.state() == "done"
    assert_same(folder, trained(elsewhere(run, "whole"))[0])


def test_a_sweep_waits_for_runs_that_others_train(make_run):
    run = make_run()
    assert not wait_for_others([run])
    code = (
        "import sys, time; from pathlib import Path; from scaling.records.writer import Writer;"
        "Writer.take(Path(sys.argv[1])); print('held', flush=True); time.sleep(2)"
    )
    folder = RunFolder(run).path
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        process.stdout.readline()
        assert wait_for_others([run], every=0.1)
        assert process.poll() is not None or process.wait(5) == 0
    assert not wait_for_others([run])


def _poisoned(make_run):
    """Its weights overflow in the first steps, while its gradients are finite still."""
    return make_run("optimizer.lr=1e38", "snapshots=[256,1280]", "schedule.warmup_tokens=0", "optimizer.weight_decay=0")


def test_a_member_that_is_not_finite_diverges_alone(make_run):
    bad, good = _poisoned(make_run), make_run("snapshots=[256,1280]", "schedule.warmup_tokens=0")
    folder, healthy = trained(bad, good)
    result = folder.result()
    assert result["diverged"] and result["evaluations"] == [] and folder.ptq() == []
    assert not healthy.result()["diverged"]
    assert_same(healthy, trained(elsewhere(good, "alone"))[0])


def test_skipped_steps_in_a_row_are_counted_over_a_kill(make_run, monkeypatch):
    """Killed at any step or not, a model diverges after as many skipped updates."""
    run = make_run("data.tokens=25600", "optimizer.lr=1e38", "schedule.warmup_tokens=0")
    (whole,) = trained(elsewhere(run, "whole"))
    stopped, steps = elsewhere(run, "stopped"), []
    update = Loop.update

    def one(self):
        update(self)
        steps.append(len(steps))
        if len(steps) in (30, 70):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Loop, "update", one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_stack([stopped])
    (again,) = trained(stopped)
    assert_diverged_alike(again, whole)


def assert_diverged_alike(folder, other):
    ours, theirs = folder.result(), other.result()
    assert theirs["diverged"] and theirs["skipped_updates"] >= SKIPS
    for name in ("diverged", "skipped_updates", "evaluations"):
        assert ours[name] == theirs[name]
    a, b = (Checkpoint.load(f.checkpoint_path) for f in (folder, other))
    assert (a.step, a.skipped, a.skipped_in_a_row) == (b.step, b.skipped, SKIPS)
    for group in ("weights", "first", "second", "mean"):
        ours, theirs = getattr(a, group), getattr(b, group)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].nan_to_num(), theirs[name].nan_to_num()) for name in ours)
    assert (folder.path / "metrics.jsonl").read_text() == (other.path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("schedule", ["constant", "average"])
def test_a_member_that_diverged_is_left_as_it_was_until_it_is_looked_at(make_run, monkeypatch, schedule):
    """Looked at behind each step, or long after: with other members, whose snapshots and ends come when they come."""
    wild = ("optimizer.lr=1e30", "optimizer.clip=1e30", f"schedule={schedule}", "schedule.warmup_tokens=0")
    wild += ("schedule.decay_tokens=25600",) if schedule == "average" else ()
    runs = [
        make_run(*wild, "data.tokens=25600", "snapshots=[20480]"),
        make_run("data.tokens=25600", "snapshots=[15360]"),
    ]
    late = trained(*runs)
    monkeypatch.setattr(feed, "STEPS", 1)
    monkeypatch.setattr(Loop, "_until_due", lambda self: 1)
    for folder in trained(*(elsewhere(run, "watched") for run in runs)):
        other = late.pop(0)
        if folder.run.optimizer.lr > 1:
            assert 0 < Checkpoint.load(other.checkpoint_path).step < 200
            assert_diverged_alike(folder, other)
        else:
            assert_same(folder, other)
