"""Commands of this project as processes.

Torch takes seconds to import. So a command is a fork of a process that has imported it, which runs it as `python -m`
does; in a new interpreter where workers of its own are started from it; or a call within this process, for commands
that are not to be killed.
"""

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

ENTRIES = {
    "scaling.train": ("scaling.train", "main"),
    "scaling.ptq": ("scaling.ptq.__main__", "main"),
    "scaling.sweep": ("scaling.sweep", "main"),
    "analysis": ("analysis.__main__", "command"),
}
"""Module of `python -m` -> where its entry is."""
PRELOADED = ("scaling.training.loop", "scaling.ptq.requantize", "scaling.study.sweeper", "analysis.figures.study")
PRELOADED += ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "tokenizers")
REPOSITORY = Path(__file__).parents[2]
LONGEST = 300.0
"""Seconds after which a command that has not ended hangs."""

How = Literal["fork", "new", "here"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """`python -m module arguments`."""

    module: str
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, *words: str) -> "Command":
        return cls(module=words[0], arguments=words[1:])

    @property
    def words(self) -> tuple[str, ...]:
        return (self.module, *self.arguments)

    def __str__(self) -> str:
        return " ".join(("python -m", *self.words))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit status, negative where a signal did it, and what it printed."""

    command: Command
    status: int
    out: str
    err: str


def preload() -> None:
    """Import what commands need, before the first is forked."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    for module in (*(module for module, _ in ENTRIES.values()), *PRELOADED):
        import_module(module)
    import torch

    torch.set_num_threads(1)  # threads would not be there in a fork


class Running:
    """A command in a process group of its own; what it prints goes to files in `logs`."""

    def __init__(self, command: Command, cwd: Path, logs: Path, how: How = "fork"):
        self.command = command
        number = len(list(logs.iterdir()))
        self.out, self.err = logs / f"{number:05}.out", logs / f"{number:05}.err"
        self.popen: subprocess.Popen | None = None
        self.status: int | None = None
        self.began = time.time()
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            if how == "new":
                words = [sys.executable, "-m", *command.words]
                self.popen = subprocess.Popen(words, cwd=cwd, stdout=out, stderr=err, start_new_session=True)
                self.pid = self.popen.pid
            else:
                sys.stdout.flush()
                sys.stderr.flush()
                self.pid = os.fork()
                if not self.pid:
                    _run_forked(command, cwd, out.fileno(), err.fileno())

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self.status is None:
            if self.popen is not None:
                self.status = self.popen.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, until: Callable[[], bool] = lambda: False, seconds: float = LONGEST) -> bool:
        """Wait for its end, or for what `until` asks; False if neither came in so many seconds."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and not until():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def kill(self, whole_group: bool) -> None:
        """SIGKILL, of its children too or of the process alone."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(self.pid, signal.SIGKILL)

    def ended(self) -> Ended:
        """How it ended; one that hangs is killed."""
        if not self.wait():
            self.kill(whole_group=True)
            self.wait()
            with open(self.err, "a", encoding="utf-8") as file:
                file.write(f"\nTraceback (most recent call last): none; killed after {LONGEST:.0f} s\n")
        return Ended(
            command=self.command,
            status=self.status if self.status is not None else -signal.SIGKILL,
            out=self.out.read_text(encoding="utf-8", errors="replace"),
            err=self.err.read_text(encoding="utf-8", errors="replace"),
        )


def _run_forked(command: Command, cwd: Path, out: int, err: int) -> None:
    """The life of a forked process, which ends here."""
    status = 1
    try:
        os.setpgid(0, 0)
        os.chdir(cwd)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = _called(command)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def here(command: Command) -> Ended:
    """Call a command in this process and its working folder."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _called(command)
    return Ended(command=command, status=status, out=out.getvalue(), err=err.getvalue())


def _called(command: Command) -> int:
    module, entry = ENTRIES[command.module]
    before = sys.argv
    sys.argv = [command.module, *command.arguments]
    try:
        getattr(import_module(module), entry)()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.argv = before
    return 0


def run(command: Command, cwd: Path, logs: Path, how: How = "fork") -> Ended:
    """Run a command to its end."""
    if how == "here":
        assert Path.cwd() == cwd
        return here(command)
    return Running(command, cwd, logs, how).ended()
