"""Trained and borrowed tokenizers: their text comes back, and no text can forge a separator."""

import json
from itertools import pairwise

import numpy as np
import pytest

from scaling.config.data import BpeTokenizer, HfTokenizer, TextCorpus
from scaling.data.shards import prepare
from scaling.errors import InputError

tokenizers = pytest.importorskip("tokenizers")

TEXTS = [f"Line {i}: <|endoftext|> the cat, the café, the catalogue\n  of number {i}" for i in range(60)]


@pytest.fixture
def corpus(tmp_path) -> TextCorpus:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return TextCorpus(paths=(str(tmp_path / "a.jsonl"),), extensions=("jsonl",), document="file", field="text")


def decoded(made, decode) -> list[str]:
    """All documents, found by splitting both streams at the separator."""
    out = []
    for stream in (made.train, made.validation):
        ends = np.flatnonzero(stream == made.manifest["separator"])
        out += [
            decode(piece[piece != made.manifest["separator"]].tolist()) for piece in np.split(stream, ends + 1)[:-1]
        ]
    return out


def test_bpe_round_trip(corpus, settings, tmp_path):
    data = settings(corpus, tokenizer=BpeTokenizer(vocab_size=300, sample_bytes=10_000))
    made = prepare(data, tmp_path / "cache")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "cache" / made.name / "tokenizer.json"))
    assert sorted(decoded(made, tokenizer.decode)) == sorted(TEXTS)
    assert made.vocab_size == 300 and made.manifest["separator"] == 299 and made.train.dtype == np.dtype("<u2")
    assert tokenizer.get_vocab_size() == 299
    assert made.bytes_per_token > 1.5
    assert prepare(data, tmp_path / "again").data_sha == made.data_sha


def test_bpe_learns_from_the_training_split_only(settings, tmp_path):
    # Each document repeats a word of its own: the tokens of held-out words cannot have been merged.
    texts = [f"{chr(97 + i) * 3}{chr(100 + i) * 3} " * 40 for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = TextCorpus(paths=(str(tmp_path / "a.jsonl"),), extensions=("jsonl",), document="file", field="text")
    made = prepare(settings(config, tokenizer=BpeTokenizer(vocab_size=1000, sample_bytes=10**6)), tmp_path / "cache")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "cache" / made.name / "tokenizer.json"))
    offsets = made.validation_offsets
    held_out = {tokenizer.decode(made.validation[a : b - 1].tolist()) for a, b in pairwise(offsets)}
    assert len(held_out) == 4
    lengths = {text in held_out: set() for text in texts}
    for text in texts:
        lengths[text in held_out].add(len(tokenizer.encode(text.split()[1]).ids))
    assert max(lengths[False]) < min(lengths[True])


@pytest.fixture
def saved(tmp_path):
    """A byte-level tokenizer as `transformers` stores it, with or without an end-of-sequence token."""
    transformers = pytest.importorskip("transformers")

    def save(name: str, **special) -> str:
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=280,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(TEXTS, trainer)
        transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


def test_hf_tokenizer(corpus, settings, saved, tmp_path):
    folder = saved("tokenizer", eos_token="<|endoftext|>")
    made = prepare(settings(corpus, tokenizer=HfTokenizer(name=folder)), tmp_path / "cache")
    decode = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json").decode
    assert sorted(decoded(made, decode)) == sorted(TEXTS)
    assert made.vocab_size == 280 and made.manifest["separator"] == 0


def test_bad_hf_tokenizers(corpus, settings, saved, tmp_path):
    for name, message in [
        (saved("bare"), "has no end-of-sequence token"),
        (str(tmp_path / "absent"), r"data.tokenizer.name=.*absent: .+"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            prepare(settings(corpus, tokenizer=HfTokenizer(name=name)), tmp_path / "cache")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())
