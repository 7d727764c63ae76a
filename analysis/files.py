"""Files that are either whole or not there, and in the folder where they belong.

`scaling.records.files` has the like for run folders: neither package may import the other.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from analysis.errors import InputError

MARK = "analysis-tmp-"  # in the names of temporary files, and of no others
DAY = 24 * 3600.0


def inside(path: Path, folder: Path) -> Path:
    """`path`, which lies in `folder`: with `..` or a symbolic link in it, a study's results could lead anywhere.

    Raises:
        InputError: it leads out of `folder`.
    """
    try:
        leads_to = path.resolve()
        if leads_to.is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError):  # a circle of links
        leads_to = "itself"
    raise InputError(f"{path}: leads to {leads_to}; expected a name in {folder}, and no link out of it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block, which does nothing but write there, ends
    without an exception. What takes its place is on the disk by then. Those that killed processes left in the folder
    are removed first.

    Raises:
        InputError: the folder cannot be made or written to, the disk is full, or `path` is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path.parent)
        temporary, handle = _temporary(path)
    except OSError as fault:
        raise InputError(f"{path.parent}: cannot be written to ({fault.strerror}); name another folder") from None
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as fault:
        raise InputError(f"{path}: cannot be written ({fault.strerror or fault}); nothing was changed") from None
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """Write several files, text in UTF-8: all of them, or none.

    Raises:
        InputError: as `replacing`.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            content = content.encode() if isinstance(content, str) else content
            stack.enter_context(replacing(path)).write_bytes(content)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        InputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as fault:
        raise InputError(f"{path}: cannot be removed ({fault.strerror}); remove it, or name another folder") from None


def _temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, and a handle that keeps it locked. Its suffix is that of `path`, by which matplotlib
    chooses the format."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.{MARK}", suffix=path.suffix)
        locked = _lock(handle)
        if locked is None or (locked and os.fstat(handle).st_nlink):
            return Path(name), handle
        os.close(handle)  # another process took it for one that was left behind, before it was locked


def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files in `folder` that no living process holds; without locks, those that nobody has touched
    for a day."""
    for path in folder.glob(f".*.{MARK}*"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                locked, age = _lock(handle), time.time() - os.fstat(handle).st_mtime
                if locked or (locked is None and age > DAY):
                    path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool | None:
    """Lock an open file until it is closed or its process ends, however it ends. False: another process holds it; None:
    this file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
