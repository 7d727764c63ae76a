"""Streams that are closed, full or read no further: the command runs to its end, and no file takes their place."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

WORK = """
import sys
from pathlib import Path
from scaling.console.cli import guarded
from scaling.console.terminal import Progress, note

def app():
    with open(sys.argv[1], "w") as file:
        note("a note")
        with Progress("work", 100) as progress:
            progress.update(50)
        print("é printed")
        print("an answer", flush=True)
        file.write(f"done by descriptor {file.fileno()}")

guarded(app, "work")
"""


def run(tmp_path, redirection):
    """Status, output, and what was said of WORK under a redirection of a shell; and what it was to write to a file."""
    command = f'"$0" -c "$1" "$2" {redirection}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, WORK, tmp_path / "file"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr, (tmp_path / "file").read_text()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_nothing_that_is_said_ends_a_command(tmp_path, redirection):
    status, out, err, written = run(tmp_path, redirection)
    assert (status, out, err) == (0, "é printed\nan answer\n", "")
    assert int(written.removeprefix("done by descriptor ")) > 2


@pytest.mark.parametrize("redirection", [">&-", "| true", ">&- 2>&- <&-"])
def test_nor_does_output_that_nobody_wants(tmp_path, redirection):
    status, out, err, written = run(tmp_path, f"{redirection}; exit ${{PIPESTATUS[0]}}")
    assert status == 0 and out == "" and "Traceback" not in err
    assert int(written.removeprefix("done by descriptor ")) > 2


def test_output_that_is_lost_is_one_line_at_the_end(tmp_path):
    status, _, err, written = run(tmp_path, ">/dev/full")
    assert status == 1 and written.startswith("done")
    assert err.splitlines()[-1].startswith("work: done, but not all that it printed could be written (No space left")
    assert "Traceback" not in err and "Exception ignored" not in err


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">/dev/full 2>&1", ">&- 2>&-"])
@pytest.mark.parametrize("study", [(), ("--multirun", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
def test_training_ends_whatever_becomes_of_its_streams(tmp_path, tiny, redirection, study):
    words = [sys.executable, "-m", "scaling.train", *tiny, *study]
    done = subprocess.run(["bash", "-c", f'"$@" {redirection}', "bash", *words], cwd=REPOSITORY)
    assert done.returncode == (1 if redirection.startswith(">/dev/full") and not study else 0)
    assert len(list((tmp_path / "outputs").glob("*/*/result.json"))) == (2 if study else 1)
