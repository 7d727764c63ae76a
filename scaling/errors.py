"""The one exception that users see as a line instead of a traceback."""

from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback.
    """


def named(field: str, check: Callable, *arguments: Any) -> Any:
    """What `check(*arguments)` returns; its complaint, which starts with the value, gets the field's name in front."""
    try:
        return check(*arguments)
    except InputError as fault:
        raise InputError(f"{field}={fault}") from None
