"""The text that a checkpoint is measured on, in its own tokens.

Tokenizers are stored below the cache of corpora by what they hold: the revisions of a series share one, and so they
share one corpus and the same windows.
"""

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from scaling.config.data import BytesTokenizer, HfTokenizer, SyntheticCorpus
from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.console.terminal import note
from scaling.data.corpus import Corpus, Windows
from scaling.data.documents import first_line
from scaling.data.new_folder import new_folder
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.pretrained.files import Files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A corpus in the tokens of a model."""

    corpus: Corpus
    windows: Windows
    start: int | None
    """Token in front of every window."""


def text_of(run: MeasuredRun, files: Files) -> Text:
    """The text of a run, tokenized where it is not yet.

    Raises:
        InputError: no tokenizer, no text, or none that is long enough.
    """
    cache = Path(run.runtime.cache)
    if isinstance(run.data.corpus, SyntheticCorpus):
        tokenizer, start = BytesTokenizer(), None
    else:
        loaded = _tokenizer(run, files)
        start = loaded.bos_token_id if run.checkpoint.start_token else None
        if run.checkpoint.start_token and start is None:
            raise InputError(f"pretrained.start_token=true: the tokenizer of {run.checkpoint.source} has no such token")
        tokenizer = HfTokenizer(name=str(_stored(loaded, cache)))
    data = dataclasses.replace(run.data, tokenizer=tokenizer)
    corpus = prepare(data, cache, note)
    return Text(corpus=corpus, windows=corpus.windows(data.eval_windows, data.sequence_length), start=start)


def _tokenizer(run: MeasuredRun, files: Files) -> Any:
    from transformers import AutoTokenizer

    checkpoint = run.checkpoint
    if checkpoint.tokenizer is not None:
        place, more = checkpoint.tokenizer, {}
    else:
        place, more = str(files.folder), {"gguf_file": files.gguf.name} if files.gguf else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **more)
        # Without its files some classes make an empty one of the config alone.
        if len(tokenizer) < 2:
            raise ValueError("it has no vocabulary")
        return tokenizer
    except Exception as fault:  # whatever the classes of many families raise where their files are missing
        raise InputError(
            f"{checkpoint.source}: no tokenizer in {place} ({first_line(fault)}); name one with pretrained.tokenizer"
        ) from None


def _stored(tokenizer: Any, cache: Path) -> Path:
    """A folder that holds the tokenizer, named by its content."""
    tokenizer.name_or_path = ""  # where it is stored is no part of it
    try:
        with tempfile.TemporaryDirectory() as made:
            tokenizer.save_pretrained(made)
            content = [(path.name, path.read_bytes()) for path in sorted(Path(made).iterdir())]
    except OSError as fault:
        raise InputError(f"{tempfile.gettempdir()}: cannot be written to ({fault.strerror or fault})") from None
    folder = cache / "tokenizers" / hashlib.sha256(repr(content).encode()).hexdigest()[:16]
    if not folder.exists():
        with new_folder(folder, "name another cache") as temporary:
            for name, data in content:
                (temporary / name).write_bytes(data)
    return folder
