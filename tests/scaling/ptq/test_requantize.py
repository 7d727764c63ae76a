import json
import shutil
import subprocess
import sys
import time

import pytest

import scaling.ptq.__main__
from scaling.records.files import replacing
from scaling.records.run_folder import RunFolder
from scaling.records.table import collect
from scaling.training.loop import train_stack

ALL = ("ptq=all", "ptq.formats=[int3,mxfp4]", "ptq.calibration_tokens=512", "ptq.grid=4")


@pytest.fixture
def quantize(monkeypatch, capfd, make_run):
    """quantize("ptq=gptq", ...) -> (exit status, stdout, stderr) of `python -m scaling.ptq` on the test's study."""
    runtime = make_run().runtime

    def run(*arguments):
        place = [f"runtime.out={runtime.out}", f"runtime.cache={runtime.cache}", "runtime.threads=1", "tracking=off"]
        monkeypatch.setattr(sys, "argv", ["ptq", "study=default", *place, *arguments])
        capfd.readouterr()
        status = 0
        try:
            scaling.ptq.__main__.main()
        except SystemExit as end:
            status = 1 if isinstance(end.code, str) else end.code or 0
            print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
        return status, *capfd.readouterr()

    return run


def wandb_leet(folder, *options):
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder)]
    out = subprocess.run(leet, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in ([out] if options else out.splitlines())]


def by_key(folder):
    return {(row["tokens_seen"], row["setting"]): row for row in folder.ptq()}


def test_rows_that_are_added_equal_those_of_training(make_run, quantize):
    """Of the final model and of a snapshot, in every method, without touching what was there."""
    options = ["snapshots=[2560]", "precision.kv=int4"]
    (late,) = [RunFolder(make_run(*options))]
    early = RunFolder(make_run(*options, *ALL, "study=at_once"))
    train_stack([late.run])
    train_stack([early.run])
    before = late.ptq()
    assert len(before) == 2 * 2
    status, _, err = quantize(*ALL)
    assert status == 0, err
    assert "1 finished runs, 2 models to quantize, 16 rows to add" in err
    wanted = by_key(early)
    assert len(wanted) == 2 * 3 * 3  # int3 by channel and in blocks of 16, mxfp4 in its own blocks
    found = by_key(late)
    assert {key: found[key] for key in wanted} == wanted
    assert [found[row["tokens_seen"], row["setting"]] for row in before] == before
    for key in wanted:
        name = "/".join(map(str, key))
        assert (late.windows()[name] == early.windows()[name]).all()
    assert "0 models to quantize" in quantize(*ALL)[2]


def test_the_table_says_how_each_row_was_made(make_run, quantize, tmp_path):
    import pandas as pd

    folder = RunFolder(make_run("ptq=none"))
    train_stack([folder.run])
    formats = ["ptq.activations=[trained,int8]", "ptq.kv=[e4m3]", "ptq.granularity_activations=token"]
    assert quantize(*ALL, *formats)[0] == 0
    collect(folder.path.parent, tmp_path / "runs.csv")
    table = pd.read_csv(tmp_path / "runs.csv")
    rows = table[table.ptq.notna()]
    assert len(rows) == 3 * 3 * 2
    assert set(rows.format_post_kv) == {"e4m3"} and set(rows.P_post_kv) == {8}
    assert (rows.format_post_a == "int8").sum() == 9 and (rows.P_post_a == 8).sum() == 9
    gptq = rows[rows.ptq == "gptq"]
    assert (gptq.damping == 0.01).all() and (gptq.act_order == False).all()  # noqa: E712 - a column
    assert gptq.fallbacks.between(0, 4 * folder.run.model.n_layers).all()
    calibrated = rows[rows.ptq != "rtn"]
    assert (calibrated.calib_tokens == 512).all() and calibrated.calib_sha.str.len().eq(16).all()
    assert rows[rows.ptq == "rtn"].calib_sha.isna().all()
    assert set(rows[rows.format_post == "mxfp4"].granularity_post) == {"block32"}
    assert (rows[rows.format_post == "mxfp4"].short_blocks.notna()).all()


