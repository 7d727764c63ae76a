"""Public tables without a network: a local server stands for the host, small files of the same formats for theirs."""

import dataclasses
import functools
import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from analysis import table
from analysis.__main__ import main
from analysis.validation import download, public_tables

DATA = Path(__file__).parents[3] / "shared" / "data"
POINTS = """x,y,color,Model Size,Training FLOP,hex_color,loss
154.0,140.6,#faebdd,6000000000.0,9e18,#faebdd,5.0
151.6,175.5,#f8d1b8,3000000000.0,9e18,#f8d1b8,4.5
153.2,180.6,#f47a54,2500000000.0,9e18,#f47a54,4.0
152.8,186.7,#f47d57,2000000000.0,9e18,#f47d57,3.8
153.3,192.2,#ed503e,1900000000.0,9e18,#ed503e,3.5
188.4,192.2,#ed503e,100000000.5,6.00000003e18,#ed503e,2.75
"""
RUNS = (  # quantizers of weights and activations, bits of both as recorded, and the scheme that they make
    ("NoQuantizer", "NoQuantizer", 16, 16, "16"),
    ("HadamardTrustQuantizer", "HadamardTrustQuantizer", 4, 4, "4"),
    ("HalfHadamardTrustQuantizer", "HalfHadamardTrustQuantizer", 4, 4, "4"),
    ("TrustQuantizer", "TrustQuantizer", 4, 4, "4NOH"),
    ("HalfHadamardTrustQuantizer", "NoQuantizer", 4, 16, "4WO"),
    ("HadamardFourEightTrustQuantizer", "HadamardTrustQuantizer", 4, 4, "48"),
    ("HalfHadamardFP4TrustQuantizer", "HalfHadamardFP4TrustQuantizer", 16, 16, "fp4"),
)


def records():
    return [
        {
            "model_size": 30,
            "non_embedding_parameters": 30482560,
            "w_bits": w_bits,
            "a_bits": a_bits,
            "loss": 3.25 + i / 10,
            "tokens": 2999975936,
            "w_quant": w_quant,
            "a_quant": a_quant,
            "clip_scale": None,
            "args": {"lr": 0.0012, "seed": 0, "n_embd": 640, "n_layer": 6, "dataset": "c4", "opt": "adamw"},
        }
        for i, (w_quant, a_quant, w_bits, a_bits, _) in enumerate(RUNS)
    ]


