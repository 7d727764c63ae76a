"""One writer a run folder: whoever trains a run or adds to its records holds its lock, and all others leave it alone.

    <run>/lock           locked with flock by the writer, never deleted
    <run>/writer.json    who that is: host, process, since when, in which job of SLURM; a token that nobody else has,
                         and its latest sign of life. Removed by a writer that ends well, or is asked to end

flock is dropped by the kernel when its process ends, however it ends. Not every network file system passes locks on to
other machines, and some have none: so writer.json counts as well. On the machine of its process it is believed as long
as that process lives where there is no flock, and elsewhere as long as its sign of life is not older than `STALE`. A
job of SLURM that was queued again is the only one of its id, so it takes over at once from its earlier start. The token
is checked before every file that the writer puts in place, so that a writer whose folder was taken over stops.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from scaling.console.allocation import slurm_job
from scaling.errors import InputError
from scaling.records.files import write_text

STALE = 180.0
"""Seconds without a sign of life after which a writer on another machine is taken for dead."""
EVERY = 20.0
"""Seconds between two signs of life."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class HeldError(InputError):
    """Another process writes to the folder."""


class Holder(NamedTuple):
    """Who writes to a folder, or did; None: writer.json does not say."""

    host: str | None = None
    pid: int | None = None
    since: float | None = None
    """Seconds since the epoch."""
    job: str | None = None
    """Of SLURM."""
    cluster: str | None = None

    def __str__(self) -> str:
        job = f" (SLURM job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}" if self.pid is not None else "another process"


class Writer:
    """The right to write to one run folder, from `take` to `close`. Its process must not fork meanwhile: a child
    would hold the lock on."""

    def __init__(self, folder: Path, lock: int):
        self.folder, self.lock = folder, lock
        self.token, self.since = secrets.token_hex(8), time.time()
        self._say_alive()
        _held.append(self)
        _start_signs()

    @classmethod
    def take(cls, folder: Path) -> "Writer":
        """Become the writer of a folder, which is made where it is missing.

        Raises:
            HeldError: another process is; at once, without waiting.
            InputError: the folder cannot be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as fault:
            raise InputError(f"{folder}: cannot be written to ({fault.strerror}); name another folder") from None
        try:
            has_locks = _locked(lock)
            if has_locks is None:
                raise _held_by(folder, _read(folder))
            other = _read(folder)
            if other and _is_alive(other, has_locks):
                raise _held_by(folder, other)
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def check(self) -> None:
        """Raise HeldError if the folder has been taken over since."""
        other = _read(self.folder)
        if not other or other.get("token") != self.token:
            raise _held_by(self.folder, other)

    def close(self) -> None:
        """Let others write. Does nothing the second time."""
        with _guard:
            if self not in _held:
                return
            _held.remove(self)
            with contextlib.suppress(HeldError, OSError):
                self.check()
                (self.folder / "writer.json").unlink()
            os.close(self.lock)

    def _say_alive(self) -> None:
        values = {"host": socket.gethostname(), "pid": os.getpid(), "token": self.token, "since": self.since}
        if job := slurm_job():
            values |= {"job": job.id, "cluster": job.cluster, "restarts": job.restarts}
        values["heartbeat"] = time.time()
        write_text(self.folder / "writer.json", json.dumps(values) + "\n")


def holder(folder: Path) -> Holder | None:
    """Who writes to a folder now; None: nobody."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        has_locks = True
    except BlockingIOError:
        return _as_holder(_read(folder))
    except OSError:
        has_locks = False
    finally:
        os.close(lock)
    other = _read(folder)
    return _as_holder(other) if other and _is_alive(other, has_locks) else None


def left_behind(folder: Path) -> Holder | None:
    """Who was writing to a folder when it was killed, or its machine stopped; None: nobody, or somebody writes now."""
    other = _read(folder)
    return _as_holder(other) if other and holder(folder) is None else None


def release(folder: Path, who: Holder) -> None:
    """Free a folder of a writer that is known to have ended, although its sign of life is fresh."""
    with contextlib.suppress(OSError):
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            if _locked(lock) is not None and _as_holder(_read(folder)) == who:
                (folder / "writer.json").unlink()
        finally:
            os.close(lock)


def _locked(lock: int) -> bool | None:
    """Lock a file for this process alone. None: another process has it; False: there are no locks here."""
    for patience in (0.05, 0.2, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if patience:
                time.sleep(patience)  # it may have been `holder`, which has it for an instant
        except OSError as fault:
            if fault.errno not in _NO_LOCKS:
                raise
            return False
    return None


_guard = threading.RLock()
"""Between a sign of life and the closing of its writer."""
_held: list[Writer] = []
_thread: list[threading.Thread] = []


def _start_signs() -> None:
    if not _thread:
        _thread.append(threading.Thread(target=_give_signs, daemon=True))
        _thread[0].start()


def _give_signs() -> None:
    while True:
        time.sleep(EVERY)
        with _guard:
            for writer in _held:
                # A folder that was taken over, deleted or filled up is found out by its next write.
                with contextlib.suppress(InputError, OSError):
                    writer.check()
                    writer._say_alive()


def _read(folder: Path) -> dict[str, Any]:
    """What writer.json says; empty where there is none, or one that says nothing."""
    try:
        values = json.loads((folder / "writer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) and isinstance(values.get("heartbeat"), (int, float)) else {}


def _is_alive(other: dict[str, Any], has_locks: bool) -> bool:
    """Whether the writer that writer.json names is, although it holds no lock that is seen here."""
    mine, restarts = slurm_job(), other.get("restarts")
    is_same = mine is not None and (other.get("job"), other.get("cluster")) == (mine.id, mine.cluster)
    if is_same and isinstance(restarts, int) and restarts < mine.restarts:
        return False
    if other.get("host") != socket.gethostname():
        return time.time() - other["heartbeat"] < STALE
    return not has_locks and _runs(other.get("pid"))


def _runs(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _as_holder(other: dict[str, Any]) -> Holder:
    return Holder(**{name: other.get(name) for name in Holder._fields})


def _held_by(folder: Path, other: dict[str, Any]) -> HeldError:
    return HeldError(f"{folder}: {_as_holder(other)} is writing to it; it is left to that one")
