"""Documents in, token shards out: each corpus is tokenized once.

A folder of the cache holds, for each split, the tokens (`train.bin`, little-endian, the narrowest unsigned type that
holds the vocabulary) and the start of each document (`train_offsets.npy`, int64, one more than documents); then the
tokenizer where there is one to store; and last `manifest.json`, with the checksums of all of these and of
itself. Every document is followed by one separator. The text streams through: only what a source itself holds is in
memory.

The folder is named by a hash of the settings that decide its content. It is built under a temporary name and renamed,
so it is complete or absent, and of two processes that build it at once the second takes what the first has made.
"""

import hashlib
import json
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from scaling.config.data import DataConfig
from scaling.config.from_dict import plain
from scaling.data.corpus import ENOUGH_DOCUMENTS, SPLIT_FILES, Corpus, file_sha, manifest_sha
from scaling.data.documents import Document, Source
from scaling.data.encoders import Encoder, encoder_for
from scaling.data.new_folder import new_folder
from scaling.data.sources import source_for
from scaling.errors import InputError

FORMAT = 1
"""Version of the folder's layout and of the rules by which documents are read and split."""

_BATCH_DOCUMENTS = 512
_BATCH_BYTES = 1 << 22


def prepare(data: DataConfig, cache: Path, note: Callable[[str], None] = print) -> Corpus:
    """Open the corpus of a run, building it under `cache` where it is not there yet.

    Args:
        data: of which `corpus`, `tokenizer`, `seed` and `validation_documents` decide what is built.
        cache: folder of all corpora, made if absent.
        note: takes a line of progress or warning. While building, a terminal shows a progress bar instead.

    Raises:
        InputError: the corpus cannot be read or built, is damaged or that of other settings, or holds no document that
            is long enough for a validation window.
    """
    source = source_for(data)
    settings = {
        "format": FORMAT,
        "corpus": plain(data.corpus),
        "tokenizer": plain(data.tokenizer),
        "seed": data.seed,
        "validation_documents": data.validation_documents,
    }
    stamp = json.dumps([settings, source.fingerprint()], sort_keys=True).encode()
    folder = Path(cache) / f"{data.corpus.kind}-{hashlib.sha256(stamp).hexdigest()[:16]}"
    if not folder.exists():
        _build(data, source, settings, folder, note)
    corpus = Corpus.open(folder, settings)
    usable = len(corpus.usable_documents(data.sequence_length))
    corpus.windows(1, data.sequence_length)
    if usable < min(ENOUGH_DOCUMENTS, data.eval_windows):
        note(
            f"data: only {usable:,} held-out documents have {data.sequence_length + 1} tokens; "
            f"standard errors are coarse below {ENOUGH_DOCUMENTS:,}"
        )
    return corpus


def _build(data: DataConfig, source: Source, settings: dict, folder: Path, note: Callable[[str], None]) -> None:
    with new_folder(folder, "name another cache") as temporary:
        with _Display(folder.name, note) as display:
            source.scan(note)
            manifest = _write(source, encoder_for(data, source, temporary, display.stage), temporary, display)
        # What its splits did not write is the encoder's.
        others = {path.name: file_sha(path) for path in temporary.iterdir() if path.name not in SPLIT_FILES}
        manifest = settings | source.describe() | manifest | ({"files": others} if others else {})
        manifest["sha256"] = manifest_sha(manifest)
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    splits = manifest["splits"]
    note(
        f"data: {folder}: {splits['train']['tokens']:,} training tokens in {splits['train']['documents']:,} documents, "
        f"{splits['validation']['documents']:,} more held out"
    )


def _write(source: Source, encoder: Encoder, folder: Path, display: "_Display") -> dict:
    """Encode all documents into the two splits of a folder; returns what the manifest says about them."""
    dtype = np.dtype("u1" if encoder.vocab_size <= 1 << 8 else "<u2" if encoder.vocab_size <= 1 << 16 else "<u4")
    display.stage("tokenizing", source.size)
    with _Split(folder, "train", dtype, encoder) as train, _Split(folder, "validation", dtype, encoder) as validation:
        for batch in _batched(source.documents()):
            for document, tokens in zip(batch, encoder.encode([d.text for d in batch]), strict=True):
                if source.max_tokens is None or train.tokens < source.max_tokens:
                    (validation if document.held_out else train).add(tokens, document.size)
            display.advance(sum(d.size for d in batch), train.tokens + validation.tokens)
            if source.max_tokens is not None and train.tokens >= source.max_tokens:
                break
    for split in (train, validation):
        if not split.tokens:
            raise InputError(f"data.corpus: no document is left for the {split.name} split; give it more documents")
    return {
        "splits": {split.name: split.summary() for split in (train, validation)},
        "vocab_size": encoder.vocab_size,
        "separator": encoder.separator,
        "dtype": dtype.str,
    }


def _batched(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Runs of documents that are cheap to hold and long enough to be worth a call of the tokenizer."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += document.size
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Split:
    """One token stream that is being written."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype, encoder: Encoder):
        self.folder, self.name, self.dtype = folder, name, dtype
        self.separator = np.array([encoder.separator], dtype=dtype).tobytes()
        self.offsets = array("q", [0])
        self.tokens = self.bytes = 0
        self.sha = hashlib.sha256()

    def __enter__(self) -> "_Split":
        self.file = open(self.folder / f"{self.name}.bin", "wb")
        return self

    def __exit__(self, kind, *_) -> None:
        self.file.close()
        if kind is not None:
            return
        self.starts = np.frombuffer(self.offsets, dtype=np.int64)
        with open(self.folder / f"{self.name}_offsets.npy", "wb") as file:
            # As numpy.save does, which does not say why it cannot write.
            head = np.lib.format.header_data_from_array_1_0(self.starts)
            np.lib.format.write_array_header_1_0(file, head)
            file.write(self.starts)

    def add(self, tokens: np.ndarray, size: int) -> None:
        if not len(tokens):
            return
        raw = tokens.astype(self.dtype).tobytes() + self.separator
        self.file.write(raw)
        self.sha.update(raw)
        self.tokens += len(tokens) + 1
        self.bytes += size
        self.offsets.append(self.tokens)

    def summary(self) -> dict:
        return {
            "documents": len(self.offsets) - 1,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "sha256": self.sha.hexdigest(),
            "offsets_sha256": hashlib.sha256(self.starts).hexdigest(),
        }


class _Display:
    """Progress of a build: a bar on a terminal, a line every `_EVERY` seconds elsewhere."""

    _EVERY = 20.0

    def __init__(self, title: str, note: Callable[[str], None]):
        self.title, self.note = title, note
        self.what, self.total, self.done, self.last = "", None, 0, time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "_Display":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=None, text="reading")
        else:
            self.note(f"data: building {self.title}")
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def stage(self, what: str, total: int | None) -> None:
        """Start to count anew: bytes of text, of `total` where that is known."""
        self.what, self.total, self.done = what, total, 0
        if self.bar:
            self.bar.update(self.task, completed=0, total=total, text=what)

    def advance(self, size: int, tokens: int) -> None:
        self.done += size
        of = f" of {self.total / 1e6:,.0f}" if self.total else ""
        text = f"{self.what}: {self.done / 1e6:,.0f}{of} MB, {tokens / 1e6:,.1f}M tokens"
        if self.bar:
            self.bar.update(self.task, completed=self.done, text=text)
        elif time.monotonic() - self.last > self._EVERY:
            self.last = time.monotonic()
            self.note(f"data: {self.title}: {text}")
