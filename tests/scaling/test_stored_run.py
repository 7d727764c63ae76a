"""A run folder of the first schema, made by commit 698062b: later code still has to read it.

fixtures/stored holds it beside the table that was collected from it.
"""

import io
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

import scaling.ptq.__main__
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder
from scaling.records.table import collect

STORED = Path(__file__).parent / "fixtures" / "stored"
RUN_ID = "n1.8k-d5.1k-cosine-w8a8kv8-s0-20bdfecd7c"


@pytest.fixture
def study(tmp_path):
    return Path(shutil.copytree(STORED, tmp_path / "outputs" / "stored"))


def table(path):
    return pd.read_csv(io.StringIO(path.read_text()), dtype=str, keep_default_na=False)


def test_it_loads_under_the_same_id():
    folder = RunFolder.at(STORED / RUN_ID)
    assert folder.run.run_id == RUN_ID
    assert folder.state() == "done"
    assert Checkpoint.load(folder.checkpoint_path).step == 40
    half = Checkpoint.load(folder.path / "snapshots" / "2560.safetensors")
    assert half.step == 20 and half.first.keys() == half.second.keys() == half.weights.keys()


def test_its_rows_are_those_that_were_collected(study, tmp_path):
    assert collect(study, tmp_path / "runs.csv") == 10
    now, then = table(tmp_path / "runs.csv"), table(STORED / "runs.csv")
    assert [now[column].tolist() for column in then] == [then[column].tolist() for column in then]


def test_it_can_be_quantized_again(study, corpus_cache, monkeypatch):
    folder = RunFolder.at(study / RUN_ID)
    before, kept = folder.ptq(), folder.windows()
    place = [f"runtime.out={study.parent}", f"runtime.cache={corpus_cache}", "runtime.threads=1", "runtime.device=cpu"]
    monkeypatch.setattr(sys, "argv", ["ptq", "study=stored", "tracking=off", *place, "ptq.formats=[int8]"])
    scaling.ptq.__main__.main()
    after = folder.ptq()
    assert after[: len(before)] == before
    assert [(row["tokens_seen"], row["format_post"]) for row in after[len(before) :]] == [
        (2560, "int8"),
        (5120, "int8"),
    ]
    assert all(abs(row["gap"]) < 1e-3 for row in after[len(before) :])  # it was trained in int8
    assert all((folder.windows()[name] == values).all() for name, values in kept.items())
