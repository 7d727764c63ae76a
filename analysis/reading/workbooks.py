"""Tables that are no text: Parquet and workbooks, where the library that reads them is there."""

import io
from pathlib import Path

import pandas as pd

from analysis.errors import InputError
from analysis.reading.content import is_workbook, missing
from analysis.reading.text import LINE

PARQUET = b"PAR1"


def frame_of(data: bytes, path: Path) -> pd.DataFrame | None:
    """The table in `data`, None if that is neither Parquet nor a workbook; of a workbook the first sheet.

    Raises:
        InputError: it is damaged, has no rows, or the library is missing.
    """
    if data.startswith(PARQUET):
        what, package = "Parquet", "pyarrow"
    elif is_workbook(data):
        what, package = "a workbook", "openpyxl"
    else:
        return None
    try:
        frame = pd.read_parquet(io.BytesIO(data)) if package == "pyarrow" else pd.read_excel(io.BytesIO(data))
    except ImportError:
        missing(path, what, package)
    except Exception as fault:  # libraries of others raise whatever they like at what is damaged
        raise InputError(f"{path}: not {what} that can be read ({' '.join(str(fault).split())[:200]})") from None
    if frame.empty:
        raise InputError(f"{path}: has no rows below its header")
    frame = frame.rename(columns=str).reset_index(drop=True)
    if package == "openpyxl":
        frame.index = pd.RangeIndex(2, len(frame) + 2, name=LINE)
    return frame.apply(_plain)


def _plain(values: pd.Series) -> pd.Series:
    """A column as a CSV would give it: numbers, truth or text."""
    kind = pd.api.types
    if kind.is_bool_dtype(values) and not values.isna().any():
        return values.astype(bool)
    if kind.is_numeric_dtype(values) and not kind.is_bool_dtype(values):
        return values.astype(float if values.isna().any() else values.to_numpy().dtype)
    return values.astype(object).map(
        lambda value: value if _missing(value) or isinstance(value, bool | int | float) else str(value)
    )


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NA or value is pd.NaT
