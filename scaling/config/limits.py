"""What a setting may be beyond its type, declared with its field, as in `Annotated[float, Above(0), AtMost(1)]`.

`scaling.config.from_dict` reads these. Without them a number has to be finite, and a whole number to have 64 bits.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

FORMULA = "=+-@"
"""What spreadsheets take a cell for a formula by, if it begins with it."""


@dataclasses.dataclass(frozen=True)
class _Bound:
    limit: float
    words: ClassVar[str]
    compare: ClassVar[Callable[[Any, Any], bool]]

    def allows(self, value: float) -> bool:
        return self.compare(value, self.limit)

    def __str__(self) -> str:
        return f"{self.words} {self.limit:,}"


class Above(_Bound):
    words, compare = "above", operator.gt


class AtLeast(_Bound):
    words, compare = "at least", operator.ge


class Below(_Bound):
    words, compare = "below", operator.lt


class AtMost(_Bound):
    words, compare = "at most", operator.le


class FolderName:
    """A text that can name a folder, and nothing outside of the folder that this stands in, and a group of W&B, which
    takes no longer names. In a CSV it is no formula."""

    LONGEST = 128

    def allows(self, value: str) -> bool:
        inside = value[:1] not in ("", ".", *FORMULA) and "/" not in value and "\\" not in value
        return inside and value.isprintable() and len(value.encode()) <= self.LONGEST

    def __str__(self) -> str:
        return f"a folder name of at most {self.LONGEST} bytes that begins with none of . {' '.join(FORMULA)}"


class NotEmpty:
    def allows(self, value: str) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return "not empty"


class Longest:
    def __init__(self, length: int):
        self.length = length

    def allows(self, value: str) -> bool:
        return len(value) <= self.length

    def __str__(self) -> str:
        return f"of at most {self.length} characters"


Count = Annotated[int, AtLeast(1)]
Share = Annotated[float, AtLeast(0), AtMost(1)]
Seed = Annotated[int, AtLeast(0)]
Seconds = Annotated[float, Above(0), AtMost(10**9)]
