"""Tables as others write them: packed, in other encodings and layouts, damaged. Each is read, or one line."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from analysis import table
from analysis.errors import InputError

PLAIN = "N,D,loss\n1e6,1e9,3.1\n2e6,1e9,3.05\n4e6,2e9,2.9\n"
VALUES = [[1e6, 1e9, 3.1], [2e6, 1e9, 3.05], [4e6, 2e9, 2.9]]


def zipped(*names, content=PLAIN):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return whole.getvalue()


def written(tmp_path, content, name="runs.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content, name="runs.csv"):
    return table.load(written(tmp_path, content, name), say=lambda _: None)


def fault(tmp_path, content, name="runs.csv"):
    with pytest.raises(InputError) as found:
        read(tmp_path, content, name)
    assert "\n" not in str(found.value)
    return str(found.value)


PACKED = {
    "gz": gzip.compress(PLAIN.encode()),
    "bz2": bz2.compress(PLAIN.encode()),
    "xz": lzma.compress(PLAIN.encode()),
    "zip": zipped("runs.csv"),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["runs.csv.{}", "runs.csv", "runs.csv.gz"])
def test_what_is_packed_is_known_by_how_it_begins(kind, name, tmp_path):
    assert read(tmp_path, PACKED[kind], name.format(kind)).to_numpy().tolist() == VALUES


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_what_is_cut_short_is_one_line(kind, keep, tmp_path):
    part = PACKED[kind][: int(keep * len(PACKED[kind]))]
    assert "damaged, or cut short" in fault(tmp_path, part, f"runs.csv.{kind}")


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_damaged_is_one_line_or_as_it_was(kind, tmp_path):
    for at in range(4, len(PACKED[kind]), 3):
        changed = bytearray(PACKED[kind])
        changed[at] ^= 0x5A
        try:
            found = read(tmp_path, bytes(changed))
        except InputError as line:
            assert "\n" not in str(line)
        else:  # such as the time in a header
            assert found.to_numpy().tolist() == VALUES


def test_zstandard(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    packed = pyarrow.compress(PLAIN.encode(), codec="zstd", asbytes=True)
    assert read(tmp_path, packed, "runs.csv.zst").to_numpy().tolist() == VALUES
    assert "damaged, or cut short" in fault(tmp_path, packed[:-5], "runs.csv.zst")


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "which needs the package pyarrow" in fault(tmp_path, b"\x28\xb5\x2f\xfd....", "runs.csv.zst")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "a workbook, which needs the package openpyxl" in fault(tmp_path, zipped("xl/workbook.xml"), "a.xlsx")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(VALUES, columns=["N", "D", "loss"]).assign(
        P_w=pd.array([4, None, 16], "Int64"),
        scheme=pd.Categorical(["int4", "x", "bf16"]),
        diverged=pd.array([True, None, False], "boolean"),
    )
    frame.to_parquet(tmp_path / "runs.parquet")
    found = table.load(tmp_path / "runs.parquet")
    assert found[["N", "D", "loss"]].to_numpy().tolist() == VALUES
    np.testing.assert_array_equal(found["P_w"], [4, np.nan, 16])
    assert found["scheme"].tolist() == ["int4", "x", "bf16"]
    assert table.flags(found, "diverged").tolist() == [True, False, False]
    content = (tmp_path / "runs.parquet").read_bytes()
    assert "not Parquet that can be read" in fault(tmp_path, content[:-9], "runs.parquet")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("two.zip", zipped("a.csv", "b.csv"), "an archive with 2 files (a.csv, b.csv); expected one table"),
        ("a.csv", b"", "it is empty"),
        ("a.csv", b"\n \n\n", "it holds no text"),
        ("a.csv", "<!DOCTYPE html><html>", "a web page"),
        ("a.csv", '[{"N": 1}]', "JSON"),
        ("a.csv", b"\x80\x04\x95", "a pickle, which is never read"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.csv", "1e6,1e9,3.1\n2e6,1e9,3.0\n", "line 1 holds numbers; expected the names of columns"),
        ("a.csv", PLAIN.replace(",", " "), "has one column, 'N D loss'; expected commas"),
        ("a.csv", PLAIN + "8e6,2e9\n", "line 5 has 2 fields, its header 3"),
        ("a.csv", PLAIN + "8e6,2e9,3,1\n", "line 5 has 4 fields, its header 3"),
        ("a.csv", "N,D,loss,loss\n1,2,3,4\n", "several columns are called loss"),
        ("a.csv", "N,D,loss,note\n1,2,3,caf\xe9\n".encode("latin-1"), "line 2 is not text in UTF-8"),
        ("a.csv", PLAIN.encode("utf-16-le"), "zero bytes"),
        ("a.csv", 'N,D,loss\n1,2,"3\n4,5,6\n', "not a CSV table"),
        ("a.csv", 'N,D,loss\n"1,000,000",1e9,3.1\n', "N: line 2 holds 1,000,000; expected a number, without commas"),
    ],
)
def test_what_is_no_table_is_one_line(name, content, line, tmp_path):
    assert line in fault(tmp_path, content, name)


@pytest.mark.parametrize("path", ["https://example.org/runs.csv", "s3://bucket/runs.csv", "hf://datasets/x/runs.csv"])
def test_an_address_is_no_file(path):
    with pytest.raises(InputError, match="an address; expected a file, download it first"):
        table.load(path)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t").replace(".", ","),
        "sep=;\n" + PLAIN.replace(",", ";"),
        "# N,D,loss\n" + PLAIN.partition("\n")[2],
        "# made by hand\n# twice\n" + PLAIN,
        PLAIN.replace(",", ", "),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-32"),
    ],
)
def test_other_layouts_are_read(content, tmp_path):
    found = read(tmp_path, content)
    assert list(found.columns) == ["N", "D", "loss"]
    assert found.to_numpy().tolist() == VALUES


def test_lines_are_counted_through_blank_ones_and_quotes(tmp_path):
    content = '\n\nN,D,loss,note\n\n1e6,1e9,3.1,"a\nb\n"\n \n2e6,1e9,low,\n'
    assert fault(tmp_path, content) == "loss: line 9 holds low; expected a number"
    assert read(tmp_path, content.replace("low", "3")).index.tolist() == [5, 9]
    assert read(tmp_path, PLAIN).index.tolist() == [2, 3, 4]
    assert read(tmp_path, "sep=;\n" + PLAIN.replace(",", ";")).index.tolist() == [3, 4, 5]


def test_what_comes_through_a_pipe_has_a_digest_of_its_own(monkeypatch):
    digests = []
    for content in (PLAIN, PLAIN.replace("3.1", "3.2")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        made = table.read("-")
        digests.append(made.sha256)
        assert len(made.frame) == 3
    assert len(set(digests)) == 2


@pytest.mark.parametrize("word", ["yes", "Y", "True", "t", "1"])
def test_flags_in_other_words(word, tmp_path):
    found = read(tmp_path, f"N,D,loss,diverged\n1,2,3,{word}\n1,2,3,\n")
    assert table.diverged(found).tolist() == [True, False]
    assert table.diverged(pd.DataFrame({"loss": [3.0, 3.0], "diverged": [word, "no"]})).tolist() == [True, False]
    line = "diverged: line 3 holds crashed; expected true or false"
    assert fault(tmp_path, f"N,D,loss,diverged\n1,2,3,{word}\n1,2,3,crashed\n") == line


def test_sixteen_bits_after_training_are_no_quantization(tables):
    frame = tables.simulate(noise=0).drop(columns=["ptq", "granularity_post", "format_post"])
    said = frame.assign(P_post=frame["P_post"].fillna(16.0))
    assert (table.after_training(said) == table.after_training(frame)).all()
    assert not table.after_training(said[["N", "D", "loss", "P_post"]].assign(P_post=16)).any()
    methods = pd.DataFrame({"ptq": ["rtn", "none", None, "BF16"], "P_post": [16, 4, 4, 4]})
    assert table.after_training(methods).tolist() == [True, False, False, False]
