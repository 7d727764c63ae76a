"""The `hf` corpus: any dataset that Hugging Face `datasets` streams, written to shards as it passes by."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from scaling.config.data import HfCorpus
from scaling.data.documents import INSTALL_HF, Document, stamps
from scaling.errors import InputError


@contextlib.contextmanager
def _reported(config: HfCorpus) -> Iterator[None]:
    """What goes wrong inside `datasets` (no network, no such dataset, bad data) as one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError) as fault:
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise InputError(f"data.corpus.path={config.path}: {reason}") from None


class HubSource:
    """Every `validation_every`-th document is held out, until there are as many as asked for."""

    size = None

    def __init__(self, config: HfCorpus, seed: int, validation_documents: int):
        self.config, self.seed, self.validation_documents = config, seed, validation_documents
        self.max_tokens = config.max_tokens

    def fingerprint(self) -> list:
        return stamps(_local_files(self.config))

    def scan(self, note: Callable[[str], None]) -> None:
        config = self.config
        try:
            import datasets
        except ImportError:
            raise InputError(f"data.corpus.kind=hf: needs the package datasets; {INSTALL_HF}") from None
        with _reported(config):
            builder = datasets.load_dataset_builder(
                config.path, name=config.name, data_files=list(config.data_files) or None, revision=config.revision
            )
            self.stream = builder.as_streaming_dataset(split=config.split)
            if config.shuffle_buffer:
                self.stream = self.stream.shuffle(seed=self.seed, buffer_size=config.shuffle_buffer)
        # The hash of a builder changes with the commit of a dataset on the hub and with the local files.
        self.version = {"dataset": config.path, "hash": builder.hash, "datasets": datasets.__version__}

    def documents(self) -> Iterator[Document]:
        held = 0
        with _reported(self.config):
            for number, entry in enumerate(self.stream):
                text = entry.get(self.config.field)
                if not isinstance(text, str):
                    raise InputError(
                        f"data.corpus.field={self.config.field}: document {number} has no such text; "
                        f"it has {', '.join(k for k, v in entry.items() if isinstance(v, str))}"
                    )
                if not text.strip():
                    continue
                held_out = number % self.config.validation_every == 0 and held < self.validation_documents
                held += held_out
                yield Document(text=text, size=len(text.encode()), held_out=held_out)

    def describe(self) -> dict:
        return {"sources": self.version}


def _local_files(config: HfCorpus) -> list[Path]:
    """Every file of this machine that the dataset may be read from: below its own folder, and what `data_files` name,
    files, folders or patterns, there or below the working folder. A dataset of the hub has none."""
    own = Path(config.path)
    named = [place for files in config.data_files for place in (*_matching(files), *_matching(str(own / files)))]
    roots = [own, *named]
    below = [path for root in roots if root.is_dir() for path in root.rglob("*") if _is_data(path.relative_to(root))]
    return sorted({path for path in (*roots, *below) if path.is_file()})


def _is_data(path: Path) -> bool:
    """`datasets` passes over what is hidden, such as .git, which changes without the data."""
    return not any(part.startswith((".", "__")) for part in path.parts)


def _matching(pattern: str) -> list[Path]:
    return [Path(path) for path in (pattern, *glob.glob(pattern, recursive=True)) if os.path.exists(path)]
