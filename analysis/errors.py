"""The one exception that users see as a line instead of a traceback."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback. `detail`: what a reader of the
    report does not need; `brief` is the message without it.
    """

    def __init__(self, message: str, *, detail: str = ""):
        # Values that are named may hold line breaks, or what a terminal takes for a command.
        message, whole = (
            "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
            for line in (message, f"{message}; {detail}" if detail else message)
        )
        super().__init__(whole)
        self.brief = message


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name: the known one that is spelled most like it, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}"
