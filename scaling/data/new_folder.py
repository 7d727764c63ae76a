"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scaling.errors import InputError

ABANDONED = 24 * 3600.0
"""Seconds after which a folder in which nothing was written is what a killed process left."""


@contextlib.contextmanager
def new_folder(folder: Path, otherwise: str) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its name when the block ends well, and vanishes when it does not. Its
    files are on the disk by then. Of two processes that make one at once, the second takes what the first has made.

    Args:
        otherwise: what to do where the disk takes no folder, such as "name another cache".

    Raises:
        InputError: it cannot be made or written to; nothing is left of it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as fault:
        raise InputError(f"{folder.parent}: cannot be written to ({fault.strerror}); {otherwise}") from None
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
        temporary.chmod(0o755)  # mkdtemp makes it private
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
    except OSError as fault:
        where = f"{fault.strerror or fault}" + (f": {fault.filename}" if fault.filename else "")
        raise InputError(f"{folder}: cannot be built ({where}); nothing is left of it, run again to build it") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left beside a folder."""
    for other in folder.parent.glob(f".{folder.name}-*"):
        with contextlib.suppress(OSError):
            written = max(path.stat().st_mtime for path in (other, *other.iterdir()))
            if time.time() - written > ABANDONED:
                shutil.rmtree(other)
