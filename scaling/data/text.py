"""The `text` corpus: local files, streamed. They are read twice, first to count their documents, which the split needs.

Documents keep the order of the sorted files; which of them are held out is drawn from the seed. (Windows are permuted
over the whole train stream, so the order of documents decides no more than which two share a window.)
"""

import contextlib
import glob
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from scaling.config.data import TextCorpus
from scaling.data.documents import INSTALL_HF, Document, held_out_count, shuffled_places, stamps
from scaling.errors import InputError

MAX_DOCUMENT = 64_000_000
"""Characters beyond which a document is taken for a collection whose separator was not named."""

_COMPRESSED = (".gz", ".xz", ".zst")
_JSON_LINES = (".jsonl", ".ndjson")


class TextSource:
    max_tokens = None

    def __init__(self, config: TextCorpus, seed: int, validation_documents: int):
        self.config, self.seed, self.validation_documents = config, seed, validation_documents
        self.files = find_files(config)

    def fingerprint(self) -> list:
        return stamps(self.files)

    def scan(self, note: Callable[[str], None]) -> None:
        self.size, count = 0, 0
        for text in self._texts():
            self.size += len(text.encode())
            count += 1
        if not count:
            raise InputError(f"data.corpus.paths: no text in {self._named()}")
        hint = "set data.corpus.document to line, blank_line or a separator"
        self.held_out = shuffled_places(count, self.seed) < held_out_count(count, self.validation_documents, hint)

    def documents(self) -> Iterator[Document]:
        for held_out, text in zip(self.held_out, self._texts(), strict=True):
            yield Document(text=text, size=len(text.encode()), held_out=bool(held_out))

    def describe(self) -> dict:
        return {"sources": [{"path": str(path), "bytes": path.stat().st_size} for path in self.files]}

    def _texts(self) -> Iterator[str]:
        for path in self.files:
            yield from read_documents(path, self.config)

    def _named(self) -> str:
        return str(self.files[0]) if len(self.files) == 1 else f"{len(self.files)} files"


def find_files(config: TextCorpus) -> list[Path]:
    """The files that `paths` names, sorted, each once.

    Raises:
        InputError: a path that does not exist, or one with no file to read.
    """
    paths: set[Path] = set()
    for name in config.paths:
        path = Path(name).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = [p for p in path.rglob("*") if p.is_file() and _plain_suffix(p)[1:] in config.extensions]
            if not files:
                raise InputError(f"data.corpus.paths={name}: holds no file that ends in {', '.join(config.extensions)}")
        else:
            files = [p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file()]
            if not files:
                raise InputError(f"data.corpus.paths={name}: no such file or folder")
        paths.update(p.resolve() for p in files)
    return sorted(paths)


def read_documents(path: Path, config: TextCorpus) -> Iterator[str]:
    """The documents of one file, those without text left out.

    Raises:
        InputError: text that is not UTF-8, a line that is not the JSON expected, a damaged archive; with path and line.
    """
    try:
        with _opened(path) as stream:
            for text in _split(path, stream, config):
                if text.strip():
                    yield text
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as fault:
        raise InputError(f"{path}: cannot be read ({getattr(fault, 'strerror', None) or fault})") from None


def _split(path: Path, stream: BinaryIO, config: TextCorpus) -> Iterator[str]:
    if _plain_suffix(path) in _JSON_LINES:
        for number, line in _lines(path, stream):
            if line.strip():
                yield _json_text(f"{path}:{number}", line, config.field)
    elif config.document == "line":
        for _, line in _lines(path, stream):
            yield line.rstrip("\r\n")
    else:
        held: list[str] = []
        size = 0
        for _, line in _lines(path, stream):
            if config.document == "file":
                parts = [line]
            elif config.document == "blank_line":
                parts = [line] if line.strip() else ["", ""]
            else:
                parts = line.split(config.document)
            for part in parts[:-1]:
                yield "".join([*held, part]).strip("\r\n")
                held, size = [], 0
            held.append(parts[-1])
            size += len(parts[-1])
            if size > MAX_DOCUMENT:
                raise InputError(
                    f"{path}: a document of over {MAX_DOCUMENT:,} characters with data.corpus.document="
                    f"{config.document}; set it to line, blank_line, or the separator that the file uses"
                )
        yield "".join(held) if config.document == "file" else "".join(held).strip("\r\n")


def _lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(stream, 1):
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as fault:
            bad = raw[fault.start]
            raise InputError(f"{path}:{number}: byte 0x{bad:02X} is not UTF-8; convert the file to UTF-8") from None


def _json_text(place: str, line: str, field: str) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as fault:
        raise InputError(f"{place}: not JSON ({fault.msg})") from None
    if not isinstance(entry, dict) or field not in entry:
        has = f"it has {', '.join(entry)}" if isinstance(entry, dict) else "it is no object"
        raise InputError(f"{place}: no field {field!r}; {has} (data.corpus.field)")
    if not isinstance(entry[field], str):
        raise InputError(f"{place}: field {field!r} is no text but {type(entry[field]).__name__}")
    try:
        entry[field].encode()
    except UnicodeEncodeError:
        raise InputError(f"{place}: field {field!r} has half of a surrogate pair, which is no text") from None
    return entry[field]


def _plain_suffix(path: Path) -> str:
    """The last extension, .gz, .xz and .zst aside."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.suffix == ".zst":
        try:
            import pyarrow
        except ImportError:
            raise InputError(f"{path}: needs the package pyarrow; {INSTALL_HF}") from None
        # Unlike the reader of zstandard, this one reports a file that ends too early.
        with pyarrow.input_stream(str(path), compression="zstd") as stream:
            yield io.BufferedReader(stream, 1 << 20)
    else:
        opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with opener(path, "rb") as stream:
            yield stream
