"""Files that are either whole or not there, and in the folder where they belong.

`scaling.records.files` has the like for run folders: neither package may import the other.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.errors import InputError


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
    without an exception.

    Raises:
        InputError: the folder cannot be made or written to, the disk is full, or `path` is a folder.
    """
    # The suffix stays last: matplotlib chooses the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as fault:
        raise InputError(f"{path.parent}: cannot be written to ({fault.strerror}); name another folder") from None
    try:
        yield temporary
        temporary.replace(path)
    except OSError as fault:
        raise InputError(f"{path}: cannot be written ({fault.strerror or fault}); nothing was changed") from None
    finally:
        temporary.unlink(missing_ok=True)
