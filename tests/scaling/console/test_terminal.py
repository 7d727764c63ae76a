import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.console import terminal
from scaling.console.terminal import Progress, Speed, amount, duration, note

SCRIPT = """
from scaling.console.terminal import Progress, note
with Progress("stack 3", 8_000_000) as progress:
    progress.update(4_000_000, loss="2.31")
    note("a [word] and " + "long " * 30 + "end")
    progress.update(8_000_000, loss="1.87", models="12")
"""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.4, "999"), (999.5, "1.00k"), (2048, "2.05k"), (12_345, "12.3k"), (123_456, "123k"),
     (999_499, "999k"), (999_600, "1.00M"), (2e6, "2.00M"), (64e9, "64.0G"), (1.5e13, "15.0T"), (-2048, "-2.05k")],
)  # fmt: skip
def test_amount(number, text):
    assert amount(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (7, "0:07"), (59.6, "1:00"), (750, "12:30"), (11109, "3:05:09")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_speed_is_of_the_last_seconds_and_not_of_an_earlier_day():
    speed = Speed(window=30)
    speed.add(100, 5_000_000)
    assert speed.per_second() == 0
    for second in range(1, 61):
        speed.add(100 + second, 5_000_000 + 10 * second)
    assert speed.per_second() == 10
    for second in range(1, 31):
        speed.add(160 + second, 5_000_600 + 70 * second)
    assert speed.per_second() == 70, "thirty seconds later nothing of the slow time is left"
    speed.add(290, 5_002_700 + 100)
    assert speed.per_second() == 1, "a step longer than the window counts with its own length"


def test_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "PLAIN_EVERY", 0.0)
    with Progress("stack 3", 8_000_000, plain=True) as progress:
        progress.update(4_000_000, loss="2.31")
        note("a note")
    with pytest.raises(KeyError), Progress("stack 4", 100, plain=True):
        raise KeyError
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["stack 3: 4.00M/8.00M tokens, loss 2.31", "a note"]
    assert lines[2].startswith("stack 3: 4.00M/8.00M tokens, loss 2.31; ended after 0:0")
    assert lines[3].startswith("stack 4: 0/100 tokens; stopped after 0:0")


def test_plain_lines_are_rare(capsys):
    with Progress("stack 3", 8_000_000, plain=True) as progress:
        for done in range(0, 8_000_000, 10_000):
            progress.update(done)
    assert len(capsys.readouterr().err.splitlines()) == 1


def on_a_terminal(**extra: str) -> str:
    """What a process writes to stderr when that is a terminal."""
    master, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "70"}
    environment.pop(terminal.PLAIN_VARIABLE, None)
    repository = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=repository, stderr=end, env=environment | extra, check=True)
    os.close(end)
    written = os.read(master, 100_000).decode()
    os.close(master)
    return written


def test_live_line_and_note():
    written = on_a_terminal()
    assert "\x1b[2K" in written, "the line is redrawn in place"
    assert "a [word] and " + "long " * 30 + "end\r\n" in written, "a note is whole and in a row of its own"
    assert written.count("\n") == 2, "one row for the note, one for the line"
    assert "8.00M/8.00M tokens" in written.rsplit("\x1b[2K", 1)[1]


def test_workers_of_one_terminal_write_plain_lines():
    lines = on_a_terminal(SCALING_PLAIN="1").splitlines()
    assert len(lines) == 2 and lines[0].startswith("a [word]") and lines[1].startswith("stack 3: 8.00M/8.00M tokens")
    assert "\x1b" not in "".join(lines)
