import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from scaling.config.run import plain
from scaling.data.batches import Batches
from scaling.data.corpus import Windows
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import initialize
from scaling.ptq.evaluate import evaluate
from scaling.ptq.rtn import rtn
from scaling.records.checkpoint import Checkpoint
from scaling.records.files import with_checksum
from scaling.records.run_folder import RunFolder, snapshot_path
from scaling.records.window_losses import clustered_mean
from scaling.training.loop import train_stack


def trained(*runs):
    assert train_stack(runs) == {}
    return [RunFolder(run) for run in runs]


def elsewhere(run, name):
    """The same run with another place for its files."""
    return dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, out=f"{run.runtime.out}-{name}"))


def assert_same(folder, other):
    """Bit for bit: every loss on every window, every weight, every point of the training curve."""
    ours, theirs = folder.windows(), other.windows()
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    a, b = (Checkpoint.load(f.checkpoint_path) for f in (folder, other))
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    assert (folder.path / "metrics.jsonl").read_text() == (other.path / "metrics.jsonl").read_text()
    assert folder.ptq() == other.ptq()


def test_stacked_equals_alone_bit_for_bit(make_run):
    """Formats, seeds, rates and horizons differ; one leaves early; one was already half done."""
    runs = [
        make_run(),
        make_run("precision.weights=int3", "precision.kv=int4", "seed=1"),
        make_run("precision.weights=e2m1", "precision.activations=int8", "data.tokens=2560", "schedule=linear"),
        make_run("precision.activations=e4m3", "precision.kv=int4", "optimizer.lr=0.01", "optimizer.weight_decay=0"),
        make_run("seed_data=5", "data.tokens=3840", "schedule=constant", "snapshots=[1280]"),
    ]
    together = trained(*runs)
    for run, folder in zip(runs, together, strict=True):
        assert_same(folder, trained(elsewhere(run, "alone"))[0])


PROGRAMS = {
    "mxfp4": ["mxfp4"],
    "quest": ["int3-hadamard", "e2m1-hadamard"],
    "quartet": ["mxfp4-hadamard"],
    "nvfp4": ["nvfp4"],
    "gradients8": ["int4", "bf16"],
    "bitnet": ["ternary"],
    "w4a4kv4": ["int4-full", "int8"],
}
MORE = {
    "w4a4kv4": [
        *("precision.granularity_weights=block4x16", "precision.granularity_keys=channel_block8"),
        *("precision.granularity_kv=token", "precision.skip=[*.down]", "precision.kv=int3-full"),
    ]
}


@pytest.mark.parametrize("precision", PROGRAMS)
def test_every_kind_of_program_gives_the_same_alone(make_run, precision):
    """Rotations, stochastic rounding and backward operands of their own included; members differ in what they may."""
    weights = PROGRAMS[precision]
    common = [f"precision={precision}", "data.tokens=1280", "ptq=none", *MORE.get(precision, ())]
    runs = [make_run(*common, f"seed={i}", f"optimizer.lr={(i + 1) * 1e-3}") for i in range(2)]
    if precision in MORE:
        runs = [make_run(*common, f"precision.weights={name}") for name in weights]
    if precision in ("quest", "gradients8"):
        runs += [make_run(*common, f"precision.weights={name}") for name in weights]
    together = trained(*runs)
    for run, folder in zip(runs, together, strict=True):
        assert_same(folder, trained(elsewhere(run, "alone"))[0])


@pytest.mark.parametrize("precision", ["bf16", "w4a4kv4", "quartet", "nvfp4", "head4", "embedding4", "q4"])
def test_evaluation_quantizes_as_training_does(make_run, corpus_cache, precision):
    """The first training loss, from before any update, is what evaluation says of that batch and those weights."""
    run = make_run(f"precision={precision}", "precision.rounding=stochastic", "ptq=none", "data.tokens=640")
    (folder,) = trained(run)
    first = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[0])
    corpus = prepare(run.data, corpus_cache)
    batch = Batches(corpus, run.data.sequence_length, run.batch_size).at(0, run.seed_data)
    windows = Windows(tokens=batch, documents=np.arange(len(batch)), sha="")
    weights = initialize(run.model, corpus.vocab_size, [run.seed_init])
    of = StackPrecision.of([run.precision], "cpu")
    found = evaluate(weights, windows, run.model, of, run.batch_size, torch.float32)
    assert first["loss_train"] == pytest.approx(found.mean(), rel=1e-6)


