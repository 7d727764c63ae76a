"""Tables as text: how their values are written, in which order their rows stand, and how rows of another machine's
table are added.

Values are compared and merged as they are written, so that a row that is only passed on is the same to the letter.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.config.limits import FORMULA
from scaling.console.terminal import note
from scaling.errors import InputError
from scaling.records.columns import LATER, TYPES
from scaling.records.files import replacing, write_text

ORDER = ("N", "D", "run_id", "tokens_seen", "ptq", "granularity_post", "P_post", "format_post")
ROW = ["run_id", "tokens_seen", "setting"]  # what names a row
DIGITS = "%.8g"


def as_written(frame: pd.DataFrame) -> pd.DataFrame:
    """Every value as its text in a CSV, empty where there is none."""
    text = io.StringIO(frame.to_csv(index=False, float_format=DIGITS))
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of text in the order of `ORDER`, what is empty first."""
    return frame.sort_values(list(ORDER), key=_key, na_position="first", kind="stable")


def _key(column: pd.Series) -> pd.Series:
    return column if TYPES[str(column.name)] == "text" else pd.to_numeric(column)


def with_rows_of(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` and the rows of the table in `path` whose runs it has not. Says how far the losses of rows that both have
    lie apart: tables of two machines belong together only where the same runs agree.

    Raises:
        InputError: no such table, not one with these columns and numbers in them, or one that was damaged or edited.
    """
    try:
        verify(path)
        other = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as fault:
        raise InputError(f"{path}: not a table of runs ({' '.join(str(fault).split())})") from None
    for column in set(LATER) - set(other):
        other[column] = ""
    if set(other) != set(frame):
        apart = ", ".join(sorted(set(other) ^ set(frame))[:5])
        raise InputError(f"{path}: not a table with the columns of this version; in one of them only: {apart}")
    both = frame.merge(other, on=ROW)
    new = other[~other["run_id"].isin(frame["run_id"])]
    said = f"{path}: {new['run_id'].nunique()} runs added"
    if len(both):
        # Rows of runs that diverged have no loss.
        apart = np.nan_to_num(np.abs(_numbers(both["loss_x"], path) - _numbers(both["loss_y"], path))).max()
        said += f"; {both['run_id'].nunique()} runs are here too, with losses at most {apart:.2g} nats apart"
    for column in frame:
        if TYPES[column] in ("integer", "number"):
            _numbers(new[column], path)
    note(said)
    return pd.concat([frame, new[list(frame)]], ignore_index=True)


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    """A column of text as numbers, NaN where it is empty.

    Raises:
        InputError: something else is in it.
    """
    try:
        return pd.to_numeric(column).astype(float)
    except ValueError as fault:
        raise InputError(f"{path}: {str(column.name).removesuffix('_y')} is not a number ({fault})") from None


def write(frame: pd.DataFrame, out: Path) -> None:
    """Rows of text as a CSV, whole or not at all.

    Raises:
        InputError: one is not of its column's type, or a spreadsheet would take it for a formula.
    """
    for name, column in frame.items():
        if TYPES.get(str(name)) == "text":
            bad, wanted = column.str.startswith(tuple(FORMULA)), f"a text that begins with none of {' '.join(FORMULA)}"
        elif TYPES.get(str(name)) == "true or false":
            bad, wanted = ~column.str.lower().isin(["", "true", "false"]), "true or false"
        else:
            bad, wanted = (column != "") & pd.to_numeric(column, errors="coerce").isna(), "a number"
        if bad.any():
            raise InputError(f"{name}={column[bad].iloc[0]!a} in the rows for {out}: expected {wanted}")
    with replacing(out) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_sha(out: Path) -> None:
    """Write the sha256 of a table beside it, as `sha256sum` does."""
    write_text(_sha_path(out), f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {out.name}\n")


def verify(path: Path) -> None:
    """Raise InputError if a table is not the one whose sha256 is stored beside it; those of earlier versions have none.

    `analysis.table` does so too, which nothing here may import.
    """
    beside = _sha_path(path)
    if beside.exists() and beside.read_bytes().split()[:1] != [hashlib.sha256(path.read_bytes()).hexdigest().encode()]:
        raise InputError(
            f"{path}: damaged, or edited since it was collected: {beside.name} says otherwise; collect it again, or "
            "delete that file to use the table as it is"
        )


def _sha_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
