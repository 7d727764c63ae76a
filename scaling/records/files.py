"""Files that are there whole or not at all, and checksums of what they say."""

import contextlib
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaling.errors import InputError

SCHEMA = 1
LEFT_OVER = 24 * 3600.0
"""Seconds after which a temporary file that nobody has touched is what a killed process left."""


@contextlib.contextmanager
def replacing(
    path: Path, allowed: Callable[[], None] | None = None, place: Callable[[Path, Path], None] = os.replace
) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not. What
    takes its place is on the disk by then, so that a machine that stops leaves the old file or the new one.

    Args:
        allowed: called right before; what it raises leaves the old file.
        place: puts the temporary file there; `os.link` raises FileExistsError where there is one already.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as fault:
        raise InputError(f"{path.parent}: cannot be written to ({fault.strerror}); name another folder") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if allowed:
            allowed()
        place(temporary, path)
    except FileExistsError:
        raise
    except OSError as fault:
        raise InputError(f"{path}: cannot be written ({fault.strerror or fault}); it is as it was before") from None
    finally:
        temporary.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left beside it."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > LEFT_OVER:
                other.unlink()


def write_text(path: Path, text: str, allowed: Callable[[], None] | None = None) -> None:
    """Write `text` to `path`, whole or not at all; `allowed` as for `replacing`."""
    with replacing(path, allowed) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new(path: Path, text: str) -> bool:
    """Write `text` to `path`, whole or not at all; False, and nothing is done, where a file is there."""
    try:
        with replacing(path, place=os.link) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except FileExistsError:
        return False
    return True


def checksum(values: Any) -> str:
    """sha256 of JSON values, however they are spaced and in whatever order their keys are."""
    # What is written is summed as it will be read: a tuple as a list, a key that is a number as text.
    plain = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and under `sha256` the checksum of all of them."""
    return {**values, "sha256": checksum(values)}


def is_intact(values: Mapping[str, Any]) -> bool:
    """Whether values that have a checksum are those that it was made of. Files of earlier versions have none."""
    others = {name: value for name, value in values.items() if name != "sha256"}
    return "sha256" not in values or values["sha256"] == checksum(others)
