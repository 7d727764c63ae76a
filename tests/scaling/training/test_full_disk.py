"""A disk that fills up while a run is trained: one line, nothing half written, and the next call goes on."""

from pathlib import Path

import pytest

from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.records.run_folder import RunFolder
from scaling.train import train
from tests.scaling.training.test_loop import assert_same, elsewhere, trained


@pytest.mark.parametrize("size", [0, 3_000])
def test_a_run_goes_on_when_there_is_room_again(make_run, full_above, size):
    run = make_run("snapshots=[1280]")
    prepare(run.data, Path(run.runtime.cache))
    with full_above(size):
        failed = train([run])
    line = str(failed[run.run_id])
    assert "File too large" in line and "\n" not in line and "raceback" not in line
    assert RunFolder(run).result() is None
    assert train([run]) == {}
    assert_same(RunFolder(run), trained(elsewhere(run, "whole"))[0])


def test_a_curve_that_cannot_be_written_is_one_line(make_run, full_above):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    folder.log({"tokens": 128})
    with full_above(20), pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(File too large\)"):
        folder.log({"tokens": 256})
    folder.forget_metrics_after(128)
    assert (folder.path / "metrics.jsonl").read_text() == '{"tokens": 128}\n'
