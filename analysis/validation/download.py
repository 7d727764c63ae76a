"""Fetches a public table from its host, and writes it as a tidy table: what came is checked, and whole or not written.

Only the standard library is used here.
"""

import csv
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from analysis.errors import InputError
from analysis.files import replacing
from analysis.validation.public_tables import Row, Source, digest

SECONDS = 30.0  # without a byte, before giving up
LARGEST_FILE = 64 * 2**20  # bytes of a file, several times those of any table here


def fetch(source: Source) -> tuple[list[Row], str]:
    """The rows of a table, and the sha256 of the file that they came in.

    Raises:
        InputError: it cannot be reached, or is not what was expected.
    """
    content = _download(source.url)
    sha256 = hashlib.sha256(content).hexdigest()
    if source.sha256 not in (None, sha256):
        raise InputError(f"{source.url}: sha256 is {sha256}, expected {source.sha256}; nothing was written")
    try:
        rows = source.convert(content)
        values = digest(rows)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, csv.Error) as fault:
        reason = " ".join(f"{type(fault).__name__} {fault}".split())
        raise InputError(f"{source.url}: not in the expected format ({reason}); nothing was written") from None
    if len(rows) != source.rows:
        raise InputError(f"{source.url}: holds {len(rows)} runs, expected {source.rows}; nothing was written")
    if source.values not in (None, values):
        raise InputError(f"{source.url}: its values are not those that fits were verified on; nothing was written")
    return rows, sha256


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content = answer.read(LARGEST_FILE + 1)
            missing = answer.length  # bytes that were announced and did not come; None where no number was
    except urllib.error.HTTPError as fault:
        raise InputError(f"{url}: the host answers {fault.code} {fault.reason}; nothing was written") from None
    except urllib.error.URLError as fault:
        reason = " ".join(str(fault.reason).split())
        raise InputError(
            f"{url}: cannot be reached ({reason}); this needs a network connection, nothing was written"
        ) from None
    except (OSError, http.client.HTTPException) as fault:  # an answer has begun, or was none
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise InputError(f"{url}: the download broke off ({reason}); nothing was written, try again") from None
    if len(content) > LARGEST_FILE:
        raise InputError(
            f"{url}: more than {LARGEST_FILE >> 20} MiB, which is no table known here; nothing was written"
        )
    if missing:
        raise InputError(f"{url}: the download broke off {missing} bytes too early; nothing was written, try again")
    return content


def write(path: Path, rows: Sequence[Row]) -> None:
    """`rows` as the CSV `path`, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)
