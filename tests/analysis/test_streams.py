"""Standard streams that are closed, full or left by their reader: no traceback, and a status that says so."""

import subprocess
import sys

import pytest

WORK = """
import sys
from pathlib import Path
from analysis import streams

def main():
    for line in range(int(sys.argv[2])):
        print(line)
    print("progress", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("done")
    return int(sys.argv[3])

sys.exit(streams.run(main, "prog"))
"""
LOST = "prog: stdout cannot be written to ({}); what was printed is lost\n"


@pytest.fixture
def shell(tmp_path):
    """The exit status, stderr and whether the work was done, of a command that prints so many lines."""

    def run(redirect, lines=3, returns=0):
        (tmp_path / "work.py").write_text(WORK)
        done = tmp_path / f"done{len(list(tmp_path.iterdir()))}"
        command = f'"$0" "$@" {redirect}; exit ${{PIPESTATUS[0]}}'
        arguments = [sys.executable, str(tmp_path / "work.py"), str(done), str(lines), str(returns)]
        made = subprocess.run(
            ["bash", "-c", command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return made.returncode, made.stderr, done.exists()

    return run


@pytest.mark.parametrize("lines", [3, 100_000])
@pytest.mark.parametrize(
    ("redirect", "fault"), [(">/dev/full", "No space left on device"), (">&-", "it is closed")], ids=["full", "closed"]
)
def test_output_that_is_lost_is_one_line_and_a_status(shell, redirect, fault, lines):
    assert shell(redirect, lines) == (1, "progress\n" + LOST.format(fault), True)


def test_a_reader_that_left_ends_nothing(shell):
    assert shell("| head -1", 100_000) == (0, "progress\n", True)


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_without_stderr_the_work_is_done(shell, redirect):
    assert shell(redirect) == (0, "", True)


def test_without_any_stream_the_status_remains(shell):
    assert shell("<&- >&- 2>&-") == (1, "", True)
    assert shell(">/dev/full", returns=3) == (3, "progress\n" + LOST.format("No space left on device"), True)


def test_a_closed_stream_is_not_taken_by_a_file(shell, tmp_path):
    """The first file that is opened would otherwise be descriptor 1, and what others print would go into it."""
    assert shell(">&-")[2] and {path.read_text() for path in tmp_path.glob("done*")} == {"done"}


@pytest.mark.parametrize("arguments", ["laws", "--help"])
def test_the_command_line_is_run_so(arguments):
    command = f"{sys.executable} -m analysis {arguments} >/dev/full"
    made = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (made.returncode, made.stderr.count("\n")) == (1, 1) and "No space left on device" in made.stderr
