"""What every corpus offers to the builder of shards, and how documents are split."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from scaling.data.permutation import permute
from scaling.errors import InputError

INSTALL_HF = "install it with: pip install 'precision-scaling[hf]'"


@dataclass(frozen=True, slots=True)
class Document:
    text: str | np.ndarray
    """Text, or the tokens themselves (synthetic corpus)."""
    size: int
    """Bytes as UTF-8, or symbols."""
    held_out: bool


class Source(Protocol):
    size: int | None
    """Bytes of all documents once `scan` was called, None where that is not known beforehand."""
    max_tokens: int | None
    """Training tokens after which reading stops."""

    def fingerprint(self) -> list:
        """What beside the settings decides the content, cheap enough to be asked for at every start (JSON)."""

    def scan(self, note: Callable[[str], None]) -> None:
        """Find out all that must be known before the first document, such as which ones are held out. Called once."""

    def documents(self) -> Iterator[Document]:
        """All documents, in the order of the shards. May be called again and gives the same."""

    def describe(self) -> dict:
        """What the manifest says about the source, once it was scanned (JSON)."""


def stamps(paths: Iterable[Path]) -> list:
    """Path, size and time of files, a cheap fingerprint: an edited file makes another corpus."""
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def shuffled_places(documents: int, seed: int) -> np.ndarray:
    """(documents,) int64: the place of each document in the order drawn from the seed."""
    return permute(np.arange(documents), documents, seed)


def held_out_count(documents: int, wanted: int, hint: str) -> int:
    """How many documents to hold out: those wanted, at most a fifth of all, at least one.

    Raises:
        InputError: there are fewer than two documents; `hint` says what would help.
    """
    if documents < 2:
        raise InputError(f"data.corpus: {documents} document{'s'[documents:]}, two are needed to hold one out; {hint}")
    return min(wanted, max(1, documents // 5))


def first_line(fault: Exception) -> str:
    """What an exception of another library says, as far as it fits into a line."""
    return str(fault).strip().split("\n")[0]
