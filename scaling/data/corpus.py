"""A corpus on disk, as runs read it: two memory-mapped token streams, their documents, and the held-out windows."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scaling.config.data import DataConfig
from scaling.data.permutation import mixed, permute
from scaling.errors import InputError

ENOUGH_DOCUMENTS = 1000
"""Held-out documents below which standard errors clustered by document are noticeably coarse."""

SPLIT_FILES = tuple(f"{split}{kind}" for split in ("train", "validation") for kind in (".bin", "_offsets.npy"))
"""What a corpus has in its folder in any case, beside its manifest."""

DTYPES = ("|u1", "<u2", "<u4")
"""Of tokens on disk; no others, such as objects, are read."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Fixed held-out windows, the same for every run of a study."""

    tokens: np.ndarray
    """(n, T+1) int64; inputs are [:, :-1], targets [:, 1:]."""
    documents: np.ndarray
    """(n,) int64: the validation document of each window, the clusters of standard errors."""
    sha: str
    """sha256 of both arrays."""

    def spread(self, count: int) -> "Windows":
        """At most so many of them, evenly spread, always the same; `sha` stays that of all."""
        chosen = np.unique(np.linspace(0, len(self.tokens) - 1, count).astype(int))
        return replace(self, tokens=self.tokens[chosen], documents=self.documents[chosen])


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Token streams of a prepared corpus.

    Document i of a split is `stream[offsets[i] : offsets[i + 1] - 1]`; one separator follows it.
    """

    name: str
    """Name of its folder in the cache."""
    manifest: dict
    """What it was made of: `manifest.json` (see `scaling.data.shards`)."""
    train: np.ndarray
    validation: np.ndarray
    train_offsets: np.ndarray
    validation_offsets: np.ndarray

    @staticmethod
    def open(folder: Path, settings: dict | None = None) -> "Corpus":
        """Map a folder that `prepare` has built, if given from these settings. The first time in a process its files
        are read to the end, and their checksums compared with those of the manifest.

        Raises:
            InputError: a file is missing, or is not what the manifest says, or that is of another corpus.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            _check_manifest(manifest)
            wanted = json.loads(json.dumps(settings or {}))
            if other := [name for name, value in wanted.items() if manifest.get(name) != value]:
                raise ValueError(f"it was built from another {', '.join(other)}")
            arrays = {}
            if manifest["dtype"] not in DTYPES:
                raise ValueError(f"tokens of type {manifest['dtype']}, expected one of {', '.join(DTYPES)}")
            for split in ("train", "validation"):
                arrays[split] = np.memmap(folder / f"{split}.bin", dtype=manifest["dtype"], mode="r")
                arrays[f"{split}_offsets"] = _offsets(folder / f"{split}_offsets.npy", manifest["splits"][split])
                tokens, stated = len(arrays[split]), manifest["splits"][split]["tokens"]
                if tokens != stated:
                    raise ValueError(f"{split}.bin has {tokens} tokens, its manifest says {stated}")
                _check_file(folder / f"{split}.bin", manifest["splits"][split]["sha256"])
            for name, stated in manifest.get("files", {}).items():
                if Path(name).name != name:
                    raise ValueError(f"{name!a} is no file of this folder")
                _check_file(folder / name, stated)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            raise InputError(f"{folder}: damaged corpus ({fault}); delete the folder to have it built again") from None
        return Corpus(name=folder.name, manifest=manifest, **arrays)

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    @property
    def data_sha(self) -> str:
        """One sha256 for the tokens of both splits."""
        both = "".join(self.manifest["splits"][split]["sha256"] for split in ("train", "validation"))
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of held-out text a token, separators aside: a loss divided by it is in nats a byte."""
        split = self.manifest["splits"]["validation"]
        return split["bytes"] / (split["tokens"] - split["documents"])

    def unique_tokens(self, sequence_length: int) -> int:
        """Training tokens that a run can see before it sees any again: whole windows, one token kept as last target."""
        return (len(self.train) - 1) // sequence_length * sequence_length

    def check_horizon(self, data: DataConfig) -> None:
        """Raise InputError if the run would see tokens twice without asking for it, or if no batch can be made."""
        unique = self.unique_tokens(data.sequence_length)
        if unique == 0:
            raise InputError(
                f"data.sequence_length={data.sequence_length}: {self.name} has only {len(self.train)} training tokens"
            )
        if data.tokens > unique and not data.repeat:
            raise InputError(
                f"data.tokens={data.tokens}: {self.name} has {unique} unique training tokens; "
                "use at most that, or set data.repeat=true"
            )

    def usable_documents(self, length: int) -> np.ndarray:
        """Validation documents that hold a window of `length` tokens and its last target."""
        return np.flatnonzero(np.diff(self.validation_offsets) - 1 > length)

    def windows(self, count: int, length: int) -> Windows:
        """Held-out windows of `length` tokens plus the last target, none across documents.

        One window a document where there are `count` documents that are long enough; otherwise two from those in which
        two fit without overlap, and then there may be fewer than `count`. Documents come in shuffled order, so that the
        first k windows are a sample as well.

        Raises:
            InputError: no held-out document is long enough.
        """
        usable = self.usable_documents(length)
        if not len(usable):
            longest = int(np.diff(self.validation_offsets).max()) - 1
            raise InputError(
                f"data.sequence_length={length}: no held-out document of {self.name} has {length + 1} tokens; "
                f"the longest has {longest}"
            )
        document = usable[permute(np.arange(len(usable)), len(usable), length)][:count]
        size = (np.diff(self.validation_offsets) - 1)[document]
        second = np.flatnonzero(size >= 2 * (length + 1))[: max(0, count - len(document))]

        # A document with two windows has one in each half, another has its window anywhere.
        room = size.copy()
        room[second] //= 2
        documents = np.concatenate([document, document[second]])
        low = np.concatenate([np.zeros_like(document), room[second]])
        room = np.concatenate([room, size[second] - room[second]])
        place = mixed(length, documents, low) % (room - length).astype(np.uint64)
        start = self.validation_offsets[documents] + low + place.astype(np.int64)
        tokens = self.validation[start[:, None] + np.arange(length + 1)].astype(np.int64)
        sha = hashlib.sha256(tokens.tobytes() + documents.astype(np.int64).tobytes()).hexdigest()
        return Windows(tokens=tokens, documents=documents, sha=sha)


def manifest_sha(manifest: dict) -> str:
    """sha256 of a manifest but for that entry."""
    stated = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _check_manifest(manifest: dict) -> None:
    # Those of earlier versions have no checksums of offsets and none of themselves.
    summed = any("offsets_sha256" in split for split in manifest["splits"].values())
    if (summed or "sha256" in manifest) and manifest.get("sha256") != manifest_sha(manifest):
        raise ValueError("manifest.json has another checksum")


def _offsets(path: Path, stated: dict) -> np.ndarray:
    """The starts of documents in an .npy file, if they are what the manifest states."""
    try:
        offsets = np.load(path, mmap_mode="r")
    except Exception as fault:  # numpy parses the head as Python: where it is damaged, anything may be raised
        raise ValueError(f"{path.name}: {' '.join(str(fault).split())}") from None
    if offsets.dtype != np.int64 or offsets.shape != (stated["documents"] + 1,):
        raise ValueError(f"{path.name} does not have the starts of {stated['documents']} documents")
    if offsets[0] != 0 or offsets[-1] != stated["tokens"] or (np.diff(offsets) <= 0).any():
        raise ValueError(f"{path.name} does not rise from 0 to {stated['tokens']}")
    # Manifests of earlier versions do not have it.
    if "offsets_sha256" in stated and hashlib.sha256(offsets).hexdigest() != stated["offsets_sha256"]:
        raise ValueError(f"{path.name} has another checksum than its manifest says")
    return offsets


_verified: set[tuple[str, int, int, str]] = set()
"""Path, size, time and sha256 of the files whose checksums this process has found right."""


def _check_file(path: Path, stated: str) -> None:
    status = path.stat()
    key = (str(path.absolute()), status.st_size, status.st_mtime_ns, stated)
    if key not in _verified:
        if file_sha(path) != stated:
            raise ValueError(f"{path.name} has another checksum than its manifest says")
        _verified.add(key)


def file_sha(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
