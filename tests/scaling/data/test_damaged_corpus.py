"""A damaged corpus is one line and never read as data."""

import json
import random
import shutil

import numpy as np
import pytest

from scaling.data import corpus as corpora
from scaling.data.corpus import Corpus, manifest_sha
from scaling.data.shards import prepare
from scaling.errors import InputError

FILES = ("manifest.json", "train.bin", "train_offsets.npy", "validation.bin", "validation_offsets.npy")


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
