"""Settings and small corpora that the tests of the data share."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.config.data import BytesTokenizer, DataConfig, TextCorpus


@pytest.fixture
def settings() -> Callable[..., DataConfig]:
    """Makes settings for a corpus: short windows, everything else changeable by keyword."""

    def make(corpus, **changes) -> DataConfig:
        base = DataConfig(
            tokens=256,
            sequence_length=8,
            batch_tokens=32,
            repeat=False,
            eval_windows=16,
            validation_documents=20,
            seed=0,
            corpus=corpus,
            tokenizer=BytesTokenizer(),
        )
        return replace(base, **changes)

    return make


@pytest.fixture
def stories(tmp_path: Path) -> tuple[TextCorpus, list[str]]:
    """A corpus of 200 different documents in one .jsonl file, and their texts."""
    texts = [f"Story {i}: the café of {i * i} cats\nand {'so on ' * (i % 5)}{i}" for i in range(200)]
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return TextCorpus(paths=(str(path),), extensions=("jsonl",), document="file", field="text"), texts
