"""What a run can say about its data: the corpus, the tokenizer, and how many tokens of which length.

The YAML files under configs/data hold the defaults; the docstring under a field is its meaning.
"""

from dataclasses import dataclass
from typing import Literal

from scaling.errors import InputError

UNKNOWN_VOCABULARY = 2**16
"""Assumed where only the tokenizer itself knows: reading it may need the network."""
KNOWN_VOCABULARIES = {"gpt2": 50_257, "allenai/gpt-neox-olmo-dolma-v1_5": 50_280}


@dataclass(frozen=True, kw_only=True)
class PythonCorpus:
    """The Python sources that are installed with this project: real text, without a download."""

    kind: Literal["python"] = "python"
    root: str
    """Installed distribution whose requirements are read, theirs too, extras excluded; not its own files."""
    standard_library: bool
    """Whether the interpreter's standard library is read as well."""


@dataclass(frozen=True, kw_only=True)
class TextCorpus:
    """Local text files."""

    kind: Literal["text"] = "text"
    paths: tuple[str, ...]
    """Files, folders (read with all their subfolders) and globs; plain, .gz, .xz or .zst."""
    extensions: tuple[str, ...]
    """Which files of a folder are read, by their last extension before .gz, .xz or .zst, without the dot."""
    document: str
    """What a document is: `file`, `line`, `blank_line` (paragraphs between empty lines) or any other text, which then
    separates documents. In .jsonl and .ndjson files every line is one."""
    field: str
    """The field of a .jsonl line that holds the text."""

    def __post_init__(self):
        if not self.paths:
            raise InputError("paths=[]: name at least one file, folder or glob, as in 'data.corpus.paths=[book.txt]'")
        if not self.document or "\n" in self.document:
            raise InputError(f"document={self.document!r}: use file, line, blank_line, or a separator within a line")


@dataclass(frozen=True, kw_only=True)
class HfCorpus:
    """A dataset that Hugging Face `datasets` can stream, from the hub or from local files."""

    kind: Literal["hf"] = "hf"
    path: str
    """Name on the hub, a local folder, or a builder (`json`, `parquet`, `text`) together with `data_files`."""
    name: str | None
    """Configuration of the dataset, such as `en` of C4."""
    revision: str | None
    """Commit or tag on the hub; null takes the newest."""
    data_files: tuple[str, ...]
    """Files or URLs for a builder; empty: those of the dataset."""
    split: str
    field: str
    """The field that holds the text."""
    max_tokens: int
    """Training tokens after which streaming stops."""
    validation_every: int
    """Every so many-th document is held out until there are `data.validation_documents` of them: a stream has no
    length to draw from."""
    shuffle_buffer: int
    """Documents held in memory to shuffle the stream (its files are shuffled as well); 0: the order of the dataset."""

    def __post_init__(self):
        if not self.path:
            raise InputError("path='': name a dataset, as in data.corpus.path=roneneldan/TinyStories")
        _at_least(self, 1, "max_tokens")
        _at_least(self, 2, "validation_every")
        _at_least(self, 0, "shuffle_buffer")


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus:
    """A Markov source of order two, drawn from `data.seed`, whose entropy rate is known (`scaling.data.synthetic`)."""

    kind: Literal["synthetic"] = "synthetic"
    alphabet: int
    """Symbols; the separator of documents comes on top."""
    zipf: float
    """Exponent s of the successor probabilities, rank^-s: 0 is uniform, larger is easier."""
    order_one: float
    """Weight of the part that depends on the last symbol only; the rest depends on the last two."""
    smoothing: float
    """Weight of the uniform distribution in every successor distribution: keeps all of them positive."""
    documents: int
    """Documents to train on."""
    document_tokens: int
    """Symbols a document."""

    def __post_init__(self):
        _at_least(self, 2, "alphabet")
        _at_least(self, 1, "documents", "document_tokens")
        if self.alphabet > 256:
            raise InputError(f"alphabet={self.alphabet}: at most 256, its pairs are tabulated")
        if self.zipf < 0:
            raise InputError(f"zipf={self.zipf}: must be 0 or more")
        for field in ("order_one", "smoothing"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"{field}={getattr(self, field)}: must lie between 0 and 1")
        if self.smoothing == 0:
            raise InputError("smoothing=0: must be above 0, or the source may fall apart into several")


@dataclass(frozen=True, kw_only=True)
class BytesTokenizer:
    """UTF-8 bytes; 0xFF, which UTF-8 never contains, separates documents. The synthetic corpus keeps its symbols."""

    kind: Literal["bytes"] = "bytes"


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer:
    """Byte-level BPE, trained on the training split and stored beside the shards."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int
    """All tokens, the 256 bytes and the separator included."""
    sample_bytes: int
    """Text to train the tokenizer on, spread over the training documents."""

    def __post_init__(self):
        _at_least(self, 258, "vocab_size")
        _at_least(self, 1, "sample_bytes")


@dataclass(frozen=True, kw_only=True)
class HfTokenizer:
    """Any tokenizer of Hugging Face `transformers`; its end-of-sequence token separates documents."""

    kind: Literal["hf"] = "hf"
    name: str
    """Name on the hub, or a local folder."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data of one run."""

    tokens: int
    """D: training tokens of the run."""
    sequence_length: int
    """T: tokens that a model sees at once."""
    batch_tokens: int
    """Tokens a step, a multiple of `sequence_length`."""
    repeat: bool
    """Allow D to exceed the unique tokens of the corpus: every window is seen once before any is seen twice."""
    eval_windows: int
    """Held-out windows of T tokens on which losses are measured."""
    validation_documents: int
    """Documents that are held out, at most a fifth of the corpus."""
    seed: int
    """Shuffles and splits the documents, and draws the synthetic source. The order of batches has a seed of its own."""
    corpus: PythonCorpus | TextCorpus | HfCorpus | SyntheticCorpus
    tokenizer: BytesTokenizer | BpeTokenizer | HfTokenizer

    def __post_init__(self):
        _at_least(self, 1, "sequence_length", "batch_tokens", "eval_windows", "validation_documents")
        _at_least(self, 0, "seed")
        if self.batch_tokens % self.sequence_length:
            raise InputError(
                f"batch_tokens={self.batch_tokens}: must be a multiple of sequence_length={self.sequence_length}"
            )
        if self.tokens < self.batch_tokens:
            raise InputError(f"tokens={self.tokens}: below one batch (batch_tokens={self.batch_tokens})")
        if isinstance(self.corpus, SyntheticCorpus):
            if not isinstance(self.tokenizer, BytesTokenizer):
                raise InputError(f"tokenizer.kind={self.tokenizer.kind}: the synthetic corpus is tokens; use bytes")
            if self.corpus.document_tokens <= self.sequence_length:
                raise InputError(
                    f"corpus.document_tokens={self.corpus.document_tokens}: "
                    f"must exceed sequence_length={self.sequence_length}"
                )


def _at_least(config, low: int, *fields: str) -> None:
    for field in fields:
        if getattr(config, field) < low:
            raise InputError(f"{field}={getattr(config, field)}: must be at least {low}")


def vocab_size(data: DataConfig) -> int:
    """Tokens that the model knows, as far as the settings alone tell."""
    if isinstance(data.corpus, SyntheticCorpus):
        return data.corpus.alphabet + 1
    if isinstance(data.tokenizer, BpeTokenizer):
        return data.tokenizer.vocab_size
    if isinstance(data.tokenizer, HfTokenizer):
        return KNOWN_VOCABULARIES.get(data.tokenizer.name, UNKNOWN_VOCABULARY)
    return 256
