"""Text with separators as a frame: encoding, separator, decimal commas and remarks are found, lines are counted.

Values are read by pandas. The csv module of Python goes through the same text beside it, since pandas says neither on
which line a row began (behind blank lines and line breaks in quotes) nor that a row has too few fields.
"""

import codecs
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.errors import InputError

LINE = "line"  # name of the index of a table that was read from a file: rows are then called by their line there
SEPARATORS = (",", ";", "\t", "|")
# The longest first: the mark of UTF-16 begins that of UTF-32.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
FOREIGN = {"<!doctype": "a web page", "<html": "a web page", "<?xml": "XML", "{": "JSON", "[": "JSON"}
COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?|[+-]?\d+(?:[eE][+-]?\d+)?")  # with a decimal comma, or whole


class Layout(NamedTuple):
    """The text from its header on, how many lines stand before that, and what is between two fields."""

    text: str
    before: int
    separator: str


def frame_of(data: bytes, path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a table, indexed by the line on which each begins. Of the columns in `types` those of type `text` are
    read as such; none may be there twice.

    Raises:
        InputError: it is no such text, has no header or no rows, or rows with more or fewer fields than the header.
    """
    layout = _layout(_decoded(data, path), path)
    header, lines = _lines(layout, path)
    known = [name.strip() for name in header if name.strip() in types]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise InputError(f"{path}: several columns are called {twice[0]}; expected one")
    # Else digits alone, or digits and an e, would make a number of a commit or a checksum.
    named = {name: str for name in header if types.get(name.strip()) == "text"}
    try:
        frame = pd.read_csv(
            io.StringIO(layout.text, newline=""),
            sep=layout.separator,
            low_memory=False,
            dtype=named,
            index_col=False,
            usecols=range(len(header)),  # what a separator at the end of each line would add
            skipinitialspace=any(name.startswith(" ") for name in header[1:]),
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as fault:
        raise InputError(f"{path}: not a CSV table ({' '.join(str(fault).split())})") from None
    if frame.empty:
        raise InputError(f"{path}: has no rows below its header")
    if len(lines) != len(frame):  # pandas divides this text into other rows: which line is which is not known
        lines = list(range(layout.before + 2, layout.before + 2 + len(frame)))
    whole = lines[-1] - lines[0] == len(lines) - 1
    frame.index = pd.RangeIndex(lines[0], lines[-1] + 1, name=LINE) if whole else pd.Index(lines, name=LINE)
    return frame if layout.separator == "," else frame.apply(_decimal_commas)


def _decoded(data: bytes, path: Path) -> str:
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        what = f"line {line} is not text in {encoding.upper()}"
        raise InputError(f"{path}: not a CSV table ({what}); expected a table in UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}: not a CSV table (it holds zero bytes); expected a table in UTF-8")
    start = text.lstrip()[:200].lower()
    for begins, what in FOREIGN.items():
        if start.startswith(begins):
            raise InputError(f"{path}: not a CSV table ({what}); write it as CSV")
    return text


def _layout(text: str, path: Path) -> Layout:
    lines = io.StringIO(text, newline="").readlines()
    before = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    if before == len(lines):
        raise InputError(f"{path}: not a CSV table (it holds no text)")
    if said := re.fullmatch(r'"?sep=(.)"?', lines[before].strip(), re.IGNORECASE):  # as Excel writes it
        return Layout("".join(lines[before + 1 :]), before + 1, said[1])
    while before < len(lines) - 1 and lines[before].startswith("#"):
        here, below = lines[before].lstrip("# "), lines[before + 1]
        if not below.startswith("#") and _numbers(below, _separator(here)):  # then names stand behind the mark
            lines[before] = here
            break
        before += 1
    return Layout("".join(lines[before:]), before, _separator(lines[before]))


def _separator(header: str) -> str:
    """What divides the most fields; a comma if nothing does."""
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda mark: counts[mark])


def _numbers(line: str, separator: str) -> bool:
    """Whether all fields of a line are numbers or empty."""
    fields = [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]
    return any(fields) and all(not field or _is_number(field) for field in fields)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return bool(COMMA.fullmatch(field))
    return True


def _lines(layout: Layout, path: Path) -> tuple[list[str], list[int]]:
    """The fields of the header, and the line on which each row begins."""
    reader = csv.reader(io.StringIO(layout.text, newline=""), delimiter=layout.separator)
    header: list[str] = []
    lines, end = [], 0
    try:
        for fields in reader:
            begins, end = end + 1, reader.line_num
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                continue
            if not header:
                header = _header(fields, layout.before + begins, path)
                continue
            # A separator at the end of a line adds a field without anything in it.
            if len(fields) < len(header) or any(field.strip() for field in fields[len(header) :]):
                raise InputError(
                    f"{path}: not a CSV table (line {layout.before + begins} has {len(fields)} "
                    f"field{'s' if len(fields) > 1 else ''}, its header {len(header)})"
                )
            lines.append(layout.before + begins)
    except csv.Error as fault:
        raise InputError(f"{path}: not a CSV table (line {layout.before + reader.line_num}: {fault})") from None
    return header, lines


def _header(fields: list[str], line: int, path: Path) -> list[str]:
    names = [field.strip() for field in fields]
    while len(names) > 1 and not names[-1]:
        names.pop()
    if all(_is_number(name) for name in names if name):
        raise InputError(f"{path}: line {line} holds numbers; expected the names of columns, such as N,D,loss")
    if len(names) == 1 and len(names[0].split()) > 1:
        raise InputError(f"{path}: has one column, {names[0]!r}; expected commas, semicolons or tabs between columns")
    return fields[: len(names)]


def _decimal_commas(values: pd.Series) -> pd.Series:
    """A column as numbers if all of it are numbers with decimal commas."""
    if not (pd.api.types.is_string_dtype(values) or values.dtype == object):
        return values
    given = values.dropna().astype(str).str.strip()
    if not len(given) or not given.str.fullmatch(COMMA).all() or not given.str.contains(",").any():
        return values
    return pd.to_numeric(values.astype(str).str.strip().str.replace(",", ".", regex=False).where(values.notna()))
