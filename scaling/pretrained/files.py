"""Where the files of a checkpoint are: in a local folder or .gguf file, or on the hub, from which they are fetched into
its own cache. Nothing of them is run or unpickled here, and none of it is large but the download itself."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scaling.config.pretrained.measured_run import Checkpoint
from scaling.config.pretrained.series import SeriesConfig
from scaling.data.corpus import file_sha
from scaling.data.documents import first_line
from scaling.errors import InputError

INSTALL = "install it with: pip install 'precision-scaling[pretrained]'"
SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
"""Patterns of what is no weights: configs, tokenizers, lists of shards."""
PACKAGE = "package:"
SAFE, PICKLED = "*.safetensors", "*.bin"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """A checkpoint on this machine."""

    folder: Path
    gguf: Path | None
    """The one file that it is, in `folder`."""
    config: dict[str, Any]
    """What its config.json says (empty for a .gguf)."""
    parameters: int
    """Numbers in its weights."""
    commit: str | None
    """Of the repository."""


def locate(checkpoint: Checkpoint, series: SeriesConfig) -> Files:
    """Find the files of a checkpoint, fetched where they are not here.

    Raises:
        InputError: no such file or revision, no network, weights as pickles only, code that would have to be run.
    """
    if checkpoint.repository is None:
        path = Path(local_path(str(checkpoint.folder)))
        return _of_gguf(path) if path.suffix == ".gguf" else _of_folder(path, checkpoint.source, series, None)
    folder = Path(_fetched(checkpoint, SMALL))
    commit = folder.name
    inner = folder / checkpoint.folder if checkpoint.folder else folder
    _checked_config(inner, checkpoint.source, series)
    # Listed first: a hub that is out of reach gives whatever part of the revision is here.
    patterns = (SAFE, PICKLED) if series.pickle else (SAFE,)
    _fetched(checkpoint, (*SMALL, *patterns))
    return _of_folder(inner, checkpoint.source, series, commit)


def local_path(text: str) -> str:
    """A path or a pattern as the system knows it: `package:NAME/FILE` is a file of an installed Python package.

    Raises:
        InputError: no such package.
    """
    if not text.startswith(PACKAGE):
        return str(Path(text).expanduser())
    name, _, inside = text.removeprefix(PACKAGE).partition("/")
    package = find_spec(name) if name.isidentifier() else None
    if package is None or package.origin is None:
        raise InputError(f"pretrained.path={text}: no such package in this environment; install it with pip")
    return str(Path(package.origin).parent / inside)


def local_sha(path: Path) -> str:
    """sha256 of a local checkpoint: its config, weights and tokenizer, wherever it is stored.

    Raises:
        InputError: it is not there.
    """
    if path.suffix == ".gguf" and path.is_file():
        return file_sha(path)
    if not (path / "config.json").is_file():
        raise InputError(f"pretrained.path={path}: no checkpoint (a folder with a config.json, or a .gguf file)")
    names = sorted(p for pattern in (*SMALL, SAFE, PICKLED) for p in path.glob(pattern))
    stamps = tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in names)
    return _sha_of(stamps)


@cache
def _sha_of(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    of_files = [[path.name, file_sha(path)] for path, _, _ in stamps]
    return hashlib.sha256(json.dumps(of_files).encode()).hexdigest()


def drop(checkpoint: Checkpoint, files: Files) -> None:
    """Delete a revision that was fetched from the cache of the hub."""
    from huggingface_hub import scan_cache_dir

    if files.commit is not None:
        with contextlib.suppress(OSError):
            scan_cache_dir().delete_revisions(files.commit).execute()


def is_fetched(checkpoint: Checkpoint) -> bool:
    """Whether the weights of a checkpoint of the hub are in its cache already, as far as can be seen without it."""
    try:
        folder = Path(_fetched(checkpoint, SMALL, here=True))
    except InputError:
        return False
    return any((folder / checkpoint.folder if checkpoint.folder else folder).glob(SAFE))


def _fetched(checkpoint: Checkpoint, patterns: tuple[str, ...], *, here: bool = False) -> str:
    """The folder of the hub's cache with the files of these patterns; with `here` nothing is fetched."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise InputError(f"{checkpoint.source}: needs the package huggingface_hub; {INSTALL}") from None
    disable_progress_bars()
    revision = "main" if checkpoint.folder else checkpoint.revision
    inside = f"{checkpoint.folder}/" if checkpoint.folder else ""
    try:
        return snapshot_download(
            checkpoint.repository,
            revision=revision,
            allow_patterns=[inside + pattern for pattern in patterns],
            local_files_only=here,
        )
    except Exception as fault:  # its client raises its own, those of the HTTP library, and OSError
        why = f"{type(fault).__name__}: {first_line(fault)}"
        raise InputError(f"{checkpoint.source}: cannot be fetched ({why}); nothing was written") from None


def _of_folder(folder: Path, source: str, series: SeriesConfig, commit: str | None) -> Files:
    config = _checked_config(folder, source, series)
    safe = sorted(folder.glob(SAFE))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = {folder / name for name in _read_json(index).get("weight_map", {}).values()}
        if absent := sorted(path.name for path in wanted if not path.is_file()):
            raise InputError(f"{source}: {len(absent)} files of its weights are missing, such as {absent[0]}")
        safe = sorted(wanted)
    if safe:
        return Files(folder=folder, gguf=None, config=config, parameters=sum(map(parameters_in, safe)), commit=commit)
    pickled = sorted(folder.glob(PICKLED))
    if not pickled:
        raise InputError(f"{source}: has no weights (*.safetensors) in {folder}")
    if not series.pickle:
        raise InputError(
            f"{source}: its weights are pickles ({pickled[0].name}), which can run code when they are read; "
            "pretrained.pickle=true reads them all the same, if you trust them"
        )
    size = {"float32": 4}.get(str(config.get("torch_dtype") or config.get("dtype")), 2)
    parameters = sum(path.stat().st_size for path in pickled) // size
    return Files(folder=folder, gguf=None, config=config, parameters=parameters, commit=commit)


def _checked_config(folder: Path, source: str, series: SeriesConfig) -> dict[str, Any]:
    """What config.json says, if a class of transformers has that layout."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{source}: no config.json in {folder}")
    config = _read_json(path)
    kind = config.get("model_type")
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise InputError(f"{source}: needs the package transformers; {INSTALL}") from None
    if kind not in CONFIG_MAPPING and not series.remote_code:
        if "auto_map" in config:
            raise InputError(
                f"{source}: model_type={kind} comes with code of its own, which is not run; "
                "pretrained.remote_code=true runs it, if you trust it"
            )
        raise InputError(f"{source}: model_type={kind}: not known to this version of transformers")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; fetch it again") from None
    return values


def _of_gguf(path: Path) -> Files:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise InputError(f"{path}: needs the package gguf; {INSTALL}") from None
    with _reading(path):
        parameters = sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
    return Files(folder=path.parent, gguf=path, config={}, parameters=parameters, commit=None)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, IndexError, KeyError) as fault:
        raise InputError(f"{path}: cannot be read as GGUF ({first_line(fault)})") from None


def parameters_in(path: Path) -> int:
    """Numbers in a safetensors file, from its head alone.

    Raises:
        InputError: it is none.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < 10**9:
                raise ValueError("no head")
            head = json.loads(file.read(size))
        return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: truncated or damaged; fetch it again") from None
