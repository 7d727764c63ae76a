"""Reads a tidy table and checks it: one row an evaluated model, one line for each fault.

Columns are those of `runs.csv`, but any table will do that has N, D and loss, and whichever of P_w, P_a, P_kv, P_post,
gap, gap_se, cluster, run_id a law needs, under these names, others that many use (`reading.names`) or those of a map.
N counts non-embedding parameters, D tokens, loss and gap are in nats a token, P in bits (16 where nothing is
quantized). columns.csv beside this module, a link to the list that `runs.csv` is written from, says the types; columns
that it does not have are left as pandas reads them.
"""

import csv
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.reading import columns as column_map
from analysis.reading import names, text, workbooks
from analysis.reading.content import Content
from analysis.reading.text import LINE

FORMULA = ("=", "+", "-", "@")  # a cell that begins so is a formula to spreadsheets
ROUNDING = 1e-3  # of D, by whole batches, where a table does not state the batch
ALIKE = 0.02  # of D: the most that whole batches may take off
ORDER = ("N", "D", "run_id", "tokens_seen", "ptq", "granularity_post", "P_post", "format_post")
"""What rows are sorted by: as those of `runs.csv` are."""
FULL = 16.0  # bits of what is not quantized
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
NOT_QUANTIZED = ("none", "no", "false", "bf16", "fp16", "fp32", "16", "baseline")  # as a method of quantization
with open(Path(__file__).with_name("columns.csv"), newline="", encoding="utf-8") as _file:
    TYPES = {row["name"]: row["type"] for row in csv.DictReader(_file)}
"""Column of runs.csv -> `text`, `integer`, `number` or `true or false`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was read: `name` and `sha256` of the file, `columns` the map that was asked for."""

    frame: pd.DataFrame
    name: str
    sha256: str
    columns: dict[str, str]


def load(
    path: Path | str, columns: Mapping[str, str] | None = None, *, say: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """The table in the file `path` as a data frame, a row an evaluated model, indexed by its line. `columns` says which
    columns are those of the laws where they have other names, {"N": "params", "D": "=steps * 524288"}.

    Raises:
        InputError: as `read`.

    >>> from analysis import read_table
    >>> frame = read_table("results/overtraining/runs.csv")
    >>> frame["run_id"].nunique(), frame["N"].nunique()
    (39, 5)
    >>> rtn = frame[frame["ptq"].isna() | ((frame["ptq"] == "rtn") & (frame["granularity_post"] == "channel"))]
    >>> int4 = rtn[(rtn["format_post"] == "int4") & (rtn["N"] == 23552)]
    >>> int4.groupby("D")[["loss", "gap"]].mean().round(2).head(3)
             loss   gap
    D
    1998848  2.04  0.08
    3999744  1.95  0.11
    7999488  1.90  0.12
    """
    return read(path, columns, say=say).frame


def read(
    path: Path | str, columns: Mapping[str, str] | None = None, *, say: Callable[[str], None] | None = None
) -> Table:
    """The table in `path` (`-`: the standard input), indexed by line number. What is empty is NaN, in whatever column.

    `columns` says which columns are those of the laws: {"N": "params", "D": "=steps * 524288"}. Names that many people
    use are known without; `say` gets a line about them, by default standard error does.

    Raises:
        InputError: no such file, not a table with a header and rows, a value that is not of its column's type, or
            another table than its checksum in a file beside it says.
    """
    path, renamed = Path(path), dict(columns or {})
    _verify(path)
    content = Content(path)
    frame = workbooks.frame_of(content.data, path)
    frame = text.frame_of(content.data, path, TYPES) if frame is None else frame
    frame = frame.rename(columns=lambda name: str(name).strip())
    frame = column_map.mapped(frame, renamed)
    frame, said = names.recognized(frame)
    if said:
        (say or _to_stderr)(f"{path}: {', '.join(said)}; --columns says otherwise")
    return Table(frame=_typed(frame), name=content.name, sha256=content.sha256, columns=renamed)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the columns of `TYPES` in their types."""
    typed = {}
    for column in frame.columns.intersection(list(TYPES)):
        if TYPES[column] == "true or false":
            typed[column] = _booleans(frame[column])
        elif TYPES[column] != "text":
            typed[column] = _numeric(frame[column])
        else:
            typed[column] = _texts(frame[column])
            # What is read here is written to tables of figures, which people open in spreadsheets.
            formula = typed[column].str.startswith(FORMULA, na=False)
            _refuse(frame[column], formula, f"a text that begins with none of {' '.join(FORMULA)}")
    return frame.assign(**typed)


def _texts(values: pd.Series) -> pd.Series:
    """A column as text; whole numbers without a point."""
    if not (pd.api.types.is_numeric_dtype(values) or values.dtype == object):
        return values
    whole = values.map(lambda v: f"{v:.0f}" if isinstance(v, float) and v.is_integer() else str(v))
    return whole.astype("str").where(values.notna())


def _numeric(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values
    read = pd.to_numeric(values.astype(str), errors="coerce")
    commas = values.astype(str).str.contains(",").any()
    _refuse(values, values.notna() & read.isna(), f"a number{', without commas' if commas else ''}")
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


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in an order that follows from what they hold, so that nothing hangs on how they came: by `ORDER`, what
    is empty first, then by all other columns. Rows that repeat others stay beside them."""
    first = [column for column in ORDER if column in frame]
    rest = sorted(frame.columns.difference(first, sort=False), key=str)
    numeric = pd.api.types.is_numeric_dtype
    made = frame.sort_values(first, na_position="first", kind="stable") if first else frame
    tied = made.duplicated(first, keep=False) if first else pd.Series(True, index=made.index)
    if not tied.any() or not rest:
        return made
    return frame.sort_values(
        [*first, *rest],
        key=lambda c: c if c.name in first or numeric(c) else c.astype(str),
        na_position="first",
        kind="stable",
    )


def after_training(frame: pd.DataFrame) -> np.ndarray:
    """Which rows (n,) are models that were quantized after training: those with a method in `ptq`, or where the table
    names no methods with a P_post below 16 bits, or where it has no such column with a gap."""
    if "ptq" in frame and frame["ptq"].notna().any():
        words = frame["ptq"].astype(str).str.strip().str.lower()
        return (frame["ptq"].notna() & ~words.isin(NOT_QUANTIZED)).to_numpy(bool)
    if "P_post" in frame:
        return (pd.to_numeric(frame["P_post"], errors="coerce") < FULL).to_numpy(bool)
    return frame["gap"].notna().to_numpy(bool) if "gap" in frame else np.zeros(len(frame), bool)
