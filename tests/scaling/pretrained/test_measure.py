"""The command from folders to a table: done, partial, added and refused runs, and what it says of bad input."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from scaling import sweep
from scaling.errors import InputError
from scaling.pretrained import measure, plan
from scaling.pretrained.measure import measure_all
from scaling.pretrained.presets import runs_of
from scaling.records.loaded_run import load_run
from scaling.records.run_folder import RunFolder
from scaling.records.table import collect
from tests.conftest import REPOSITORY
from tests.scaling.pretrained.conftest import SYNTHETIC, tiny


def measured(job):
    runs = runs_of(job)
    return runs, measure_all(runs, job.pretrained)


@pytest.fixture
def series(tmp_path):
    """Three checkpoints of a tiny model whose weights grow."""
    for step in (1, 2, 10):
        model = tiny("llama")
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1 + step / 20)
        model.save_pretrained(tmp_path / f"series/step{step}")
    return f"pretrained.path=[{tmp_path}/series/step*]", "pretrained.tokens_per_step=1000", "pretrained.name=grown"


def test_a_series_becomes_a_table(series, make_job, tmp_path):
    job = make_job(*series, "ptq=all", "ptq.formats=[int3]", "ptq.granularities=[channel]")
    runs, failed = measured(job)
    assert not failed and [run.D for run in runs] == [1000, 2000, 10000]
    assert collect(RunFolder(runs[0]).path.parent, tmp_path / "runs.csv") == 12
    table = pd.read_csv(tmp_path / "runs.csv")
    assert (table.cluster == "grown").all() and set(table.D) == {1000, 2000, 10000}
    assert table.source[0].endswith("series/step1")
    assert (table.N == 18592).all() and (table.N_total == 18592 + 2 * 16 * 32).all()
    base, rows = table[table.ptq.isna()], table[table.ptq.notna()]
    assert base.share_post.isna().all() and rows.share_post.round(4).eq(round(1 - 5 * 32 / 18592, 4)).all()
    assert np.allclose(table.bits_per_byte, table.loss / np.log(2) / table.bytes_per_token)
    assert table[["lr_peak", "seed_init", "weight_decay", "schedule"]].isna().all().all()
    merged = rows.merge(base[["run_id", "loss"]], on="run_id", suffixes=("", "_base"))
    assert np.allclose(merged.gap, merged.loss - merged.loss_base)
    assert (rows.P_post == 3).all() and rows[rows.ptq != "rtn"].calib_tokens.eq(512).all()
    folder = RunFolder.at(RunFolder(runs[0]).path)
    losses, documents = folder.windows(), folder.windows()["documents"]
    assert losses["1000"].shape == documents.shape == (8,)


def test_what_is_done_is_skipped_and_rows_are_added(series, make_job, monkeypatch, capsys):
    runs, _ = measured(make_job(*series, "revisions=[1]"))
    result = (RunFolder(runs[0]).path / "result.json").read_bytes()
    loads = []
    monkeypatch.setattr(measure, "load", lambda *a, load=measure.load: (loads.append(1), load(*a))[1])
    measured(make_job(*series, "revisions=[1]"))
    assert not loads and "0 to measure" in capsys.readouterr().err
    measured(make_job(*series, "revisions=[1]", "ptq.formats=[int4,int5]"))
    assert loads == [1]
    assert [row["format_post"] for row in RunFolder(runs[0]).ptq()] == ["int4", "int5"]
    assert (RunFolder(runs[0]).path / "result.json").read_bytes() == result


def test_an_interrupted_run_goes_on_and_finds_the_same(series, make_job, monkeypatch, tmp_path):
    asked = (*series, "revisions=[2]", "ptq=gptq", "ptq.formats=[int3,int4]")
    whole, _ = measured(make_job(*asked, f"runtime.out={tmp_path / 'whole'}"))
    calls = []

    def killed(*arguments, window_losses=measure.window_losses):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return window_losses(*arguments)

    monkeypatch.setattr(measure, "window_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(make_job(*asked))
    (run,) = runs_of(make_job(*asked))
    assert RunFolder(run).state() == "partial" and len(RunFolder(run).ptq()) == 1
    _, failed = measured(make_job(*asked))
    assert not failed and len(calls) == 4  # the loss of the model as it is was kept
    assert RunFolder(run).ptq() == RunFolder(whole[0]).ptq()


def test_text_that_has_changed_is_refused(series, make_job):
    (run,), _ = measured(make_job(*series, "revisions=[1]"))
    folder = RunFolder(run)
    folder.path.joinpath("result.json").unlink()
    text = folder.path.joinpath("config.yaml").read_text()
    (other,), failed = measured(make_job(*series, "revisions=[1]", "data.seed=5"))
    assert not failed and other.run_id != run.run_id
    config = RunFolder(other).path / "config.yaml"
    assert text.split("data_sha")[1][:30] != config.read_text().split("data_sha")[1][:30]


def test_a_folder_of_another_kind_of_run(series, make_job):
    (run,), _ = measured(make_job(*series, "revisions=[1]"))
    with pytest.raises(InputError, match=r"of .*step1, which others trained; its weights lie there"):
        load_run(RunFolder(run).path)


def test_one_bad_checkpoint_does_not_stop_the_others(series, make_job, tmp_path):
    shutil.rmtree(tmp_path / "series/step2")
    (tmp_path / "series/step2").mkdir()
    tiny("llama").config.save_pretrained(tmp_path / "series/step2")
    runs, failed = measured(make_job(*series))
    assert list(failed) == [runs[1].run_id] and "has no weights (*.safetensors)" in failed[runs[1].run_id]
    assert not RunFolder(runs[1]).path.exists()
    assert [RunFolder(run).state() for run in runs] == ["done", "new", "done"]


def broken(folder, kind):
    """Make of a good checkpoint a bad one."""
    weights = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    if kind == "pickled":
        torch.save(tiny("llama").state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "remote code":
        config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Model"}}
    elif kind == "unknown":
        config |= {"model_type": "mine"}
    elif kind == "larger":
        config |= {"num_hidden_layers": 3}
    elif kind == "damaged":
        (folder / "config.json").write_text("{")
        return
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "overrides", "line"),
    [
        ("pickled", (), "its weights are pickles (pytorch_model.bin)"),
        ("truncated", (), "model.safetensors: truncated or damaged; fetch it again"),
        ("remote code", (), "model_type=mine comes with code of its own, which is not run"),
        ("unknown", (), "model_type=mine: not known to this version of transformers"),
        ("larger", (), "tensors are missing in its files, such as model.layers.2."),
        ("damaged", (), "config.json: damaged"),
        ("", ("runtime.memory_gb=1e-6",), "needs about"),
        (
            "",
            ("data.sequence_length=256", "data.batch_tokens=256", "data.corpus.document_tokens=600"),
            "the model takes",
        ),
        ("", ("data.corpus.alphabet=16",), "the text has token 16, and the model knows 16"),
        ("", ("ptq=gptq", "ptq.calibration_tokens=40"), "ptq.calibration_tokens=40: fewer than the 64 inputs"),
        ("", ("ptq.granularities=[block24]",), "block24: does not divide a width of 32"),
        ("", ("ptq=gptq", "ptq.calibration_tokens=1000000"), "unique training tokens"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(make_job, tmp_path, kind, overrides, line):
    folder = tmp_path / "checkpoint"
    tiny("llama").save_pretrained(folder)
    if kind:
        broken(folder, kind)
    (run,), failed = measured(make_job(f"pretrained.path={folder}", *overrides))
    assert line in failed[run.run_id] and "\n" not in failed[run.run_id]
    assert not RunFolder(run).path.exists()
    assert not list(tmp_path.glob("**/.scratch-*"))


def test_pickles_are_read_where_they_are_asked_for(make_job, tmp_path):
    folder = tmp_path / "checkpoint"
    tiny("llama").save_pretrained(folder)
    asked = ("ptq=none", f"pretrained.path={folder}")
    (run,), _ = measured(make_job(*asked))
    broken(folder, "pickled")
    (again,), failed = measured(make_job(*asked, "pretrained.pickle=true"))
    assert not failed and again.run_id != run.run_id
    assert RunFolder(again).result()["evaluations"] == RunFolder(run).result()["evaluations"]


def test_a_plan_says_what_is_to_be_done_and_does_nothing(series, make_job, tmp_path):
    measured(make_job(*series, "revisions=[1]"))
    job = make_job(*series, "ptq.formats=[int4,int3]")
    lines = list(plan.lines(runs_of(job), job.pretrained))
    assert [line.split()[0] for line in lines[:3]] == ["rows", "new", "new"]
    assert "1 quantizations" in lines[0] and "2 quantizations" in lines[1]
    assert "memory about" in lines[4] and "download 0B" in lines[5]
    assert len(list((tmp_path / "outputs/tiny").iterdir())) == 1


@pytest.mark.slow
def test_the_command_and_its_lines(series, tmp_path):
    def command(*overrides):
        place = (f"runtime.out={tmp_path / 'outputs'}", f"runtime.cache={tmp_path / 'cache'}")
        arguments = [sys.executable, "-m", "scaling.pretrained", *SYNTHETIC, *place, *overrides]
        return subprocess.run(arguments, capture_output=True, text=True, cwd=REPOSITORY, check=False)

    done = command(*series)
    assert done.returncode == 0 and "tiny: done" in done.stdout, done.stderr
    for overrides, line in (
        (("pretrained=pythia-160",), "pretrained=pythia-160: no such choice; use one of"),
        (("pretrained=pythia-160m-dedup",), "pretrained.variant=dedup: no such sibling of pythia-160m; did you mean"),
        (
            ("pretrained=pythia-160m", "revisions=[7]"),
            "revisions[0]=7: no such revision of pythia-160m; the nearest",
        ),
        (("pretrained.least_share=2", *series), "pretrained.least_share=2.0: must be at least 0 and at most 1"),
    ):
        failed = command(*overrides)
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and line in failed.stderr, failed.stderr


def test_status_shows_which_are_done_partial_refused_and_failed(series, make_job, tmp_path, capsys):
    runs, _ = measured(make_job(*series, "ptq.formats=[int3,int4]"))
    partial, damaged = RunFolder(runs[1]), RunFolder(runs[2])
    first = partial.ptq()[:1]
    for name in ("result.json", "ptq.jsonl"):
        (partial.path / name).unlink()
    partial.add_ptq(first)
    (damaged.path / "ptq.jsonl").write_text("{}\n")

    def status():
        sweep.main(["status", "tiny", f"runtime.out={tmp_path / 'outputs'}"])
        return capsys.readouterr().out

    capsys.readouterr()
    out = status()
    assert out.splitlines()[-1] == "3 runs: 1 done, 1 partial, 1 refused"
    assert f"partial {runs[1].run_id}  1 of 2 quantizations" in out
    assert f"refused {runs[2].run_id}  " in out and "ptq.jsonl: damaged" in out
    rows = [[cell.strip() for cell in line.split("│")][1:4] for line in out.splitlines() if "│" in line]
    assert rows == [["18,592", "1,000", "1"], ["18,592", "10,000", "1"], ["", "2,000", "1"]]
    partial.write_error("no such tokenizer\n")
    assert f"failed  {runs[1].run_id}  1 of 2 quantizations; no such tokenizer" in status()