def test_activations_and_kv_cost_what_they_should(make_run, quantize):
    """Quantizing a model that was trained in 16 bits to what another was trained in costs more than in 8 bits."""
    folder = RunFolder(make_run("ptq=none", "data.tokens=25600"))
    train_stack([folder.run])
    status, _, err = quantize("ptq.formats=[int8]", "ptq.activations=[trained,int8,int3]", "ptq.kv=[trained,int2]")
    assert status == 0, err
    gaps = {(row["format_post_a"], row["format_post_kv"]): row["gap"] for row in folder.ptq()}
    assert abs(gaps[None, None]) < 0.01 and abs(gaps["int8", None]) < 0.01
    assert gaps["int3", None] > 5 * abs(gaps["int8", None]) and gaps[None, "int2"] > 5 * abs(gaps[None, None])
    assert gaps["int3", "int2"] > max(gaps["int3", None], gaps[None, "int2"])


def test_which_runs(make_run, quantize):
    runs = [make_run("ptq=none", f"seed={seed}") for seed in (0, 1)]
    train_stack(runs)
    status, _, err = quantize("ptq.formats=[int4]", "runs=*-s1-*")
    assert status == 0 and "1 finished runs" in err
    assert [len(RunFolder(run).ptq()) for run in runs] == [0, 1]


def test_one_bad_run_does_not_stop_the_others(make_run, quantize):
    runs = [make_run("ptq=none", f"seed={seed}") for seed in (0, 1, 2, 3)]
    train_stack(runs)
    damaged, changed, healthy, broken = (RunFolder(run) for run in runs)
    copy = shutil.copytree(healthy.path, healthy.path.with_name("copy"))
    (broken.path / "result.json").write_bytes(b"\xff")
    with replacing(damaged.checkpoint_path) as path:
        path.write_bytes(b"not a checkpoint")
    changed.write_result(changed.result() | {"data_sha": "another"})
    status, _, err = quantize("ptq.formats=[int4]")
    assert status == 1 and "Traceback" not in err
    assert f"{damaged.run.run_id}: {damaged.checkpoint_path}: missing, truncated or damaged" in err
    assert "the corpus has changed since" in err and "4 runs of default not quantized" in err
    assert f"copy: {copy / 'config.yaml'}: is of the run" in err and f"{broken.path / 'result.json'}: damaged" in err
    assert [len(folder.ptq()) for folder in (damaged, changed, healthy)] == [0, 0, 1]


BAD = [
    (["study=nothing"], "study=nothing: no finished run in"),
    (["runs=x*"], "runs=x*: none of the 1 finished runs"),
    (["ptq=gtpq"], "ptq=gtpq: no such choice; use one of all, awq"),
    (["ptq.formats=[in4]"], "ptq.formats[0]=in4: no such number format; nearest: int4"),
    (
        ["ptq.formats=[int4]", "ptq.granularities=[block7]"],
        "ptq.formats[0]=int4: block7: does not divide a width of 16",
    ),
    (["ptq.granularities=[row]"], "ptq.granularities[0]=row: no such granularity; use tensor, channel"),
    (["ptq.scale_rules=[best]"], "ptq.scale_rules[0]=best: no such scale rule; use absmax"),
    (["ptq.activations=[int4,in8]"], "ptq.activations[1]=in8: no such number format; nearest: int8"),
    (["ptq.methods=[best]"], "ptq.methods[0]=best: use one of rtn, gptq, awq"),
    (["ptq=awq", "ptq.formats=[int4-hadamard]"], "ptq.formats[0]=int4-hadamard: not for awq"),
    (["ptq=gptq", "ptq.calibration_tokens=8"], "ptq.calibration_tokens=8: fewer than the"),
    (["ptq=gptq", "ptq.damping=0"], "ptq.damping=0.0: must be above 0"),
    (["ptq.kv=[]"], "ptq.kv=[]: name at least one"),
]


def test_bad_input_is_a_line(make_run, quantize):
    run = make_run("ptq=none")
    train_stack([run])
    for arguments, line in BAD:
        status, _, err = quantize(*arguments)
        assert status == 1 and line in err and "Traceback" not in err, (arguments, err)
        assert RunFolder(run).ptq() == [], arguments


