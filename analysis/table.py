"""Reads a tidy table and checks it: one row an evaluated model, one line for each fault.

Columns are those of `runs.csv`, but any CSV will do that has N, D and loss, and whichever of P_w, P_a, P_kv, P_post,
gap, gap_se, cluster, run_id a law needs. N counts non-embedding parameters, D tokens, loss and gap are in nats a token,
P in bits (16 where nothing is quantized).
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError

LINE = "line"  # name of the index of a table that was read from a file: rows are then called by their line there


def load(path: Path) -> pd.DataFrame:
    """The table in the CSV `path`, indexed by line number.

    Raises:
        InputError: no such file, or not a CSV with a header and rows.
    """
    try:
        frame = pd.read_csv(path, low_memory=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a CSV file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a CSV file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as fault:
        raise InputError(f"{path}: not a CSV table ({' '.join(str(fault).split())})") from None
    if frame.empty:
        raise InputError(f"{path}: has no rows below its header")
    frame.index = pd.RangeIndex(2, len(frame) + 2, name=LINE)
    return frame


def digest(path: Path) -> str:
    """sha256 of the file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filtered(frame: pd.DataFrame, expression: str | None) -> pd.DataFrame:
    """The rows for which a pandas query expression such as `N > 1e5 and ptq == 'rtn'` holds.

    Raises:
        InputError: it does not parse, names no column, is not true or false for each row, or leaves no row.
    """
    if not expression:
        return frame
    try:
        mask = frame.eval(expression, engine="python")
    except Exception as fault:
        # What pandas raises here has no common class; all of it comes from the expression.
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise InputError(f"filter {expression!r}: {reason}; expected a condition on columns, e.g. N > 1e5") from None
    if not isinstance(mask, pd.Series) or mask.dtype != bool:
        raise InputError(f"filter {expression!r}: expected a condition that is true or false for each row")
    if not mask.any():
        raise InputError(f"filter {expression!r}: leaves none of {len(frame)} rows")
    return frame[mask]


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
    if bad.any():
        first = int(np.argmax(bad))
        where = f"{LINE if frame.index.name == LINE else 'row'} {frame.index[first]}"
        wanted = "a finite number above zero" if positive else "a finite number"
        raise InputError(f"{column}: {where} holds {frame[column].iloc[first]}; expected {wanted}")
    return values


def flags(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A true-or-false column (n,), all false where the table lacks it."""
    if column not in frame:
        return np.zeros(len(frame), bool)
    return frame[column].astype(str).str.strip().str.lower().isin(["true", "1", "1.0"]).to_numpy(bool)


def after_training(frame: pd.DataFrame) -> np.ndarray:
    """Which rows (n,) are models that were quantized after training."""
    for column in ("ptq", "P_post", "gap"):
        if column in frame:
            return frame[column].notna().to_numpy(bool)
    return np.zeros(len(frame), bool)
