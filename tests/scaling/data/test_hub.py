"""Datasets streamed by Hugging Face `datasets`, here from local files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.config.data import BpeTokenizer, HfCorpus
from scaling.data.shards import prepare
from scaling.errors import InputError

pytest.importorskip("datasets")


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A dataset of 100 documents in two files, and its texts."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    texts = [f"Document {i} has the number {i}." for i in range(100)]
    files = []
    for part in range(2):
        path = tmp_path / f"part{part}.jsonl"
        rows = texts[part * 50 : part * 50 + 50]
        path.write_text("".join(json.dumps({"body": text, "n": 1}) + "\n" for text in rows))
        files.append(str(path))
    corpus = HfCorpus(
        path="json",
        name=None,
        revision=None,
        data_files=tuple(files),
        split="train",
        field="body",
        max_tokens=10**9,
        validation_every=4,
        shuffle_buffer=0,
    )
    return corpus, texts


def documents(corpus, split):
    return bytes(getattr(corpus, split)).rstrip(b"\xff").decode("latin-1").split("\xff")


def test_every_fourth_document_is_held_out_until_there_are_enough(local, settings, tmp_path):
    config, texts = local
    corpus = prepare(settings(config), tmp_path / "cache")
    assert documents(corpus, "validation") == texts[0:80:4]
    assert documents(corpus, "train") == [text for text in texts if text not in texts[0:80:4]]
    assert corpus.manifest["sources"]["dataset"] == "json"


def test_stops_at_max_tokens(local, settings, tmp_path):
    config, texts = local
    corpus = prepare(settings(replace(config, max_tokens=300)), tmp_path / "cache")
    train = documents(corpus, "train")
    assert 300 <= len(corpus.train) < 300 + 40
    assert train == [text for i, text in enumerate(texts) if i % 4][: len(train)]


def test_shuffled_by_the_seed(local, settings, tmp_path):
    config = replace(local[0], shuffle_buffer=30)
    one, again = (prepare(settings(config), tmp_path / place) for place in ("one", "again"))
    other = prepare(settings(config, seed=1), tmp_path / "one")
    assert one.data_sha == again.data_sha != other.data_sha
    everything = documents(one, "train") + documents(one, "validation")
    assert sorted(everything) == sorted(local[1]) and documents(one, "train") != sorted(documents(one, "train"))


def test_bpe_from_a_stream(local, settings, tmp_path):
    data = settings(local[0], tokenizer=BpeTokenizer(vocab_size=270, sample_bytes=500))
    assert prepare(data, tmp_path / "cache").bytes_per_token > 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": "text"}, "data.corpus.field=text: document 0 has no such text; it has body"),
        ({"split": "nope"}, "data.corpus.path=json: Bad split: nope"),
        ({"data_files": ("absent.jsonl",)}, "data.corpus.path=json: Unable to find"),
        ({"path": "someone/something", "data_files": ()}, "data.corpus.path=someone/something: Couldn't reach"),
    ],
)
def test_bad_datasets(local, settings, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare(settings(replace(local[0], **change)), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_changed_file_is_read_again(local, settings, tmp_path):
    config, _ = local
    first = prepare(settings(config), tmp_path / "cache")
    with open(config.data_files[1], "a") as file:
        file.write('{"body": "One more document.", "n": 1}\n')
    assert documents(prepare(settings(config), tmp_path / "cache"), "train")[-1] == "One more document."
    assert first.manifest["splits"]["train"]["documents"] == 80


@pytest.mark.parametrize("files", [(), ("part*.jsonl",), ("part1.jsonl",)])
def test_an_edited_local_dataset_is_another_corpus(local, settings, tmp_path, files):
    config, _ = local
    folder = tmp_path / "dataset"
    folder.mkdir()
    for path in config.data_files:
        Path(path).rename(folder / Path(path).name)
    config = replace(config, path=str(folder), data_files=files)
    before = prepare(settings(config), tmp_path / "cache")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("main")
    assert prepare(settings(config), tmp_path / "cache").name == before.name
    edited = folder / "part1.jsonl"
    edited.write_text(edited.read_text().replace("Document 51", "Document XX"))
    after = prepare(settings(config), tmp_path / "cache")
    assert after.name != before.name and after.data_sha != before.data_sha