def test_wandb_gets_the_whole_table(make_run, quantize, tmp_path):
    """In the same W&B run, wherever that is, behind its last step; with all that its summary said before."""
    run = make_run("tracking=offline", "tracking.project=mine", "tracking.name='w=bf16'", "tracking.tags=[a]")
    train_stack([run])
    [first] = (RunFolder(run).path.parent / "wandb").glob("offline-run-*")
    [shown] = wandb_leet(first, "--summary")
    before = shown["summary"]
    assert before["perf/tokens_per_second"] > 0 and before["perf/memory_gb"] > 0.01
    assert shown["config"]["bits"] == "w16a16kv16" and shown["config"]["machine"]["cores"] > 0
    time.sleep(1.1)  # folders are named by the second
    status, _, err = quantize("ptq=gptq", "ptq.formats=[int3]", "ptq.calibration_tokens=512", "tracking=offline")
    assert status == 0, err
    folder = RunFolder(run).path.parent
    latest = max((folder / "wandb").glob("offline-run-*"), key=lambda p: p.stat().st_mtime_ns)
    [found] = wandb_leet(latest, "--summary")
    assert (found["run_id"], found["project"]) == (run.run_id, "mine")
    records = wandb_leet(latest)
    opened = next(record["run"] for record in records if record["type"] == "run")
    assert (opened["display_name"], opened["tags"]) == ("w=bf16", ["a"])
    assert '"resume": true' in json.dumps(records), "its upload would replace that of the first file"
    [row] = RunFolder(run).ptq()[-1:]
    assert row["ptq"] == "gptq"
    assert found["summary"]["ptq/gptq/int3-channel-n512/gap"] == pytest.approx(row["gap"], rel=1e-6)
    kept = {name for name in before if name.split("/")[0] in ("train", "val", "ptq", "N", "D")} - {"ptq"}
    assert {"train/loss", "val/loss", "val/loss_se", "ptq/rtn/int4-channel/gap", "N", "D"} <= kept
    assert {name: found["summary"][name] for name in kept} == {name: before[name] for name in kept}
    [step] = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert step["tokens"] == run.D and step["_step"] == run.D + 3
    assert before["tokens"] == run.D and before["_step"] == run.D + 2
    tables = list(latest.glob("files/media/table/ptq*.table.json"))
    values = json.loads(tables[0].read_text())
    settings = [row[values["columns"].index("setting")] for row in values["data"]]
    assert sorted(settings) == sorted(row["setting"] for row in RunFolder(run).ptq()) and len(settings) == 3


def test_help_lists_what_can_be_asked():
    done = subprocess.run([sys.executable, "-m", "scaling.ptq", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "ptq: all, awq" in done.stdout and "calibration_tokens" in done.stdout


def test_rows_of_each_granularity_can_be_told_apart(make_run, quantize, tmp_path):
    import pandas as pd

    folder = RunFolder(make_run("ptq=none"))
    train_stack([folder.run])
    for granularity in ("tensor", "token"):
        asked = ["ptq.activations=[int4]", f"ptq.granularity_activations={granularity}"]
        assert quantize("ptq.formats=[int4]", *asked)[0] == 0
    collect(folder.path.parent, tmp_path / "runs.csv")
    rows = pd.read_csv(tmp_path / "runs.csv").dropna(subset="ptq").set_index("granularity_post_a")
    assert set(rows.index) == {"tensor", "token"} and rows.setting.nunique() == 2
    assert rows.gap["tensor"] != rows.gap["token"]


def test_nothing_to_do_is_said(make_run, quantize):
    train_stack([make_run("ptq=none")])
    assert "0 rows to add; no method or no format was asked for" in quantize("ptq=none")[2]
    assert quantize("ptq.formats=[int4]")[0] == 0
    assert "0 rows to add; all are there already" in quantize("ptq.formats=[int4]")[2]


def test_calibration_beyond_the_corpus_is_refused(make_run, quantize):
    train_stack([make_run("ptq=none")])
    status, _, err = quantize("ptq=gptq", "ptq.formats=[int4]", "ptq.calibration_tokens=1e9")
    assert status == 1 and "ptq.calibration_tokens=1000000000: " in err and "unique training tokens" in err
