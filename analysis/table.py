"""Reads a tidy table and checks it: one row an evaluated model, one line for each fault.

Columns are those of `runs.csv`, but any CSV will do that has N, D and loss, and whichever of P_w, P_a, P_kv, P_post,
gap, gap_se, cluster, run_id a law needs. N counts non-embedding parameters, D tokens, loss and gap are in nats a token,
P in bits (16 where nothing is quantized). columns.csv beside this module, a link to the list that
`runs.csv` is written from, says the types; columns that it does not have are left as pandas reads them.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError

LINE = "line"  # name of the index of a table that was read from a file: rows are then called by their line there
FORMULA = ("=", "+", "-", "@")  # a cell that begins so is a formula to spreadsheets
ROUNDING = 1e-3  # of D, by whole batches, where a table does not state the batch
ALIKE = 0.02  # of D: the most that whole batches may take off
BOOLEANS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
with open(Path(__file__).with_name("columns.csv"), newline="", encoding="utf-8") as _file:
    TYPES = {row["name"]: row["type"] for row in csv.DictReader(_file)}
"""Column of runs.csv -> `text`, `integer`, `number` or `true or false`."""


def load(path: Path) -> pd.DataFrame:
    """The table in the CSV `path`, indexed by line number. What is empty is NaN, in whatever column.

    Raises:
        InputError: no such file, not a CSV with a header and rows, a value that is not of its column's type, or a table
            that is another than its checksum in a file beside it says.
    """
    # Else digits alone, or digits and an e, would make a number of a commit or a checksum.
    texts = {column: str for column, kind in TYPES.items() if kind == "text"}
    try:
        _verify(path)
        frame = pd.read_csv(path, low_memory=False, dtype=texts)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a CSV file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a CSV file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as fault:
        raise InputError(f"{path}: not a CSV table ({' '.join(str(fault).split())})") from None
    if frame.empty:
        raise InputError(f"{path}: has no rows below its header")
    frame.index = pd.RangeIndex(2, len(frame) + 2, name=LINE)
    for column in frame.columns.intersection(list(TYPES)):
        if TYPES[column] == "true or false":
            frame[column] = _booleans(frame[column])
        elif TYPES[column] != "text":
            frame[column] = _numeric(frame[column])
        else:
            # What is read here is written to tables of figures, which people open in spreadsheets.
            formula = frame[column].str.startswith(FORMULA, na=False)
            _refuse(frame[column], formula, f"a text that begins with none of {' '.join(FORMULA)}")
    return frame


def _numeric(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values
    read = pd.to_numeric(values.astype(str), errors="coerce")
    _refuse(values, values.notna() & read.isna(), "a number")
    return read


def _booleans(values: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(values):
        return values
    read = values.astype(str).str.strip().str.lower().map(BOOLEANS)
    _refuse(values, values.notna() & read.isna(), "true or false")
    return read


def _refuse(values: pd.Series, bad: np.ndarray | pd.Series, wanted: str) -> None:
    """Raise InputError if any of `bad` (n,) is true; names the first such row of the column `values` (n,)."""
    if bad.any():
        first = int(np.argmax(bad))
        where = f"{LINE if values.index.name == LINE else 'row'} {values.index[first]}"
        raise InputError(f"{values.name}: {where} holds {values.iloc[first]}; expected {wanted}")


def digest(path: Path) -> str:
    """sha256 of the file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _verify(path: Path) -> None:
    """Raise InputError if `collect` has left the sha256 of the table beside it, and it is another now. Tables from
    elsewhere have none.

    `scaling.records.merge` does so too, which nothing here may import.
    """
    beside = path.with_name(f"{path.name}.sha256")
    if beside.exists() and beside.read_bytes().split()[:1] != [digest(path).encode()]:
        raise InputError(
            f"{path}: damaged, or edited since it was collected: {beside.name} says otherwise",
            detail="collect it again, or delete that file to use the table as it is",
        )


def numbers(frame: pd.DataFrame, column: str, *, positive: bool = False) -> np.ndarray:
    """A column as floats (n,).

    Raises:
        InputError: it is missing, or holds something that is not a finite (positive) number; names the first such row.
    """
    if column not in frame:
        raise InputError(
            f"{column}: the table has no such column", detail=f"it has {', '.join(map(str, frame.columns))}"
        )
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
    bad = ~np.isfinite(values) | ((values <= 0) if positive else False)
    _refuse(frame[column], bad, "a finite number above zero" if positive else "a finite number")
    return values


def flags(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A true-or-false column (n,), false where it is empty and all false where the table lacks it.

    Raises:
        InputError: it holds something else; names the first such row.
    """
    if column not in frame:
        return np.zeros(len(frame), bool)
    return _booleans(frame[column]).eq(True).to_numpy(bool)


def diverged(frame: pd.DataFrame) -> np.ndarray:
    """Which rows (n,) are of no use, because their run diverged or their loss is not finite. A gap does without a loss
    that is empty.

    Raises:
        InputError: as `flags`.
    """
    broken = flags(frame, "diverged")
    if "loss" in frame:
        empty = frame["loss"].isna()
        if "gap" in frame:
            empty &= frame["gap"].isna()
        broken = broken | empty.to_numpy(bool) | np.isinf(pd.to_numeric(frame["loss"], errors="coerce").to_numpy(float))
    return broken


def nominal_tokens(frame: pd.DataFrame) -> np.ndarray:
    """D (n,) by which rows are grouped. A run's tokens are rounded down to whole batches, so that what was asked for
    once is another D for each size of batch: those that are less than a batch apart, or less than `ROUNDING` where the
    table states no batch, are one, the smallest of them.

    Raises:
        InputError: as `numbers`.
    """
    tokens = numbers(frame, "D", positive=True)
    batch = ROUNDING * tokens
    if "batch_tokens" in frame:
        known = pd.to_numeric(frame["batch_tokens"], errors="coerce").to_numpy(float)
        batch = np.where(np.isfinite(known), np.minimum(known, ALIKE * tokens), batch)
    nominal: dict[float, float] = {}
    start = reach = 0.0
    for count in np.unique(tokens):
        own = batch[tokens == count].max()
        if not count - start < max(reach, own):
            start, reach = count, own
        nominal[count], reach = start, max(reach, own)
    return np.array([nominal[count] for count in tokens]).astype(frame["D"].dtype)


def after_training(frame: pd.DataFrame) -> np.ndarray:
    """Which rows (n,) are models that were quantized after training."""
    for column in ("ptq", "P_post", "gap"):
        if column in frame:
            return frame[column].notna().to_numpy(bool)
    return np.zeros(len(frame), bool)
