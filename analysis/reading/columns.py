"""Which columns of a table are those of the laws, as a user says: `N=params,D==steps*524288,loss=val_loss`.

An entry is NAME=COLUMN or NAME==EXPRESSION; expressions are those of filters, on the table's own columns.
"""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis import filters
from analysis.errors import InputError

EXAMPLE = "expected NAME=COLUMN or NAME==EXPRESSION with commas between, e.g. N=params,D==steps*524288,loss=val_loss"


def parsed(texts: Sequence[str]) -> dict[str, str]:
    """A map from the option's texts: name -> column, or `=` and an expression.

    Raises:
        InputError: an entry is not of this form, or a name is given twice.
    """
    sources: dict[str, str] = {}
    for entry in (piece for text in texts for piece in _pieces(text)):
        name, equals, source = (part.strip() for part in entry.partition("="))
        if not (name and equals and source.strip("= ")):
            raise InputError(f"columns={entry.strip()!r}: {EXAMPLE}")
        if name in sources:
            raise InputError(f"columns: {name} is given twice; expected each name once")
        sources[name] = source
    return sources


def _pieces(text: str) -> list[str]:
    """Entries between commas that stand in no brackets and no quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        quote = "" if letter == quote else quote or (letter if letter in "'\"`" else "")
        depth += 0 if quote else (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece for piece in pieces if piece.strip()] or [text]


def mapped(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """`frame` with the columns that the map names beside its own; all are taken from the table as it came.

    Raises:
        InputError: there is no such column, or an expression cannot be evaluated.
    """
    return frame.assign(**{name: _one(frame, name, source) for name, source in columns.items()})


def _one(frame: pd.DataFrame, name: str, source: str) -> object:
    if source in frame:
        return frame[source]
    expression = source.removeprefix("=").strip()
    if source.startswith("=") or re.search(r"[-+*/(]", source):
        try:
            return filters.computed(frame, expression)
        except InputError as fault:
            raise InputError(f"columns={name}={source}: {fault}") from None
    raise InputError(f"columns={name}={source}: {filters.no_such_column(frame, source)}")
