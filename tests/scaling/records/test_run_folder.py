import dataclasses
import errno
import json
import os

import numpy as np
import pytest

from scaling.config.from_dict import plain
from scaling.config.run import build_run
from scaling.errors import InputError
from scaling.records.files import replacing
from scaling.records.run_folder import RunFolder, stored_run


def test_the_id_survives_being_stored(make_run):
    run = make_run("precision.weights=int4", "snapshots=[1280]", "data.tokens=6.4e3")
    folder = RunFolder(run)
    folder.open("a", "b")
    assert stored_run(folder.path) == run
    assert build_run(json.loads(json.dumps(plain(run)))).run_id == run.run_id
    assert run.base_run_id == make_run("snapshots=[1280]", "data.tokens=6400").run_id


def test_ptq_rows_replace_their_like(make_run):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    row = {"tokens_seen": 5120, "setting": "rtn/int4/channel/absmax", "gap": 1.0}
    folder.add_ptq([row, {**row, "setting": "rtn/int3/channel/absmax"}])
    folder.add_ptq([{**row, "gap": 2.0}])
    assert [r["gap"] for r in folder.ptq()] == [2.0, 1.0]


def test_windows_are_added_to(make_run):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    folder.add_windows({"1": np.arange(3.0)})
    folder.add_windows({"2": np.ones(3), "1": np.zeros(3)})
    assert folder.windows()["1"].tolist() == [0, 0, 0] and folder.windows()["2"].tolist() == [1, 1, 1]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InputError, match="No space left"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path, old, fresh = tmp_path / "file", tmp_path / ".file.abc", tmp_path / ".file.def"
    for temporary in (old, fresh, tmp_path / ".filed.abc"):
        temporary.touch()
    os.utime(old, (0, 0))
    os.utime(tmp_path / ".filed.abc", (0, 0))
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".file.def", ".filed.abc", "file"]


def test_a_folder_that_cannot_be_written_is_one_line(make_run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    run = make_run(f"runtime.out={tmp_path / 'file'}")
    with pytest.raises(InputError, match="cannot be written to"):
        RunFolder(run).open("a", "b")


def test_a_result_that_does_not_validate_is_not_done(make_run):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    (folder.path / "result.json").write_text('{"schema": 1, "loss": 2.0}')
    assert folder.state() == "new" and folder.result() is None


def test_a_damaged_config_is_one_line(make_run):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    (folder.path / "config.yaml").write_text("run: [")
    with pytest.raises(InputError, match="not the config of a run") as caught:
        folder.state()
    assert "\n" not in str(caught.value)


def test_half_a_last_line_of_metrics_is_forgotten(make_run):
    folder = RunFolder(make_run())
    folder.open("a", "b")
    for tokens in (128, 256, 384):
        folder.log({"tokens": tokens})
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"tokens": 51')
    folder.forget_metrics_after(256)
    assert (folder.path / "metrics.jsonl").read_text() == '{"tokens": 128}\n{"tokens": 256}\n'


def test_dtype_auto_is_resolved_before_it_is_stored(make_run):
    run = make_run("runtime.dtype=auto")
    assert run.runtime.dtype == "float32"
    assert dataclasses.replace(run).run_id == make_run("runtime.dtype=float32").run_id


def test_settings_without_effect_do_not_make_another_run(make_run):
    """A granularity study has one unquantized run to compare with, whatever its quantized parts are scaled by."""
    fine = make_run("precision.activations=int4", "precision.granularity_activations=token")
    assert fine.base_run_id == make_run().run_id == make_run("precision.granularity_kv=token").run_id
    assert fine.run_id != make_run("precision.activations=int4").run_id
