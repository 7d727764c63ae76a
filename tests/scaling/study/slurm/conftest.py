import os

import pytest


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command("squeue", "echo 1|..."): a program of that name, whose lines of shell stand in for SLURM's. The arguments
    of each call are appended to the file that is returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name, shell):
        calls = folder / f"{name}.calls"
        calls.touch()
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{shell}\n')
        program.chmod(0o755)
        return calls

    return make


@pytest.fixture
def in_job(monkeypatch):
    """in_job("12", "3", 1): this process is in task 3 of array 12, which was queued again once."""

    def enter(job, task=None, restarts=0):
        for name, value in {
            "SLURM_JOB_ID": "99" if task else job,
            "SLURM_ARRAY_JOB_ID": job if task else None,
            "SLURM_ARRAY_TASK_ID": task,
            "SLURM_RESTART_COUNT": restarts or None,
        }.items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, str(value))

    return enter
