"""Tokenizers as the builder of shards sees them: a vocabulary, a separator, and text to token ids."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from scaling.config.data import BpeTokenizer, BytesTokenizer, DataConfig, HfTokenizer, SyntheticCorpus
from scaling.data.documents import INSTALL_HF, Source, first_line
from scaling.errors import InputError


class Encoder(Protocol):
    vocab_size: int
    separator: int
    """Token between documents; text never encodes to it."""

    def encode(self, texts: list) -> list[np.ndarray]:
        """Token ids of each text, without separators."""


def encoder_for(data: DataConfig, source: Source, folder: Path, stage: Callable[[str, int | None], None]) -> Encoder:
    """The encoder that the settings name. A trained one is stored in `folder`; `stage` is called when it is trained."""
    tokenizer = data.tokenizer
    if isinstance(data.corpus, SyntheticCorpus):
        return _Symbols(data.corpus.alphabet)
    if isinstance(tokenizer, BytesTokenizer):
        return _Bytes()
    if isinstance(tokenizer, BpeTokenizer):
        stage("training the tokenizer", None)
        return _Bpe(tokenizer, source, folder)
    assert isinstance(tokenizer, HfTokenizer)
    return _Hf(tokenizer)


class _Bytes:
    vocab_size = 256
    separator = 0xFF

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]


class _Symbols:
    def __init__(self, alphabet: int):
        self.vocab_size, self.separator = alphabet + 1, alphabet

    def encode(self, texts: list[np.ndarray]) -> list[np.ndarray]:
        return texts


class _Bpe:
    """Byte-level BPE. The separator is an id that the trained vocabulary does not have, so no text can contain it."""

    def __init__(self, config: BpeTokenizer, source: Source, folder: Path):
        try:
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        except ImportError:
            raise InputError(f"data.tokenizer.kind=bpe: needs the package tokenizers; {INSTALL_HF}") from None
        self.vocab_size, self.separator = config.vocab_size, config.vocab_size - 1
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size - 1,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        self.tokenizer.train_from_iterator(_sample(source, config.sample_bytes), trainer)
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(pretty=True), encoding="utf-8")

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array(e.ids, dtype=np.uint32) for e in self.tokenizer.encode_batch_fast(texts)]


def _sample(source: Source, size: int) -> Iterator[str]:
    """About `size` bytes of training text, every n-th document where the size of the whole is known."""
    step = max(1, source.size // size) if source.size else 1
    for document in islice((d for d in source.documents() if not d.held_out), 0, None, step):
        yield document.text
        size -= document.size
        if size <= 0:
            return


class _Hf:
    def __init__(self, config: HfTokenizer):
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise InputError(f"data.tokenizer.kind=hf: needs the package transformers; {INSTALL_HF}") from None
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(config.name, trust_remote_code=False)
        except (OSError, ValueError) as fault:
            raise InputError(f"data.tokenizer.name={config.name}: {first_line(fault)}") from None
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"data.tokenizer.name={config.name}: has no end-of-sequence token to separate documents")
        self.vocab_size, self.separator = len(self.tokenizer), self.tokenizer.eos_token_id

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        # Without split_special_tokens a text that spells out "<|endoftext|>" would end its document.
        ids = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return [np.array(i, dtype=np.uint32) for i in ids]
