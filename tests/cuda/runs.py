"""Runs that are trained and compared. As a program, `python -m tests.cuda.runs FILE` trains those of a file as one
stack, with deterministic algorithms."""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from scaling.config.from_dict import plain
from scaling.config.run import build_run
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder
from scaling.training.distributed import ALONE
from scaling.training.loop import train_stack


def trained(*runs, processes=ALONE):
    assert train_stack(runs, processes) == {}
    return [RunFolder(run) for run in runs]


def elsewhere(run, name, **runtime):
    """The same run with another place for its files, and other settings of the runtime."""
    return dataclasses.replace(
        run, runtime=dataclasses.replace(run.runtime, out=f"{run.runtime.out}-{name}", **runtime)
    )


def curve(folder):
    """Tokens -> training loss."""
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    return {point["tokens"]: point["loss_train"] for point in map(json.loads, lines)}


def apart(folder, other):
    """The largest difference of two training curves."""
    ours, theirs = curve(folder), curve(other)
    assert ours.keys() == theirs.keys() and len(ours) >= 10
    return max(abs(ours[tokens] - theirs[tokens]) for tokens in ours)


def assert_same(folder, other):
    """Bit for bit: the training curve, every weight, every loss on every window."""
    assert (folder.path / "metrics.jsonl").read_text() == (other.path / "metrics.jsonl").read_text()
    a, b = (Checkpoint.load(f.checkpoint_path) for f in (folder, other))
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    ours, theirs = folder.windows(), other.windows()
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert folder.ptq() == other.ptq()


def write(path, *runs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([plain(run) for run in runs]))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    assert train_stack([build_run(values) for values in json.loads(Path(sys.argv[1]).read_text())]) == {}