def test_killed_and_resumed_equals_never_stopped(make_run):
    """A real SIGKILL in the middle of a stack of two, then the same command again."""
    runs = [
        make_run("data.tokens=12800", "snapshots=[2560]", "runtime.checkpoint_seconds=0"),
        make_run("data.tokens=12800", "precision.weights=int4", "seed=3", "runtime.checkpoint_seconds=0"),
    ]
    stack = Path(runs[0].runtime.out) / "stack.json"
    stack.parent.mkdir(parents=True)
    stack.write_text(json.dumps([plain(run) for run in runs]))
    code = (
        "import json, sys; from scaling.config.run import build_run; from scaling.training.loop import train_stack;"
        "train_stack([build_run(v) for v in json.load(open(sys.argv[1]))])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(stack)], stderr=subprocess.DEVNULL)
    folders = [RunFolder(run) for run in runs]
    curve = folders[1].path / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not curve.exists() or curve.read_text().count("\n") < 30):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [folder.state() for folder in folders] == ["partial", "partial"]
    trained(*runs)
    for run, folder in zip(runs, folders, strict=True):
        assert folder.state() == "done"
        assert_same(folder, trained(elsewhere(run, "whole"))[0])


def test_sigterm_leaves_a_checkpoint(make_run):
    run = make_run("data.tokens=2000000", "data.repeat=true", "runtime.checkpoint_seconds=1e9")
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    with pytest.raises(KeyboardInterrupt):
        train_stack([run])
    folder = RunFolder(run)
    assert folder.state() == "partial"
    assert Checkpoint.load(folder.checkpoint_path).step > 0


def test_a_branch_equals_the_run_that_never_branched(make_run):
    trunk = make_run("schedule=constant", "snapshots=[2560]")
    trained(trunk)
    wsd = ("schedule=wsd", "data.tokens=3840", "schedule.decay_tokens=1280")
    branch = make_run(*wsd, f"branch.parent={trunk.run_id}", "branch.tokens=2560")
    (folder,) = trained(branch)
    (whole,) = trained(make_run(*wsd))
    assert (folder.windows()["3840"] == whole.windows()["3840"]).all()
    result = folder.result()
    assert (result["parent_id"], result["trunk_id"]) == (trunk.run_id, trunk.run_id)
    assert whole.result()["trunk_id"] == whole.run.run_id
    first = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["tokens"] > 2560


def test_a_missing_parent_fails_alone(make_run):
    orphan, healthy = make_run("branch.parent=nobody", "branch.tokens=1280"), make_run()
    failures = train_stack([orphan, healthy])
    assert list(failures) == [orphan.run_id] and "nobody" in str(failures[orphan.run_id])
    assert RunFolder(healthy).state() == "done" and RunFolder(orphan).state() == "new"


def test_a_diverging_member_does_not_touch_another(make_run, capsys):
    wild = make_run("optimizer.lr=1e30", "optimizer.clip=1e30", "seed=1", "data.tokens=25600")
    calm = make_run("data.tokens=25600")
    folders = trained(wild, calm)
    result = folders[0].result()
    assert result["diverged"] and result["evaluations"] == [] and result["skipped_updates"] >= 100
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert said.startswith(f"{wild.run_id}: diverged, after 100 steps without a finite gradient, at ")
    assert_same(folders[1], trained(elsewhere(calm, "alone"))[0])


def test_steps_are_recorded_only_on_a_gpu(make_run):
    wanted = make_run("runtime.cuda_graph=on", "runtime.device=cpu")
    with pytest.raises(InputError, match=r"^runtime.cuda_graph=on: .* and this is cpu; use off or auto$"):
        train_stack([wanted])
    assert not RunFolder(wanted).path.exists() or RunFolder(wanted).state() == "new"
    (folder,) = trained(elsewhere(make_run("runtime.cuda_graph=auto"), "auto"))
    assert_same(folder, trained(make_run())[0])


def test_snapshot_is_the_model_on_the_way(make_run):
    run = make_run("schedule=constant", "snapshots=[2560]")
    (folder,) = trained(run)
    (short,) = trained(make_run("schedule=constant", "data.tokens=2560"))
    assert (folder.windows()["2560"] == short.windows()["2560"]).all()
    assert [e["tokens_seen"] for e in folder.result()["evaluations"]] == [2560, 5120]
    assert {row["tokens_seen"] for row in folder.ptq()} == {2560, 5120}
    state = Checkpoint.load(snapshot_path(folder.path, 2560))
    assert state.step == 20 and state.first


