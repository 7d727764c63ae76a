"""The bytes of a table, wherever they come from and whatever they are packed in.

What a file is follows from how it begins, not from its name: archives are often renamed. A path is opened once, since
what comes through a pipe is gone after that.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from analysis.errors import InputError

LARGEST = 2 << 30  # bytes of an unpacked table
NESTED = 3  # archives within archives
ZSTD = b"\x28\xb5\x2f\xfd"
WORKBOOK = "xl/workbook.xml"  # what distinguishes a workbook from other zip archives
FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
    ValueError,
)
NO_TABLES = {
    b"\xd0\xcf\x11\xe0": "an old workbook or document of Office; save it as CSV",
    b"SQLite format 3": "a database; write its table to a CSV",
    b"%PDF": "a PDF",
    b"\x80\x02": "a pickle, which is never read; write it as CSV",
    b"\x80\x03": "a pickle, which is never read; write it as CSV",
    b"\x80\x04": "a pickle, which is never read; write it as CSV",
    b"\x80\x05": "a pickle, which is never read; write it as CSV",
    b"\x89HDF": "an HDF5 file; write its table to a CSV",
    b"ARROW1": "a Feather file; write it as CSV",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
    b"7z\xbc\xaf\x27\x1c": "an archive of 7-Zip; unpack it",
    b"Rar!": "an archive of RAR; unpack it",
}


class Content:
    """The bytes of a table as `data`, unpacked, with the `sha256` of the file as it is and its `name`."""

    def __init__(self, path: Path):
        """Read `path`; `-` is the standard input.

        Raises:
            InputError: there is no such file, it cannot be read, or what it is packed in is damaged or not known.
        """
        raw = _bytes(path)
        self.name = path.name
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.data = _unpacked(raw, path)


def _bytes(path: Path) -> bytes:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        address = str(path).replace(":/", "://", 1)  # a Path holds one slash of two
        raise InputError(f"{address}: an address; expected a file, download it first")
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; expected a CSV file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a CSV file") from None
    except (OSError, ValueError) as fault:
        raise InputError(f"{path}: cannot be read ({getattr(fault, 'strerror', None) or fault})") from None


def _unpacked(data: bytes, path: Path) -> bytes:
    for _ in range(NESTED):
        unpack = _packing(data)
        if unpack is None:
            break
        try:
            data = unpack(data, path)
        except InputError:
            raise
        except FAULTS as fault:
            reason = " ".join(str(fault).split()) or type(fault).__name__
            raise InputError(f"{path}: damaged, or cut short ({reason})") from None
        if len(data) > LARGEST:
            raise InputError(f"{path}: more than {LARGEST >> 30} GiB when unpacked, which is no table of runs")
    if not data:
        raise InputError(f"{path}: not a CSV table (it is empty)")
    for start, what in NO_TABLES.items():
        if data.startswith(start):
            raise InputError(f"{path}: not a CSV table ({what})")
    if data[257:262] == b"ustar":
        raise InputError(f"{path}: not a CSV table (an archive of tar; unpack it and name one table)")
    return data


def _packing(data: bytes) -> Callable[[bytes, Path], bytes] | None:
    """How to unpack what begins like this; None where nothing is packed."""
    if data[:2] == b"\x1f\x8b":
        return lambda data, _: gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST + 1)
    if data[:3] == b"BZh" and data[3:4].isdigit():
        return lambda data, _: bz2.BZ2File(io.BytesIO(data)).read(LARGEST + 1)
    if data[:6] == b"\xfd7zXZ\x00":
        return lambda data, _: lzma.LZMAFile(io.BytesIO(data)).read(LARGEST + 1)
    if data[:4] == ZSTD:
        return _zstd
    if data[:2] == b"PK" and not is_workbook(data):
        return _zip
    return None


def _zip(data: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        inside = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
        if len(inside) != 1:
            names = ", ".join(sorted(i.filename for i in inside)[:5]) or "nothing"
            raise InputError(f"{path}: an archive with {len(inside)} files ({names}); expected one table")
        with archive.open(inside[0]) as file:
            return file.read(LARGEST + 1)


def _zstd(data: bytes, path: Path) -> bytes:
    """By pyarrow, which unlike the reader of zstandard says when a file ends too early."""
    try:
        with import_module("pyarrow").input_stream(io.BytesIO(data), compression="zstd") as stream:
            return stream.read(LARGEST + 1)
    except ImportError:
        missing(path, "compressed by Zstandard", "pyarrow")


def is_workbook(data: bytes) -> bool:
    """Whether these bytes are a workbook of Office."""
    try:
        return data[:2] == b"PK" and WORKBOOK in zipfile.ZipFile(io.BytesIO(data)).namelist()
    except FAULTS:
        return False


def missing(path: Path, what: str, package: str) -> NoReturn:
    """Say that `path` needs a package that is not there."""
    raise InputError(f"{path}: {what}, which needs the package {package}; install it, or write the table as CSV")
