"""What `prepare` writes: the documents, split, each once; the same wherever and whenever it is built."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from scaling.config.data import TextCorpus
from scaling.data.shards import prepare
from scaling.errors import InputError


def documents(corpus, split: str) -> list[str]:
    stream, offsets = getattr(corpus, split), getattr(corpus, f"{split}_offsets")
    assert all(stream[end - 1] == 0xFF for end in offsets[1:]) and offsets[-1] == len(stream)
    return [bytes(stream[a : b - 1]).decode() for a, b in pairwise(offsets)]


def test_round_trip_and_split(stories, settings, tmp_path):
    config, texts = stories
    corpus = prepare(settings(config), tmp_path / "cache")
    train, held_out = documents(corpus, "train"), documents(corpus, "validation")
    assert len(held_out) == 20
    assert sorted(train + held_out) == sorted(texts)
    assert corpus.train.dtype == np.uint8 and corpus.vocab_size == 256


def test_manifest(stories, settings, tmp_path):
    config, texts = stories
    corpus = prepare(settings(config), tmp_path / "cache")
    manifest = json.loads((tmp_path / "cache" / corpus.name / "manifest.json").read_text())
    assert manifest == corpus.manifest
    for split in ("train", "validation"):
        entry, found = manifest["splits"][split], documents(corpus, split)
        size = sum(len(text.encode()) for text in found)
        assert (entry["documents"], entry["bytes"], entry["tokens"]) == (len(found), size, size + len(found))
        assert entry["sha256"] == hashlib.sha256(getattr(corpus, split).tobytes()).hexdigest()
    assert manifest["splits"]["train"]["bytes"] + manifest["splits"]["validation"]["bytes"] == sum(
        len(text.encode()) for text in texts
    )
    assert corpus.bytes_per_token == 1.0


def test_same_everywhere_and_other_seed_other_split(stories, settings, tmp_path):
    config, _ = stories
    one = prepare(settings(config), tmp_path / "one")
    other = prepare(settings(config, tokens=999, eval_windows=3), tmp_path / "other")
    assert one.data_sha == other.data_sha and one.name == other.name
    reseeded = prepare(settings(config, seed=1), tmp_path / "one")
    assert reseeded.name != one.name and reseeded.data_sha != one.data_sha
    assert set(documents(reseeded, "validation")) != set(documents(one, "validation"))


def test_built_once_until_a_file_changes(stories, settings, tmp_path):
    data, notes = settings(stories[0]), []
    first = prepare(data, tmp_path / "cache", notes.append)
    assert any("building" in line for line in notes)
    notes.clear()
    assert prepare(data, tmp_path / "cache", notes.append).name == first.name
    assert not any("building" in line for line in notes)
    with open(data.corpus.paths[0], "a") as file:
        file.write(json.dumps({"text": "one more story"}) + "\n")
    assert prepare(data, tmp_path / "cache").data_sha != first.data_sha


def test_the_slower_of_two_builders_takes_what_the_faster_made(stories, settings, tmp_path, capsys):
    data, cache, made = settings(stories[0]), tmp_path / "cache", []

    def meanwhile(line: str) -> None:
        if "building" in line:  # this builder has begun; another one comes and finishes first
            made.append(prepare(data, cache, lambda _: None))
            made.append((cache / made[0].name / "manifest.json").stat().st_ino)

    corpus = prepare(data, cache, meanwhile)
    assert corpus.data_sha == made[0].data_sha
    assert (cache / corpus.name / "manifest.json").stat().st_ino == made[1]
    assert [p.name for p in cache.iterdir()] == [corpus.name]


def test_failure_leaves_nothing(stories, settings, tmp_path):
    config, _ = stories
    with open(config.paths[0], "a") as file:
        file.write("{not json\n")
    with pytest.raises(InputError, match=r"stories.jsonl:201: not JSON"):
        prepare(settings(config), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_few_held_out_documents_are_told(stories, settings, tmp_path):
    notes = []
    prepare(settings(stories[0], eval_windows=64), tmp_path / "cache", notes.append)
    assert any("only 20 held-out documents" in line for line in notes)
    notes.clear()
    prepare(settings(stories[0]), tmp_path / "cache", notes.append)
    assert not any("only" in line for line in notes)


def test_windows_too_long_for_every_document(stories, settings, tmp_path):
    with pytest.raises(InputError, match=r"data.sequence_length=512: no held-out document"):
        prepare(settings(stories[0], sequence_length=512, batch_tokens=512, tokens=512), tmp_path / "cache")


def test_at_most_a_fifth_is_held_out(settings, tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"line number {i}\n" for i in range(25)))
    config = TextCorpus(paths=(str(tmp_path / "lines.txt"),), extensions=(), document="line", field="")
    assert len(documents(prepare(settings(config), tmp_path / "cache"), "validation")) == 5
    with pytest.raises(InputError, match=r"1 document, two are needed .* set data.corpus.document"):
        prepare(settings(replace(config, document="file")), tmp_path / "cache")
