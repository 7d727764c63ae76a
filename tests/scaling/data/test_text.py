"""Local text: which files, which documents, and one line for each thing that can be wrong."""

import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.config.data import TextCorpus
from scaling.data.shards import prepare
from scaling.data.text import MAX_DOCUMENT, find_files, read_documents
from scaling.errors import InputError

TEXT = "One.\nStill one.\n\n \nTwo, with ünïcode.\n<|end|>\nThree<|end|>Four\n"


def corpus(*paths, document="file", field="text", extensions=("txt", "md", "jsonl")) -> TextCorpus:
    return TextCorpus(paths=tuple(map(str, paths)), extensions=extensions, document=document, field=field)


def documents(path: Path, **settings) -> list[str]:
    return list(read_documents(path, corpus(path, **settings)))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", [TEXT]),
        ("line", ["One.", "Still one.", "Two, with ünïcode.", "<|end|>", "Three<|end|>Four"]),
        ("blank_line", ["One.\nStill one.", "Two, with ünïcode.\n<|end|>\nThree<|end|>Four"]),
        ("<|end|>", ["One.\nStill one.\n\n \nTwo, with ünïcode.", "Three", "Four"]),
    ],
)
def test_documents_of_a_text_file(tmp_path, document, expected):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    assert documents(path, document=document) == expected


def test_line_ends_of_a_file_are_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n\n")
    assert documents(path) == ["one\r\ntwo\rthree\n\n"]
    assert documents(path, document="line") == ["one", "two\rthree"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_compressed(tmp_path, suffix, kind):
    lines = [f"line {i}" for i in range(3000)]
    raw = "".join((json.dumps({"text": line}) if kind == ".jsonl" else line) + "\n" for line in lines).encode()
    path = compressed(tmp_path / f"a{kind}{suffix}", raw)
    assert documents(path, document="line") == lines


def compressed(path: Path, raw: bytes) -> Path:
    if path.suffix == ".zst":
        pyarrow = pytest.importorskip("pyarrow")
        raw = bytes(pyarrow.compress(raw, codec="zstd", asbytes=True))
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(raw))
    return path


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_damaged_archives(tmp_path, suffix):
    path = compressed(tmp_path / f"a.txt{suffix}", "".join(f"line {i * i}\n" for i in range(30_000)).encode())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"a.txt\{suffix}: cannot be read \(.+\)$"):
        documents(path, document="line")
    path.write_bytes(b"plain text after all")
    with pytest.raises(InputError, match=rf"a.txt\{suffix}: cannot be read"):
        documents(path, document="line")


def test_files_of_folders_and_globs(tmp_path):
    for name in ("b/x.txt", "a/deep/y.md", "a/z.txt.gz", "a/skip.bin", "a/noextension", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    found = lambda *paths: [str(p.relative_to(tmp_path)) for p in find_files(corpus(*paths))]  # noqa: E731
    assert found(tmp_path) == ["a/deep/y.md", "a/z.txt.gz", "b/x.txt", "c.txt"]
    assert found(tmp_path / "*.txt", tmp_path / "c.txt") == ["c.txt"]
    assert found(tmp_path / "**/*.txt") == ["b/x.txt", "c.txt"]
    assert found(tmp_path / "a/skip.bin", tmp_path / "b") == ["a/skip.bin", "b/x.txt"]


def test_documents_are_kept_in_order_whatever_the_order_of_paths(settings, tmp_path):
    for name in "cab":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{i} and some more words\n" for i in range(20)))
    one = prepare(settings(corpus(tmp_path, document="line")), tmp_path / "cache")
    paths = [tmp_path / f"{name}.txt" for name in "bca"]
    other = prepare(settings(corpus(*paths, document="line")), tmp_path / "cache")
    assert one.data_sha == other.data_sha and one.name != other.name


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"fine\nnot \xff fine\n", {}, r"a.txt:2: byte 0xFF is not UTF-8"),
        (b'{"text": "a"}\n{"text": \n', {"name": "a.jsonl"}, r"a.jsonl:2: not JSON"),
        (b'{"text": "a"}\n\n{"body": "b", "id": 1}\n', {"name": "a.jsonl"}, r"a.jsonl:3: no field 'text'; it has body"),
        (b'{"text": ["a"]}\n', {"name": "a.jsonl"}, r"a.jsonl:1: field 'text' is no text but list"),
        (b'{"text": "a \\ud800"}\n', {"name": "a.jsonl"}, r"a.jsonl:1: field 'text' has half of a surrogate pair"),
        (b'"a"\n', {"name": "a.jsonl"}, r"a.jsonl:1: no field 'text'; it is no object"),
    ],
)
def test_bad_content(tmp_path, content, settings, message):
    path = tmp_path / settings.pop("name", "a.txt")
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        documents(path, **settings)
    assert "\n" not in str(caught.value)


def test_bad_paths(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text(" \n\n")
    for path, message in [
        ("absent.txt", r"data.corpus.paths=.*absent.txt: no such file or folder"),
        ("*.nothing", r"data.corpus.paths=.*\*.nothing: no such file or folder"),
        ("empty", r"data.corpus.paths=.*empty: holds no file that ends in txt, md, jsonl"),
        ("blank.txt", r"data.corpus.paths: no text in .*blank.txt"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare(settings(corpus(tmp_path / path)), tmp_path / "cache")
    with pytest.raises(InputError, match=r"paths=\[\]: name at least one"):
        corpus()
    with pytest.raises(InputError, match=r"document='a\\nb': use file, line"):
        corpus("a.txt", document="a\nb")


def test_collection_taken_for_one_document(tmp_path):
    path = tmp_path / "all.txt"
    path.write_bytes((b"x" * 999_999 + b"\n") * (MAX_DOCUMENT // 1_000_000 + 1))
    for document in ("file", "<|end|>"):
        with pytest.raises(InputError, match="a document of over 64,000,000 characters"):
            documents(path, document=document)
    assert len(documents(path, document="line")) == 65


def test_both_readings_of_a_corpus_agree(settings, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"paragraph {i}\nof two lines\n\n\n" for i in range(40)))
    config = replace(corpus(path), document="blank_line")
    made = prepare(settings(config), tmp_path / "cache")
    assert made.manifest["splits"]["train"]["documents"] == 32
    assert made.manifest["splits"]["validation"]["documents"] == 8
