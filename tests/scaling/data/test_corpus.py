"""Held-out windows, horizons, and folders that are not what they should be."""

import json

import numpy as np
import pytest

from scaling.config.data import SyntheticCorpus
from scaling.data.corpus import Corpus
from scaling.data.shards import prepare
from scaling.errors import InputError


def corpus_of(lengths: list[int], train: int = 100) -> Corpus:
    """Validation documents of the given lengths; the tokens of document i are i * 1000 + place, separators are -1."""
    documents = [np.append(i * 1000 + np.arange(n), -1) for i, n in enumerate(lengths)]
    return Corpus(
        name="c",
        manifest={},
        train=np.zeros(train, dtype=np.uint8),
        validation=np.concatenate(documents),
        train_offsets=np.array([0, train]),
        validation_offsets=np.cumsum([0] + [len(d) for d in documents]),
    )


def check_inside_documents(windows, lengths):
    assert (np.diff(windows.tokens, axis=1) == 1).all()
    assert (windows.tokens[:, 0] // 1000 == windows.documents).all()
    assert (windows.tokens[:, -1] % 1000 < np.array(lengths)[windows.documents]).all()
    assert (windows.tokens >= 0).all()


def test_one_window_a_document_where_there_are_enough():
    lengths = [9 + i % 40 for i in range(300)]
    windows = corpus_of(lengths).windows(200, 8)
    assert windows.tokens.shape == (200, 9) and windows.tokens.dtype == np.int64
    assert len(set(windows.documents)) == 200
    check_inside_documents(windows, lengths)


def test_two_windows_a_document_do_not_overlap():
    lengths = [8, 9, 17, 18, 19, 100, 500, 3]
    windows = corpus_of(lengths).windows(1000, 8)
    check_inside_documents(windows, lengths)
    assert sorted(windows.documents) == [1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert len(np.unique(windows.tokens)) == windows.tokens.size


def test_windows_fill_up_with_second_ones_only():
    windows = corpus_of([50] * 10).windows(13, 8)
    assert len(windows.tokens) == 13
    assert sorted(np.bincount(windows.documents)) == [1] * 7 + [2] * 3
    assert len(set(windows.documents[:10])) == 10


def test_windows_lie_anywhere_in_their_document():
    places = corpus_of([108] * 900).windows(900, 8).tokens[:, 0] % 1000
    # Uniform on 0..99: mean 49.5, standard error 28.9 / 30.
    assert places.min() < 5 and places.max() > 94 and abs(places.mean() - 49.5) < 4


def test_windows_are_fixed():
    lengths = [9 + i % 40 for i in range(300)]
    one, other = corpus_of(lengths).windows(64, 8), corpus_of(lengths).windows(64, 8)
    assert np.array_equal(one.tokens, other.tokens) and one.sha == other.sha
    assert one.sha != corpus_of(lengths).windows(63, 8).sha


def test_no_document_long_enough():
    with pytest.raises(InputError, match=r"data.sequence_length=8: no held-out document of c has 9 tokens.* has 8$"):
        corpus_of([3, 8, 5]).windows(10, 8)


def test_horizon(settings):
    data = settings(SyntheticCorpus(alphabet=4, zipf=1, order_one=0.5, smoothing=0.1, documents=1, document_tokens=99))
    corpus = corpus_of([50], train=257)
    assert corpus.unique_tokens(8) == 256
    corpus.check_horizon(data)
    short = corpus_of([50], train=256)
    with pytest.raises(InputError, match=r"data.tokens=256: c has 248 unique training tokens; .*data.repeat=true"):
        short.check_horizon(data)
    short.check_horizon(settings(data.corpus, repeat=True))
    with pytest.raises(InputError, match=r"data.sequence_length=8: c has only 8 training tokens"):
        corpus_of([50], train=8).check_horizon(settings(data.corpus, repeat=True))


def test_damaged_folders(stories, settings, tmp_path):
    data = settings(stories[0])
    corpus = prepare(data, tmp_path / "cache")
    folder = tmp_path / "cache" / corpus.name
    whole = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole[:-3])
    with pytest.raises(InputError, match=rf"damaged corpus \(train.bin has {len(whole) - 3} tokens.*delete the folder"):
        prepare(data, tmp_path / "cache")
    (folder / "train.bin").write_bytes(whole)
    assert prepare(data, tmp_path / "cache").data_sha == corpus.data_sha
    manifest = (folder / "manifest.json").read_text()
    for broken in (manifest[:-20], json.dumps({"dtype": "|u1"}), manifest.replace("|u1", "O"), "[" * 100_000, "[]"):
        (folder / "manifest.json").write_text(broken)
        with pytest.raises(InputError, match="damaged corpus"):
            prepare(data, tmp_path / "cache")
