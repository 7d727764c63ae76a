"""The YAML choices compose, and bad values are one line."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from scaling.config.compose import BEHAVIOUR
from scaling.config.data import BpeTokenizer, BytesTokenizer, DataConfig, HfCorpus, HfTokenizer, TextCorpus
from scaling.config.from_dict import build
from scaling.errors import InputError

CONFIGS = Path(__file__).parents[3] / "configs"


def composed(*overrides: str) -> DataConfig:
    first, *rest = overrides
    with hydra.initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        config = hydra.compose(overrides=[f"+{first}", *rest])
    return build(DataConfig, OmegaConf.to_container(config, resolve=True)["data"], "data")


@pytest.mark.parametrize("name", ["python", "c4", "fineweb_edu", "dolma", "synthetic"])
def test_choices(name):
    data = composed(f"data={name}")
    assert (data.tokens, data.sequence_length, data.batch_tokens) == (2_000_000, 128, 2048)
    assert (data.eval_windows, data.validation_documents, data.repeat) == (1024, 1200, False)
    assert data.corpus.kind == ("hf" if name in ("c4", "fineweb_edu", "dolma") else name)


def test_choices_that_need_a_name():
    with pytest.raises(InputError, match=r"^data.corpus.paths=\[\]: name at least one"):
        composed("data=text")
    with pytest.raises(InputError, match=r"^data.corpus.path='': name a dataset"):
        composed("data=hf")
    assert isinstance(composed("data=hf", "data.corpus.path=a/b").corpus, HfCorpus)


def test_overrides():
    tokenizer = "data/tokenizer=bpe", "data.tokenizer.vocab_size=1024"
    data = composed("data=text", "data.corpus.paths=[a.txt,dir]", *tokenizer, "data.tokens=2e6")
    assert isinstance(data.corpus, TextCorpus) and data.corpus.paths == ("a.txt", "dir")
    assert isinstance(data.tokenizer, BpeTokenizer) and data.tokenizer.vocab_size == 1024
    assert data.tokens == 2_000_000
    assert composed("data=text", "data.corpus.paths=a.txt").corpus.paths == ("a.txt",)


@pytest.mark.parametrize("name", ["python", "c4"])
@pytest.mark.parametrize(("choice", "cls"), [("bytes", BytesTokenizer), ("bpe", BpeTokenizer), ("hf", HfTokenizer)])
def test_any_tokenizer_with_any_corpus(name, choice, cls):
    assert isinstance(composed(f"data={name}", f"data/tokenizer={choice}").tokenizer, cls)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.tokens=100", "data.tokens=100: below one batch (batch_tokens=2048)"),
        ("data.batch_tokens=200", "data.batch_tokens=200: must be a multiple of sequence_length=128"),
        ("data.sequence_length=0", "data.sequence_length=0: must be at least 1 and at most 10,000,000"),
        ("data.eval_windows=-1", "data.eval_windows=-1: must be at least 1"),
        ("data.validation_documents=0", "data.validation_documents=0: must be at least 1"),
        ("data.seed=-1", "data.seed=-1: must be at least 0"),
        ("data.corpus.alphabet=1", "data.corpus.alphabet=1: must be at least 2 and at most 256"),
        ("data.corpus.alphabet=300", "data.corpus.alphabet=300: must be at least 2 and at most 256"),
        ("data.corpus.order_one=1.5", "data.corpus.order_one=1.5: must be at least 0 and at most 1"),
        ("data.corpus.zipf=-1", "data.corpus.zipf=-1.0: must be at least 0"),
        ("data.corpus.smoothing=0", "data.corpus.smoothing=0.0: must be above 0 and at most 1"),
        ("data.corpus.document_tokens=128", "data.corpus.document_tokens=128: must exceed sequence_length=128"),
        ("data/tokenizer=bpe", "data.tokenizer.kind=bpe: the synthetic corpus is tokens; use bytes"),
    ],
)
def test_bad_values(override, message):
    with pytest.raises(InputError) as caught:
        composed("data=synthetic", override)
    assert str(caught.value) == message


def test_bad_vocabulary():
    with pytest.raises(InputError, match=r"^data.tokenizer.vocab_size=257: must be at least 258 and at most "):
        composed("data=python", "data/tokenizer=bpe", "data.tokenizer.vocab_size=257")
