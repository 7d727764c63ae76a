"""The one exception that users see as a line instead of a traceback."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback.
    """

    def __init__(self, line: str):
        # Values that are named may hold line breaks, or what a terminal takes for a command.
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))


def named(field: str, check: Callable, *arguments: Any) -> Any:
    """What `check(*arguments)` returns; its complaint, which starts with the value, gets the field's name in front."""
    try:
        return check(*arguments)
    except InputError as fault:
        raise InputError(f"{field}={fault}") from None


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> str:
    """The end of a message that refuses a name: the known ones that are spelled most like it, if there are any."""
    close = difflib.get_close_matches(name.lower(), list(known), n=most, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""
