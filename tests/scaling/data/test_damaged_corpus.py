"""A damaged corpus is one line and never read as data."""

import json
import os
import random
import shutil
import time

import numpy as np
import pytest

from scaling.config.data import BpeTokenizer
from scaling.data import corpus as corpora
from scaling.data.corpus import Corpus, manifest_sha
from scaling.data.new_folder import ABANDONED
from scaling.data.shards import prepare
from scaling.errors import InputError

FILES = ("manifest.json", "train.bin", "train_offsets.npy", "validation.bin", "validation_offsets.npy")


@pytest.fixture
def bpe(stories, settings):
    """Settings of a corpus with a tokenizer of its own."""
    pytest.importorskip("tokenizers")
    return settings(stories[0], tokenizer=BpeTokenizer(vocab_size=300, sample_bytes=10_000))


@pytest.fixture
def folder(stories, settings, tmp_path):
    made = prepare(settings(stories[0]), tmp_path / "cache")
    return tmp_path / "cache" / made.name


def damaged(content: bytes, chance: random.Random) -> dict[str, bytes]:
    half, bit = len(content) // 2, bytearray(content)
    bit[chance.randrange(len(bit))] ^= 1 << chance.randrange(8)
    return {
        "emptied": b"",
        "cut": content[: chance.randrange(1, len(content))],
        "half zeroed": content[:half] + bytes(len(content) - half),
        "zeroed": bytes(len(content)),
        "one bit flipped": bytes(bit),
    }


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_changes_nothing(folder, name):
    whole, path = Corpus.open(folder), folder / name
    content, chance = path.read_bytes(), random.Random(name)
    arrays = {n: np.array(getattr(whole, n)) for n in ("train", "validation", "train_offsets", "validation_offsets")}
    for _ in range(12):
        for kind, changed in damaged(content, chance).items():
            corpora._verified.clear()  # as in another process
            path.write_bytes(changed)
            try:
                found = Corpus.open(folder)
            except InputError as fault:
                assert "damaged corpus" in str(fault) and "\n" not in str(fault)
            else:
                # Such as the case of a letter in the padding of an .npy file, or a blank in the manifest.
                assert found.manifest == whole.manifest, kind
                assert all((getattr(found, n) == values).all() for n, values in arrays.items()), kind


def test_tokens_are_read_once_a_process(folder, monkeypatch):
    Corpus.open(folder)
    monkeypatch.setattr("hashlib.file_digest", None)
    Corpus.open(folder)


def test_a_corpus_of_an_earlier_version_is_read(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    for split in manifest["splits"].values():
        del split["offsets_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Corpus.open(folder).manifest == manifest
    manifest["splits"]["train"]["tokens"] += 1
    assert manifest_sha(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="damaged corpus"):
        Corpus.open(folder)


def test_files_of_another_corpus_are_refused(folder, stories, settings, tmp_path):
    other = prepare(settings(stories[0], seed=1), tmp_path / "cache")
    for name in FILES[1:]:
        kept = (folder / name).read_bytes()
        shutil.copy(tmp_path / "cache" / other.name / name, folder / name)
        with pytest.raises(InputError, match="damaged corpus"):
            Corpus.open(folder)
        (folder / name).write_bytes(kept)


def test_a_damaged_tokenizer_is_refused(bpe, tmp_path):
    made = prepare(bpe, tmp_path / "cache")
    path = tmp_path / "cache" / made.name / "tokenizer.json"
    content, chance = path.read_bytes(), random.Random(0)
    for changed in damaged(content, chance).values():
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"damaged corpus \(tokenizer\.json has another checksum"):
            prepare(bpe, tmp_path / "cache")
    path.unlink()
    with pytest.raises(InputError, match=r"damaged corpus .*tokenizer\.json"):
        prepare(bpe, tmp_path / "cache")
    path.write_bytes(content)
    assert prepare(bpe, tmp_path / "cache").data_sha == made.data_sha


def test_a_manifest_names_no_files_elsewhere(folder, tmp_path):
    (tmp_path / "else").write_text("")
    manifest = json.loads((folder / "manifest.json").read_text()) | {"files": {"../../else": ""}}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": manifest_sha(manifest)}))
    with pytest.raises(InputError, match="is no file of this folder"):
        Corpus.open(folder)


def test_a_corpus_in_the_folder_of_another_is_refused(folder, stories, settings, tmp_path):
    """Whole, and so with all checksums right: `cp -r`, or a folder that was renamed."""
    other = settings(stories[0], seed=1)
    place = tmp_path / "cache" / prepare(other, tmp_path / "cache").name
    shutil.rmtree(place)
    shutil.copytree(folder, place)
    with pytest.raises(InputError, match="it was built from another seed"):
        prepare(other, tmp_path / "cache")


@pytest.mark.parametrize("size", [0, 100, 1_500, 3_000, 5_000])
def test_a_corpus_that_does_not_fit_on_the_disk_leaves_nothing(bpe, tmp_path, full_above, size):
    cache = tmp_path / "cache"
    with full_above(size), pytest.raises(InputError, match=r"cannot be built \(File too large\)") as fault:
        prepare(bpe, cache)
    assert "\n" not in str(fault.value) and not list(cache.iterdir())
    assert prepare(bpe, cache).data_sha == prepare(bpe, tmp_path / "other").data_sha


def test_what_killed_builds_left_is_removed_in_time(stories, settings, tmp_path):
    data, cache = settings(stories[0]), tmp_path / "cache"
    name = prepare(data, cache).name
    shutil.rmtree(cache / name)
    for age, kept in ((0.0, True), (2 * ABANDONED, False)):
        (left := cache / f".{name}-{age}").mkdir()
        (left / "train.bin").write_bytes(b"half")
        for path in (left / "train.bin", left):
            os.utime(path, (time.time() - age,) * 2)
        prepare(data, cache)
        shutil.rmtree(cache / name)
        assert left.exists() == kept