RECORD = records()[0]
CONTENT = {"chinchilla": POINTS, "quest": json.dumps(records())}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A server with small tables at the places of the real ones, for which the digests are set to None."""
    root = tmp_path / "host"
    for name, content in CONTENT.items():
        source = public_tables.SOURCES[name]
        rows = len(source.convert(content.encode()))
        monkeypatch.setitem(
            public_tables.SOURCES, name, dataclasses.replace(source, rows=rows, sha256=None, values=None)
        )
        path = root / source.repository / source.commit / source.path
        path.parent.mkdir(parents=True)
        path.write_text(content)
    handler = functools.partial(Quiet, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(public_tables, "HOST", f"http://127.0.0.1:{server.server_port}")
        yield root
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def run(capsys, *arguments):
    status = main(["public", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_chinchilla_becomes_a_tidy_table(host, capsys, tmp_path):
    status, out, err = run(capsys, "chinchilla", "--out", tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / "chinchilla.csv"
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    sha = hashlib.sha256(POINTS.encode()).hexdigest()
    for text in (str(path), "6 rows", "epoch-research/analyzing-chinchilla", "commit 9225883", "licence: none stated"):
        assert text in out
    assert f"sha256 {sha} not checked" in out
    frame = table.load(path)
    assert list(frame) == ["N", "D", "C", "loss", "used_in_epoch_fit"]
    assert frame.iloc[-1].tolist() == [100000000.5, 1e10, 6.00000003e18, 2.75, True]
    assert frame["used_in_epoch_fit"].tolist() == [False] * 5 + [True]
    assert [p.name for p in path.parent.iterdir()] == ["chinchilla.csv"]


def test_quest_becomes_a_tidy_table(host, capsys, tmp_path):
    status, out, _ = run(capsys, "quest", "--out", tmp_path)
    assert status == 0
    for text in ("7 rows", "IST-DASLab/QuEST", "commit c295afd", "licence: MIT", "not checked"):
        assert text in out
    frame = pd.read_csv(tmp_path / "quest.csv", dtype={"scheme": str})
    assert frame["scheme"].tolist() == [run[-1] for run in RUNS]
    assert frame["P_w"].tolist() == [16, 4, 4, 4, 4, 4, 4]  # the records call fp4 16 bits
    assert frame["P_a"].tolist() == [16, 4, 4, 4, 16, 4, 4]
    assert frame["N"].eq(30482560).all() and frame["D"].eq(2999975936).all()
    assert frame["loss"].tolist() == [run["loss"] for run in records()]
    assert {"estimator", "corpus", "lr_peak", "n_layers", "d_model", "seed_init"} <= set(frame)


def test_digests_are_checked(host, capsys, tmp_path, monkeypatch):
    source = public_tables.SOURCES["chinchilla"]
    right = {
        "sha256": hashlib.sha256(POINTS.encode()).hexdigest(),
        "values": public_tables.digest(source.convert(POINTS.encode())),
    }
    monkeypatch.setitem(public_tables.SOURCES, "chinchilla", dataclasses.replace(source, **right))
    status, out, _ = run(capsys, "chinchilla", "--out", tmp_path)
    assert status == 0
    assert out.endswith("sha256 as expected, values as expected\n")
    before = (tmp_path / "chinchilla.csv").read_bytes()
    for name, wrong in (("sha256", "0" * 64), ("values", "0" * 64), ("rows", 7)):
        monkeypatch.setitem(public_tables.SOURCES, "chinchilla", dataclasses.replace(source, **right | {name: wrong}))
        status, out, err = run(capsys, "chinchilla", "--out", tmp_path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "nothing was written" in err
        assert (tmp_path / "chinchilla.csv").read_bytes() == before
        status, _, _ = run(capsys, "chinchilla", "--out", tmp_path / "other")
        assert status == 1 and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        "[{}]",
        "<html>",
        "Model Size,Training FLOP,loss\n1,x,2\n",
        "Model Size,Training FLOP,loss\n0,1e9,2\n",
        "Model Size,Training FLOP,loss\n1," + "9" * 140_000 + ",2\n",  # a field that the csv module refuses
        "[" * 100_000,
        json.dumps([RECORD | {"tokens": float("inf")} for _ in RUNS]),
        b"\xff\xfe\x00",
    ],
)
@pytest.mark.parametrize("name", CONTENT)
def test_another_format_is_one_line(host, capsys, tmp_path, name, damage):
    source = public_tables.SOURCES[name]
    path = host / source.repository / source.commit / source.path
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    status, out, err = run(capsys, name, "--out", tmp_path / "out")
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith(f"python -m analysis public: {source.url}: ")
    assert not (tmp_path / "out").exists()


class Broken(http.server.BaseHTTPRequestHandler):
    """A host whose answers end too early, in the way that the class attribute says."""

    way = ""
    body = POINTS.encode()

    def do_GET(self):
        if self.way == "no answer":
            return
        if self.way == "late":
            self.server.hold.wait(20)
            return
        if self.way == "garbage":
            self.wfile.write(b"not HTTP at all\r\n\r\n")
            return
        self.protocol_version = "HTTP/1.1"
        self.send_response(500 if self.way == "error" else 200)
        if self.way == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif self.way != "unsaid":
            self.send_header("Content-Length", str(len(self.body) + (100 if self.way == "short" else 0)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.way == "chunks":
            self.wfile.write(b"%x\r\n" % len(self.body) + self.body[:50])
        else:
            self.wfile.write(self.body[:-40] if self.way == "unsaid" else self.body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("short", "the download broke off 100 bytes too early; nothing was written, try again"),
        ("chunks", "the download broke off (IncompleteRead("),
        ("unsaid", "not in the expected format"),  # only the bytes that arrived show it
        ("no answer", "the download broke off (Remote end closed connection without response)"),
        ("late", "the download broke off (timed out)"),
        ("garbage", "the download broke off (not HTTP at all)"),
        ("error", "the host answers 500 Internal Server Error; nothing was written"),
        ("long", "more than 0 MiB, which is no table known here; nothing was written"),
    ],
)
def test_downloads_that_fail_leave_what_was_there(capsys, tmp_path, monkeypatch, way, line):
    monkeypatch.setattr(download, "SECONDS", 0.3)
    monkeypatch.setattr(download, "LARGEST_FILE", 100 if way == "long" else download.LARGEST_FILE)
    (tmp_path / "chinchilla.csv").write_text("from an earlier time")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Way", (Broken,), {"way": way})) as server:
        server.hold = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(public_tables, "HOST", f"http://127.0.0.1:{server.server_port}")
        try:
            for folder in (tmp_path, tmp_path / "new"):
                status, out, err = run(capsys, "chinchilla", "--out", folder)
                assert (status, out, err.count("\n")) == (1, "", 1), err
                assert line in err
        finally:
            server.hold.set()
            server.shutdown()
    assert [p.name for p in tmp_path.iterdir()] == ["chinchilla.csv"]
    assert (tmp_path / "chinchilla.csv").read_text() == "from an earlier time"


def test_a_folder_in_the_way_is_one_line(host, capsys, tmp_path):
    (tmp_path / "chinchilla.csv").mkdir()
    status, out, err = run(capsys, "chinchilla", "--out", tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "chinchilla.csv: cannot be written (Is a directory); nothing was changed" in err
    assert [p.name for p in tmp_path.iterdir() if p != host] == ["chinchilla.csv"]


def test_faults_are_one_line(host, capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    status, _, err = run(capsys, "chinchilla", "--out", tmp_path / "file")
    assert (status, err.count("\n")) == (1, 1) and "cannot be written to" in err
    status, _, err = run(capsys, "gopher")
    assert (status, err) == (1, "python -m analysis public: gopher: no such table; use one of chinchilla, quest\n")
    moved = dataclasses.replace(public_tables.SOURCES["quest"], path="elsewhere.json")
    monkeypatch.setitem(public_tables.SOURCES, "quest", moved)
    status, _, err = run(capsys, "quest", "--out", tmp_path)
    assert (status, err.count("\n")) == (1, 1) and "the host answers 404" in err
    assert not list(tmp_path.glob("*.csv"))


def test_no_network_is_one_line(capsys, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(public_tables, "HOST", f"http://127.0.0.1:{free.getsockname()[1]}")  # nobody listens there
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        status, out, err = run(capsys, "quest", "--out", tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "cannot be reached" in err and "needs a network connection" in err
    assert not list(tmp_path.iterdir())


def test_only_the_standard_library_is_loaded():
    check = "import sys, analysis.validation.download; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pandas", "scipy"} & set(loaded)


@pytest.mark.skipif(not DATA.exists(), reason="the public tables are not here")
def test_pinned_values_are_those_of_the_verified_tables():
    points = pd.read_csv(DATA / "chinchilla" / "chinchilla.csv").rename(
        columns={"N": "Model Size", "C": "Training FLOP"}
    )
    made = public_tables.chinchilla(points.drop(columns="D").to_csv(index=False).encode())
    assert public_tables.digest(made) == public_tables.SOURCES["chinchilla"].values
    assert len(made) == public_tables.SOURCES["chinchilla"].rows
    assert [row["D"] for row in made] == points["D"].tolist()
    assert [row["used_in_epoch_fit"] for row in made] == points["used_in_epoch_fit"].tolist()
    runs = pd.read_csv(DATA / "quest" / "quest_runs.csv", dtype={"scheme": str})
    names = {"N": "non_embedding_parameters", "D": "tokens"}
    given = [run | {"args": run} for run in runs.rename(columns=names).to_dict("records")]
    made = public_tables.quest(json.dumps(given).encode())
    assert [row["scheme"] for row in made] == runs["scheme"].tolist()
    assert public_tables.digest(made) == public_tables.digest(made[::-1]) == public_tables.SOURCES["quest"].values
    assert len(made) == public_tables.SOURCES["quest"].rows
