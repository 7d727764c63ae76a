"""Training on a card: against a CPU, a stack against its members, and a run that was stopped against one that was not.

To the bit only where the same kernels run on the same shapes and in a fixed order. cuBLAS may choose another kernel for
another number of models, and other devices add in another order: there losses agree to some ulps at first, and drift
apart as small differences grow. So curves are compared over the first ten steps of runs in float32 (matmuls in TF32 are
off by default):

    unquantized       1e-4   5e-7
    quantized         0.1    0.02   a value next to a tie rounds the other way, by a whole step of its format
    stochastic        0.4    0.15   noise is a hash of values, so that the last bit of one draws it anew

The second number is what came of computing every matmul of a CPU in float64 and its norms as a card does, the largest
of three seeds. First losses, before any update, and evaluations over many windows are closer.

What makes a run repeat to the bit, at some cost of speed: `torch.use_deterministic_algorithms(True)`, which cuBLAS
wants `CUBLAS_WORKSPACE_CONFIG=:4096:8` for, set before the process starts. Without it the backward pass of
FlashAttention and of the memory-efficient kernels may add in any order; `torch.backends.cuda.enable_flash_sdp(False)`,
`enable_mem_efficient_sdp(False)` and `enable_cudnn_sdp(False)` leave the kernel that is written out, which is slower.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder
from scaling.training.loop import train_stack
from tests.conftest import REPOSITORY, slow
from tests.cuda.runs import apart, assert_same, curve, elsewhere, trained, write

pytestmark = pytest.mark.cuda

TEN = ("data.tokens=1280", "ptq=none", "tracking.points_per_doubling=100")
LARGER = ("model=24k", "data.sequence_length=128", "data.batch_tokens=2048", "data.tokens=20480", *TEN[1:])
UNQUANTIZED, QUANTIZED, STOCHASTIC = 1e-4, 0.1, 0.4
PRESETS = {
    "bf16": UNQUANTIZED,
    "w4a4kv4": QUANTIZED,
    "fp8": QUANTIZED,
    "mxfp4": QUANTIZED,
    "nvfp4": QUANTIZED,
    "bitnet": QUANTIZED,
    "quest": QUANTIZED,
    "embedding4": QUANTIZED,
    "head4": QUANTIZED,
    "gradients8": STOCHASTIC,
    "quartet": STOCHASTIC,
}


QUICK = ["w4a4kv4", "quartet"]


@pytest.mark.parametrize("precision", [*QUICK, *slow(*(name for name in PRESETS if name not in QUICK))])
def test_a_card_trains_what_a_cpu_trains(card_run, precision, report):
    run = card_run(f"precision={precision}", *LARGER)
    (ours,), (theirs,) = trained(run), trained(elsewhere(run, "cpu", device="cpu"))
    report("largest difference of ten losses", apart(ours, theirs))
    first, expected = next(iter(curve(ours).values())), next(iter(curve(theirs).values()))
    after = [folder.result()["evaluations"][-1]["loss"] for folder in (ours, theirs)]
    report("difference of the first loss, of the evaluation", (first - expected, after[0] - after[1]))
    assert first == pytest.approx(expected, abs=PRESETS[precision] / 10)
    assert apart(ours, theirs) < PRESETS[precision]
    assert after[0] == pytest.approx(after[1], abs=PRESETS[precision] / 2)


@pytest.mark.slow
def test_half_precision_changes_little(card, make_run):
    """What a card computes in by default, on tensor cores and by FlashAttention."""
    half, full = (
        make_run(f"runtime.device={card.type}", f"runtime.dtype={name}", *LARGER) for name in ("bfloat16", "float32")
    )
    folders = [trained(run)[0] for run in (half, full)]
    assert 0 < apart(*folders) < 0.02


@pytest.mark.parametrize("precision", ["w4a4kv4", *slow("bf16", "quartet")])
def test_a_recorded_step_is_the_same_step(card, card_run, deterministic, precision):
    """`runtime.cuda_graph`, to the bit. One member leaves early; a CPU records nothing."""
    runs = [card_run(f"precision={precision}", f"data.tokens={tokens}") for tokens in (1920, 2560, 5120)]
    recorded = [elsewhere(run, "recorded", cuda_graph="on" if card.type == "cuda" else "auto") for run in runs]
    for ours, theirs in zip(trained(*recorded), trained(*runs), strict=True):
        assert_same(ours, theirs)


def test_a_stack_trains_what_each_member_trains_alone(card_run, report):
    """Formats, seeds, rates and horizons differ, and one member leaves early."""
    cases = [
        ((), UNQUANTIZED),
        (("seed=1", "optimizer.lr=0.01"), UNQUANTIZED),
        (("precision.weights=int4", "precision.kv=int4", "seed=2"), QUANTIZED),
        (("precision.weights=e2m1", "precision.activations=int8"), QUANTIZED),
        (("seed_data=5", "data.tokens=2560"), UNQUANTIZED),
    ]
    runs = [card_run(*TEN, *overrides) for overrides, _ in cases]
    for run, folder, (_, bound) in zip(runs, trained(*runs), cases, strict=True):
        (alone,) = trained(elsewhere(run, "alone"))
        report("largest difference", apart(folder, alone))
        assert apart(folder, alone) < bound


@pytest.mark.parametrize("dtype", ["float32", *slow("bfloat16")])
def test_runs_repeat_to_the_bit(card_run, deterministic, dtype):
    runs = [card_run(*LARGER, f"runtime.dtype={dtype}", f"precision.weights={name}") for name in ("bf16", "int4")]
    runs = [*runs, card_run(*LARGER, f"runtime.dtype={dtype}", "precision.activations=int8", "precision.kv=int8")]
    first = trained(*runs)
    for folder, again in zip(first, trained(*(elsewhere(run, "again") for run in runs)), strict=True):
        assert_same(folder, again)


@pytest.mark.slow
def test_how_far_repeats_differ_by_default(card_run, report):
    """Nothing is promised without the switches: what came of it is only reported."""
    for dtype in ("float32", "bfloat16"):
        run = card_run(*LARGER, f"runtime.dtype={dtype}")
        (first,), (again,) = trained(run), trained(elsewhere(run, "again"))
        report(f"largest difference of repeats in {dtype}", apart(first, again))
        assert apart(first, again) < 1e-2


@pytest.mark.parametrize("precision", ["w4a4kv4", "quartet"])
def test_resumed_equals_never_interrupted(card_run, deterministic, monkeypatch, precision):
    """Stopped by a signal in the middle, and called again."""
    runs = [card_run(*TEN, f"precision={precision}", f"seed={seed}") for seed in (0, 1)]
    log = RunFolder.log

    def stopping(folder, values):
        log(folder, values)
        if values["tokens"] == 640:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "log", stopping)
        train_stack(runs)
    folders = [RunFolder(run) for run in runs]
    assert [folder.state() for folder in folders] == ["partial", "partial"]
    assert {Checkpoint.load(folder.checkpoint_path).step for folder in folders} == {6}  # points are written behind it
    trained(*runs)
    for folder, whole in zip(folders, trained(*(elsewhere(run, "whole") for run in runs)), strict=True):
        assert_same(folder, whole)


@pytest.mark.slow
def test_killed_and_run_again_equals_never_stopped(card_run, deterministic, tmp_path):
    """SIGKILL of a real process in the middle."""
    run = card_run("data.tokens=25600", "precision.weights=int4", "runtime.checkpoint_seconds=0", "ptq=none")
    write(tmp_path / "runs.json", run)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cuda.runs", str(tmp_path / "runs.json")],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = RunFolder(run)
    path, deadline = folder.path / "metrics.jsonl", time.monotonic() + 60
    while not path.exists() or path.read_text().count("\n") < 40:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert folder.state() == "partial"
    trained(run)
    assert_same(folder, trained(elsewhere(run, "whole"))[0])


def test_a_fork_equals_runs_that_never_shared(card_run, deterministic):
    """Two horizons with one trunk: to the bit while they are one copy, and close once they are two in a stack."""
    common = ("schedule=wsd", "schedule.decay_tokens=640", "ptq=none", "tracking.points_per_doubling=100")
    runs = [card_run(*common, f"data.tokens={tokens}") for tokens in (1920, 2560)]
    for run, folder in zip(runs, trained(*runs), strict=True):
        shared = folder.result()["shared_steps"] * run.data.batch_tokens
        assert shared >= 1280
        (alone,) = trained(elsewhere(run, "alone"))
        ours, theirs = curve(folder), curve(alone)
        assert len(ours) >= 15 and ours.keys() == theirs.keys()
        for tokens in ours:
            assert ours[tokens] == pytest.approx(theirs[tokens], abs=0 if tokens <= shared else UNQUANTIZED)


def test_a_diverging_member_touches_no_other(card_run):
    """Its gradients are not finite, and its updates are skipped."""
    runs = [card_run(*TEN), card_run(*TEN, "seed=1", "optimizer.lr=1e30", "optimizer.clip=1e30")]
    calm, wild = trained(*runs)
    assert wild.result()["skipped_updates"] > 0
    assert apart(calm, trained(elsewhere(runs[0], "alone"))[0]) < UNQUANTIZED
