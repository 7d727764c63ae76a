"""What a person sees on stderr while a stack trains: one progress line, and notes that do not break it.

On a terminal the line is live (rich). Anywhere else, and wherever several workers share one terminal, it is a plain
line now and then: a log file full of carriage returns helps nobody.
"""

import os
import sys
import time
from collections import deque
from typing import ClassVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

PLAIN_VARIABLE = "SCALING_PLAIN"
"""Environment variable that, set to anything, asks for plain lines (for workers that share a terminal)."""

PLAIN_EVERY = 10.0
"""Seconds between plain lines."""


class Progress:
    """Tokens done of total, speed, time left and whatever the caller adds. Use as a context.

    Args:
        title: what runs, a word or two.
        total_tokens: tokens that make it complete, summed over the models of the stack.
        plain: plain lines even on a terminal; by default only where stderr is no terminal or `SCALING_PLAIN` is set.
    """

    _live: ClassVar[Bar | None] = None

    def __init__(self, title: str, total_tokens: int, plain: bool | None = None):
        if plain is None:
            capable = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            plain = not capable or bool(os.environ.get(PLAIN_VARIABLE))
        self._title, self._total = title, total_tokens
        self._done, self._fields, self._speed = 0, {}, Speed()
        self._start = self._last_line = time.monotonic()
        self._bar = None if plain else _bar()
        if self._bar is not None:
            self._task = self._bar.add_task(title, total=total_tokens, text="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            Progress._live = self._bar
        return self

    def update(self, done_tokens: int, **fields: str) -> None:
        """Say that `done_tokens` of the total are done. The first call sets where the speed is counted from, so that
        a resumed stack does not claim the tokens of an earlier day. `fields` are shown as `name value`."""
        now = time.monotonic()
        self._speed.add(now, done_tokens)
        self._done, self._fields = done_tokens, fields
        if self._bar is not None:
            self._bar.update(self._task, completed=done_tokens, text=self._text())
        elif now - self._last_line >= PLAIN_EVERY:
            self._last_line = now
            note(f"{self._title}: {self._text()}")

    def __exit__(self, kind, *_) -> None:
        if self._bar is not None:
            Progress._live = None
            self._bar.stop()
        else:
            ended = "stopped" if kind else "ended"
            note(f"{self._title}: {self._text()}; {ended} after {duration(time.monotonic() - self._start)}")

    def _text(self) -> str:
        parts = [f"{amount(self._done)}/{amount(self._total)} tokens"]
        if rate := self._speed.per_second():
            parts.append(f"{amount(rate)}/s")
            if self._done < self._total:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join(parts + [f"{name} {value}" for name, value in self._fields.items()])


def note(text: str) -> None:
    """Print one line on stderr, above the live progress line where there is one."""
    if Progress._live is not None:
        Progress._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _bar() -> Bar:
    # One row whatever the width of the window: a folded row would be left behind at each refresh.
    text = Column(no_wrap=True, overflow="ellipsis")
    return Bar(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[text]}", markup=False, table_column=text),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


class Speed:
    """Tokens a second over the last `window` seconds: a stack speeds up when members leave it."""

    def __init__(self, window: float = 30.0):
        self._window = window
        self._points: deque[tuple[float, int]] = deque()

    def add(self, seconds: float, tokens: int) -> None:
        """`tokens` were done at `seconds` of some clock."""
        self._points.append((seconds, tokens))
        # Keep one point at or before the window's edge, so that steps longer than the window still give a speed.
        while len(self._points) > 2 and self._points[1][0] <= seconds - self._window:
            self._points.popleft()

    def per_second(self) -> float:
        """0 until two points are known."""
        if len(self._points) < 2 or self._points[-1][0] == self._points[0][0]:
            return 0.0
        (start, before), (end, after) = self._points[0], self._points[-1]
        return (after - before) / (end - start)


def amount(number: float) -> str:
    """Three digits and a power of thousand: 950, 12.3k, 2.00M, 64.0G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999.5k and up would be rounded to 1000k: that is 1.00M.
        if abs(number) >= size * 0.9995:
            value = number / size
            return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """0:07, 12:30, 3:05:09."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
