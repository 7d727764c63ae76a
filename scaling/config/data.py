"""What a run can say about its data: the corpus, the tokenizer, and how many tokens of which length.

The YAML files under configs/data hold the defaults; the docstring under a field is its meaning.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtLeast, AtMost, Count, Seed, Share
from scaling.errors import InputError

UNKNOWN_VOCABULARY = 2**16
"""Assumed where only the tokenizer itself knows: reading it may need the network."""
KNOWN_VOCABULARIES = {"gpt2": 50_257, "allenai/gpt-neox-olmo-dolma-v1_5": 50_280}


@dataclass(frozen=True, kw_only=True)
class PythonCorpus(Settings):
    """The Python sources that are installed with this project: real text, without a download."""

    kind: Literal["python"] = "python"
    root: str
    """Installed distribution whose requirements are read, theirs too, extras excluded; not its own files."""
    standard_library: bool
    """Whether the interpreter's standard library is read as well."""


@dataclass(frozen=True, kw_only=True)
class TextCorpus(Settings):
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
        super().__post_init__()
        if not self.paths:
            raise InputError("paths=[]: name at least one file, folder or glob, as in 'data.corpus.paths=[book.txt]'")
        if not self.document or "\n" in self.document:
            raise InputError(f"document={self.document!r}: use file, line, blank_line, or a separator within a line")


@dataclass(frozen=True, kw_only=True)
class HfCorpus(Settings):
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
    max_tokens: Count
    """Training tokens after which streaming stops."""
    validation_every: Annotated[int, AtLeast(2)]
    """Every so many-th document is held out until there are `data.validation_documents` of them: a stream has no
    length to draw from."""
    shuffle_buffer: Annotated[int, AtLeast(0), AtMost(10**9)]
    """Documents held in memory to shuffle the stream (its files are shuffled as well); 0: the order of the dataset."""

    def __post_init__(self):
        super().__post_init__()
        if not self.path:
            raise InputError("path='': name a dataset, as in data.corpus.path=roneneldan/TinyStories")


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus(Settings):
    """A Markov source of order two, drawn from `data.seed`, whose entropy rate is known (`scaling.data.synthetic`)."""

    kind: Literal["synthetic"] = "synthetic"
    alphabet: Annotated[int, AtLeast(2), AtMost(256)]
    """Symbols, whose pairs are tabulated; the separator of documents comes on top."""
    zipf: Annotated[float, AtLeast(0)]
    """Exponent s of the successor probabilities, rank^-s: 0 is uniform, larger is easier."""
    order_one: Share
    """Weight of the part that depends on the last symbol only; the rest depends on the last two."""
    smoothing: Annotated[float, Above(0), AtMost(1)]
    """Weight of the uniform distribution in every successor distribution: keeps all of them positive, and the source
    from falling apart into several."""
    documents: Annotated[Count, AtMost(10**9)]
    """Documents to train on."""
    document_tokens: Annotated[Count, AtMost(10**9)]
    """Symbols a document."""


@dataclass(frozen=True, kw_only=True)
class BytesTokenizer(Settings):
    """UTF-8 bytes; 0xFF, which UTF-8 never contains, separates documents. The synthetic corpus keeps its symbols."""

    kind: Literal["bytes"] = "bytes"


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer(Settings):
    """Byte-level BPE, trained on the training split and stored beside the shards."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: Annotated[int, AtLeast(258), AtMost(10_000_000)]
    """All tokens, the 256 bytes and the separator included."""
    sample_bytes: Count
    """Text to train the tokenizer on, spread over the training documents."""


@dataclass(frozen=True, kw_only=True)
class HfTokenizer(Settings):
    """Any tokenizer of Hugging Face `transformers`; its end-of-sequence token separates documents."""

    kind: Literal["hf"] = "hf"
    name: str
    """Name on the hub, or a local folder."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """The data of one run."""

    tokens: Count
    """D: training tokens of the run."""
    sequence_length: Annotated[Count, AtMost(10_000_000)]
    """T: tokens that a model sees at once."""
    batch_tokens: Count
    """Tokens a step, a multiple of `sequence_length`."""
    repeat: bool
    """Allow D to exceed the unique tokens of the corpus: every window is seen once before any is seen twice."""
    eval_windows: Count
    """Held-out windows of T tokens on which losses are measured."""
    validation_documents: Count
    """Documents that are held out, at most a fifth of the corpus."""
    seed: Seed
    """Shuffles and splits the documents, and draws the synthetic source. The order of batches has a seed of its own."""
    corpus: PythonCorpus | TextCorpus | HfCorpus | SyntheticCorpus
    tokenizer: BytesTokenizer | BpeTokenizer | HfTokenizer

    def __post_init__(self):
        super().__post_init__()
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


def vocab_size(data: DataConfig) -> int:
    """Tokens that the model knows, as far as the settings alone say."""
    if isinstance(data.corpus, SyntheticCorpus):
        return data.corpus.alphabet + 1
    if isinstance(data.tokenizer, BpeTokenizer):
        return data.tokenizer.vocab_size
    if isinstance(data.tokenizer, HfTokenizer):
        return KNOWN_VOCABULARIES.get(data.tokenizer.name, UNKNOWN_VOCABULARY)
    return 256
