"""Files that are there whole or not at all, and lines of JSON."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scaling.errors import InputError

SCHEMA = 1


@contextlib.contextmanager
def replacing(path: Path, allowed: Callable[[], None] | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not. What
    takes its place is on the disk by then, so that a machine that stops leaves the old file or the new one.

    Args:
        allowed: called right before; what it raises leaves the old file.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, allowed: Callable[[], None] | None = None) -> None:
    """Write `text` to `path`, whole or not at all; `allowed` as for `replacing`."""
    with replacing(path, allowed) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new(path: Path, text: str) -> bool:
    """Write `text` to `path`, whole or not at all; False, and nothing is done, where a file is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.link(file.name, path)
    except FileExistsError:
        return False
    except OSError as fault:
        raise InputError(f"{path.parent}: cannot be written to ({fault.strerror}); name another folder") from None
    return True


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, of which the last one may have been cut off.

    Raises:
        InputError: another line is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            # A killed run may leave half a line at the end; half a line in the middle is damage.
            if i < len(lines) - 1:
                raise InputError(f"{path}: line {i + 1} is not JSON") from None
    return rows
