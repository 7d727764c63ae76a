"""Signals that ask a command to stop: Ctrl-C of a person, and those of schedulers.

SLURM sends SIGTERM when it preempts or cancels a job, and the signal that `sbatch --signal` names some time before the
time limit: USR2 where submitit has submitted it. Each of them may come several times, from SLURM and from whatever
passes it on (srun, torchrun). All mean: save, and end.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

OF_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
IMPATIENT = 1.0
"""Seconds after which another Ctrl-C is a person's, and not the same one passed on."""


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to stop. `number` says which; None: another process was asked. Its text, if it
    has one, says what became of the process."""

    def __init__(self, number: int | None = None, text: str = ""):
        super().__init__(text)
        self.number = number

    @property
    def by_scheduler(self) -> bool:
        return self.number in OF_SCHEDULERS


class Interrupt:
    """While a stack trains, a signal waits for the end of the step; only a second Ctrl-C does not. Use as a context.

    `asked` says whether there was one.
    """

    SIGNALS = (signal.SIGINT, *OF_SCHEDULERS)

    def __init__(self):
        self.number: int | None = None
        self.came, self.measurements = 0.0, 0

    @property
    def asked(self) -> bool:
        return self.number is not None

    def _handle(self, number, frame) -> None:
        again = number == signal.SIGINT and self.asked and time.monotonic() - self.came > IMPATIENT
        if not self.asked:
            self.number, self.came = number, time.monotonic()
        if again or self.measurements:
            raise Interrupted(number)

    def __enter__(self) -> "Interrupt":
        # Handlers can be set in the main thread only; elsewhere the caller's stay.
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        _now.append(self)
        return self

    def __exit__(self, *_) -> None:
        _now.remove(self)
        for number, handler in self.before.items():
            signal.signal(number, handler)


_now: list[Interrupt] = []
"""The one that is in force comes last."""


def check() -> None:
    """Raise Interrupted where a signal has come and waits for the end of the step."""
    if _now and _now[-1].asked:
        raise Interrupted(_now[-1].number)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """What is computed in here changes nothing that has to be whole, and may take longer than a scheduler waits: a
    signal ends it without waiting for the step."""
    check()
    if not _now:
        yield
        return
    interrupt = _now[-1]
    interrupt.measurements += 1
    try:
        yield
    finally:
        interrupt.measurements -= 1


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Let a scheduler's signal raise Interrupted at once, as Ctrl-C raises KeyboardInterrupt. Outside of training
    nothing is lost by it."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _raise) for number in OF_SCHEDULERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(every: float = 2.0) -> None:
    """In a worker of joblib, which outlives a sweep that is killed, and would wait for its next job for ever: once its
    parent is gone, it is asked to stop every so many seconds. What it trains is saved. Elsewhere nothing."""
    if multiprocessing.current_process().name == "MainProcess" or _watches:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(every)

    _watches.append(threading.Thread(target=watch, daemon=True))
    _watches[0].start()


_watches: list[threading.Thread] = []
"""The thread of this process that watches its parent: one at most."""


def ignore() -> None:
    """Let no signal of a scheduler disturb what is left to do before the process ends."""
    for number in OF_SCHEDULERS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number, frame) -> None:
    raise Interrupted(number)
