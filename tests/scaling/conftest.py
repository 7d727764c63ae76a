import os
import sys
from pathlib import Path

import pytest

import scaling.train
from tests.conftest import REPOSITORY, TINY


@pytest.fixture
def tiny(tmp_path, corpus_cache):
    """Overrides for 40 steps of a tiny model, everything written below tmp_path."""
    return [*TINY, f"runtime.out={tmp_path / 'outputs'}", f"runtime.cache={corpus_cache}"]


@pytest.fixture
def train(monkeypatch, capfd, tiny):
    """train("--multirun", "seed=0,1") -> (exit status, stdout, stderr) of `python -m scaling.train` on tiny runs."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *tiny, *arguments])
        capfd.readouterr()
        status = 0
        try:
            scaling.train.main()
        except SystemExit as end:
            status = 1 if isinstance(end.code, str) else end.code or 0
            print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def study_file(monkeypatch, tmp_path):
    """study_file("name", text): a file of sweeps/ beside the project's own settings, in a folder of the test's own."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for entry in (REPOSITORY / "configs").iterdir():
        if entry.name != "sweeps":
            os.symlink(entry, configs / entry.name)
    (configs / "sweeps").mkdir()
    monkeypatch.setattr("scaling.config.compose.CONFIGS", configs)

    def write(name: str, text: str) -> Path:
        path = configs / "sweeps" / f"{name}.yaml"
        path.write_text(f"# @package _global_\nstudy: {name}\n{text}")
        return path

    return write