def test_an_average_is_the_mean_of_the_last_weights(make_run, corpus_cache):
    """Of the weights behind steps 37 to 40, which a run at the same rate keeps as snapshots."""
    at = [4736, 4864, 4992, 5120]
    (trunk,) = trained(make_run("schedule=constant", f"snapshots={at}"))
    (folder,) = trained(make_run("schedule=average", "schedule.decay_tokens=512", "snapshots=[4992]"))
    kept = [Checkpoint.load(snapshot_path(trunk.path, tokens)).weights for tokens in at]
    mean = {name: torch.stack([weights[name] for weights in kept]).double().mean(0) for name in kept[0]}
    found = Checkpoint.load(folder.checkpoint_path)
    assert found.step == 40 and not found.first and not found.mean
    for name, expected in mean.items():
        torch.testing.assert_close(found.weights[name].double(), expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(found.weights[name], kept[-1][name])
    run = folder.run
    windows = prepare(run.data, corpus_cache).windows(run.data.eval_windows, run.data.sequence_length)
    weights = {name: w[None] for name, w in found.weights.items()}
    precision = StackPrecision.of([run.precision], torch.device("cpu"))
    losses = evaluate(weights, windows, run.model, precision, run.batch_size, torch.float32)
    assert (folder.windows()["5120"] == losses[0]).all()
    assert (folder.windows()["4992"] == trunk.windows()["4992"]).all()  # on the way it is the weights themselves


def test_an_average_that_was_killed_before_its_result_ends_the_same(make_run):
    (folder,) = trained(make_run("schedule=average", "schedule.decay_tokens=512"))
    before, result = folder.windows(), folder.result()
    (folder.path / "result.json").unlink()
    trained(folder.run)
    assert folder.result()["evaluations"] == result["evaluations"]
    assert all((folder.windows()[name] == before[name]).all() for name in before)


def test_a_branch_can_average(make_run):
    trunk = make_run("schedule=constant", "snapshots=[2560]")
    average = ("schedule=average", "data.tokens=3840", "schedule.decay_tokens=1280")
    trained(trunk)
    branch, whole = trained(
        make_run(*average, f"branch.parent={trunk.run_id}", "branch.tokens=2560"), make_run(*average)
    )
    assert (branch.windows()["3840"] == whole.windows()["3840"]).all()


def test_ptq_rows_are_the_losses_of_rounded_weights(make_run, corpus_cache):
    """Quantized by the public function, weight by weight, and evaluated apart."""
    run = make_run("precision.kv=int4", "ptq.formats=[int3,e2m1]", "ptq.granularities=[channel,block16]")
    (folder,) = trained(run)
    corpus = prepare(run.data, corpus_cache)
    windows = corpus.windows(run.data.eval_windows, run.data.sequence_length)
    weights = Checkpoint.load(folder.checkpoint_path).weights
    rows = {(row["format_post"], row["granularity_post"]): row for row in folder.ptq()}
    assert len(rows) == 4
    base = folder.windows()[str(run.D)]
    for (name, granularity), row in rows.items():
        rounded = {k: (rtn(w, name, granularity) if "layers" in k else w)[None] for k, w in weights.items()}
        precision = StackPrecision.of([dataclasses.replace(run.precision, weights="bf16")], "cpu")
        losses = evaluate(rounded, windows, run.model, precision, run.batch_size, torch.float32)[0]
        assert row["loss"] == pytest.approx(losses.mean(), rel=1e-6)
        assert (row["gap"], row["gap_se"]) == pytest.approx(clustered_mean(losses - base, windows.documents))


def test_quantizing_to_the_training_format_changes_nothing(make_run):
    (folder,) = trained(make_run("precision.weights=int4"))
    (row,) = [row for row in folder.ptq() if row["format_post"] == "int4"]
    assert row["gap"] == 0


def test_training_learns_the_source(make_run):
    """Far below the uniform loss and not below what the source allows."""
    run = make_run("data.tokens=51200")
    (folder,) = trained(run)
    (evaluation,) = folder.result()["evaluations"]
    corpus = prepare(run.data, Path(run.runtime.cache))
    assert corpus.manifest["entropy_rate_nats"] - 3 * evaluation["loss_se"] < evaluation["loss"] < 0.97 * 2.08


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_one_line_and_stays(make_run, damage):
    run = make_run("snapshots=[2560]")
    (folder,) = trained(run)
    (folder.path / "result.json").unlink()
    path = folder.checkpoint_path
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 0x10
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    kept = path.read_bytes()
    failures = train_stack([run])
    assert "truncated or damaged" in str(failures[run.run_id]) and str(path) in str(failures[run.run_id])
    assert "\n" not in str(failures[run.run_id]) and path.read_bytes() == kept
    path.unlink()
    trained(run)


def test_a_folder_with_another_config_is_refused(make_run):
    run = make_run()
    (folder,) = trained(run)
    path = folder.path / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    stored["run"]["optimizer"]["lr"] = 0.5
    path.write_text(yaml.safe_dump(stored))
    with pytest.raises(InputError, match="its checksum is another"):
        folder.state()
    del stored["sha256"]  # as in folders of earlier versions
    path.write_text(yaml.safe_dump(stored))
    with pytest.raises(InputError, match="is of the run"):
        folder.state()


def test_a_run_started_on_other_tokens_is_refused(make_run):
    run = make_run()
    (folder,) = trained(run)
    (folder.path / "result.json").unlink()
    path = folder.path / "config.yaml"
    stored = {**yaml.safe_load(path.read_text()), "data_sha": "another"}
    del stored["sha256"]
    path.write_text(yaml.safe_dump(with_checksum(stored)))
    assert "the corpus has changed" in str(train_stack([run])[run.run_id])


def test_more_tokens_than_there_are(make_run):
    run = make_run("data.tokens=1e9")
    assert "data.repeat=true" in str(train_stack([run])[run.run_id])
    repeated = make_run("data.tokens=128000", "data.repeat=true")
    trained(repeated)
