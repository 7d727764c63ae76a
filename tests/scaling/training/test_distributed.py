"""A batch in pieces, on two processes, or with activations computed again: the run that one process trains at once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
LOW = ("precision=w4a4kv4", "precision.granularity_activations=token", "precision.granularity_kv=token")


def launch(arguments, *, alone=False):
    """A process group of two (or one) that trains; its output is kept."""
    start = [sys.executable, "-m"] if alone else TORCHRUN
    return subprocess.Popen(
        [*start, "scaling.train", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def only_run(out: Path) -> Path:
    (result,) = out.glob("*/*/result.json")
    return result.parent


def curve(out: Path) -> list[float]:
    lines = (only_run(out) / "metrics.jsonl").read_text().splitlines()
    return [v["loss_train"] for v in map(json.loads, lines) if "loss_train" in v]


def evaluated(out: Path) -> list[float]:
    return [e["loss"] for e in json.loads((only_run(out) / "result.json").read_text())["evaluations"]]


def folders(tmp_path, name):
    return tmp_path / name, f"runtime.out={tmp_path / name}"


@pytest.fixture
def one(train, tmp_path):
    """The curve and the evaluations of one process that takes the batch at once."""

    def run(*arguments):
        out, where = folders(tmp_path, "whole")
        assert train(where, *arguments)[0] == 0
        return curve(out), evaluated(out)

    return run


@pytest.mark.parametrize("precision", [(), LOW])
def test_two_processes_train_the_run_of_one(tiny, one, tmp_path, precision):
    out, where = folders(tmp_path, "two")
    status, said, err = ended(launch([*tiny, where, *precision]))
    assert status == 0, err
    assert said.count(": loss ") == 1  # the first process alone speaks
    losses, after = one(*precision)
    assert len(losses) > 3 and losses[-1] < losses[0]
    assert curve(out) == pytest.approx(losses, rel=2e-3 if precision else 1e-5)
    assert evaluated(out) == pytest.approx(after, rel=2e-3 if precision else 1e-5)


@pytest.mark.parametrize("precision", [(), LOW])
def test_pieces_add_up_to_the_batch(train, one, tmp_path, precision):
    losses, after = one(*precision)
    out, where = folders(tmp_path, "pieces")
    assert train(where, *precision, "runtime.micro_batch_tokens=32")[0] == 0
    assert only_run(out).name == only_run(tmp_path / "whole").name  # the same run, whose numbers differ by rounding
    assert curve(out) != losses
    assert curve(out) == pytest.approx(losses, rel=2e-3 if precision else 1e-5)
    assert evaluated(out) == pytest.approx(after, rel=2e-3 if precision else 1e-5)


def test_pieces_are_another_run_where_they_share_a_scale(train, tmp_path):
    """One scale for all activations of a pass: fewer tokens at once have another scale."""
    _, where = folders(tmp_path, "whole")
    assert train(where, "precision=w4a4kv4")[0] == 0
    out, there = folders(tmp_path, "pieces")
    assert train(there, "precision=w4a4kv4", "runtime.micro_batch_tokens=32")[0] == 0
    assert only_run(out).name != only_run(tmp_path / "whole").name
    assert curve(out)[-1] != pytest.approx(curve(tmp_path / "whole")[-1], rel=1e-5)


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_activations_computed_again_are_the_same(train, one, tmp_path, rounding):
    precision = ("precision=w4a4kv4", f"precision.rounding={rounding}")
    losses, after = one(*precision)
    out, where = folders(tmp_path, "again")
    assert train(where, *precision, "runtime.checkpoint_activations=true")[0] == 0
    assert (curve(out), evaluated(out)) == (losses, after)


def test_an_interrupted_group_goes_on_as_if_it_had_not_been(tiny, tmp_path):
    long = ("data.tokens=51200", "runtime.checkpoint_seconds=0")
    whole, where = folders(tmp_path, "never")
    assert ended(launch([*tiny, where, *long]))[0] == 0
    out, where = folders(tmp_path, "interrupted")
    process = launch([*tiny, where, *long])
    begin = time.monotonic()
    while not any(len(p.read_text().splitlines()) > 2 for p in out.glob("*/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() - begin < 60
        time.sleep(0.02)
    # The workers first: each leads a session of its own, and would train on without torchrun.
    subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=True)
    process.communicate()
    assert not list(out.glob("*/*/result.json"))
    status, _, err = ended(launch([*tiny, where, *long]))
    assert status == 0, err
    assert curve(out) == curve(whole)
    assert evaluated(out) == evaluated(whole)


def test_a_batch_that_cannot_be_divided_is_one_line(train, tiny, tmp_path):
    for bad in (48, 96):  # no whole sequences; no whole pieces
        status, _, err = train(f"runtime.micro_batch_tokens={bad}")
        assert status == 1 and err.count("\n") == 1 and f"runtime.micro_batch_tokens={bad}" in err
    status, _, err = ended(launch([*tiny, f"runtime.out={tmp_path}", "precision=w4a4kv4"]))
    ours = [line for line in err.splitlines() if line.startswith("scaling.train: ")]
    assert status == 1 and len(ours) == 1
    assert "couples the sequences" in ours[0]
    assert "Traceback" not in err.split("torch/distributed")[0]
