import json
import os
import subprocess
import sys

import pytest
import torch

from scaling.config.from_dict import plain
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, Program, initialize, losses
from scaling.quantization import autocast
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec
from scaling.records.provenance import has_compiler
from scaling.records.run_folder import RunFolder
from scaling.study.jobs import write_stack
from scaling.training import gradients
from scaling.training.distributed import ALONE
from scaling.training.loop import train_stack
from tests.conftest import REPOSITORY, slow

TRAIN = (
    "import json, sys; from scaling.config.run import build_run; from scaling.training import gradients, loop;"
    "gradients.COMPILE_FLOPS = 0;"
    "loop.train_stack([build_run(v) for v in json.load(open(sys.argv[1]))])"
)


def curve(run):
    lines = (RunFolder(run).path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss_train"] for line in lines]


def in_a_process(tmp_path, *runs, **environment):
    path = tmp_path / "stack.json"
    path.write_text(json.dumps([plain(run) for run in runs]))
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(path)], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs g++ and Python.h")
@pytest.mark.parametrize(
    "overrides",
    [
        ["precision.weights=int4"],
        *slow(["precision.weights=int4,precision.activations=int8", "precision.weights=e2m1,seed=1", "seed=2"]),
    ],
    ids=["one", "mixed"],
)
def test_compiled_agrees_over_the_first_steps(make_run, tmp_path, overrides):
    """A stack, compiled, against each model alone in eager mode. Later steps differ by chaos."""
    few = ["data.tokens=1280", "ptq=none"]
    eager = [make_run(*text.split(","), *few) for text in overrides]
    compiled = [make_run(*text.split(","), *few, "runtime.compile=on", "study=compiled") for text in overrides]
    done = in_a_process(tmp_path, *compiled)
    assert done.returncode == 0, done.stderr
    train_stack(eager)
    for a, b in zip(eager, compiled, strict=True):
        assert RunFolder(b).result()["compiled"] and not RunFolder(a).result()["compiled"]
        assert len(curve(a)) == 10 and curve(b) == pytest.approx(curve(a), abs=1e-4)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call", "ignore:.*should not be instantiated")
@pytest.mark.parametrize(
    "precision, dtype",
    slow(("bf16", "bfloat16"), *((name, "float32") for name in ("w4a4kv4", "nvfp4", "quest", "quartet"))),
)
def test_traced_gradients_are_those_of_eager_mode(make_run, precision, dtype):
    """As torch.compile traces them, before any code is generated: torch 2.11 lost those of some custom functions."""
    run = make_run("model.d_model=32", f"precision={precision}")
    weights = initialize(run.model, 9, [0, 1])
    tokens = torch.randint(9, (2, 4, 33), generator=torch.Generator().manual_seed(0))
    of = StackPrecision.of([run.precision] * 2, "cpu")
    torch._dynamo.reset()
    traced = Program(*(torch.compile(f, backend="aot_eager") for f in EAGER))
    found = []
    for program in (EAGER, traced):
        there = {name: w.clone().requires_grad_() for name, w in weights.items()}
        with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
            loss = losses(there, tokens[..., :-1], tokens[..., 1:], run.model, of, program).sum()
        loss.backward()
        found.append({name: w.grad for name, w in there.items()})
    for name, grad in found[0].items():
        assert grad.any()
        torch.testing.assert_close(found[1][name], grad, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs g++ and Python.h")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call", "ignore:.torch.jit.script_method")
def test_blocks_that_do_not_divide_the_width_survive_the_compiler():
    """Compiled, the short block at the end of every row was left out: garbage, and losses that were NaN."""
    quantizer = Quantizer([QuantSpec.of("mxfp4")] * 2)
    for rows, width in ((8, 48), (1, 16)):
        x = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(0))
        torch._dynamo.reset()
        compiled = torch.compile(quantizer.values, dynamic=False)(x)
        assert torch.equal(compiled, quantizer.values(x)) and compiled.shape == x.shape


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs g++ and Python.h")
@pytest.mark.slow
def test_a_compiler_that_fails_costs_one_line(make_run, tmp_path):
    run = make_run("runtime.compile=auto", "data.tokens=1280")
    done = in_a_process(tmp_path, run, CXX="/bin/false", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0
    assert done.stderr.count("torch.compile failed") == 1 and "Traceback" not in done.stderr
    assert RunFolder(run).result()["compiled"] is False
    forced = make_run("runtime.compile=on", "data.tokens=1280", "seed=1")
    done = in_a_process(tmp_path, forced, CXX="/bin/false", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode != 0 and "runtime.compile=on: " in done.stderr


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs g++ and Python.h")
@pytest.mark.slow
def test_a_compiler_that_a_scheduler_ends_is_no_failure(make_run, tmp_path):
    """SLURM sends its signal to all processes of a job, the compiler's too: in eager mode the run would be another."""
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\ntrap '' USR2\nkill -USR2 0\nexit 1\n")
    compiler.chmod(0o755)
    path = write_stack([make_run("runtime.compile=auto", "data.tokens=1280")])
    code = "from scaling.training import gradients; gradients.COMPILE_FLOPS = 0; from scaling.train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, f"+stack={path}"],
        cwd=REPOSITORY,
        env={**os.environ, "CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 130, done.stderr
    assert "torch.compile failed" not in done.stderr and "Traceback" not in done.stderr


def test_short_runs_stay_eager(make_run):
    run = make_run("runtime.compile=auto", "data.tokens=1280")
    assert run.flops < gradients.COMPILE_FLOPS
    train_stack([run])
    assert RunFolder(run).result()["compiled"] is False


def test_without_instructions_bfloat16_stays_eager_unless_asked(make_run, monkeypatch, capfd):
    monkeypatch.setattr(autocast, "BFLOAT16", False)
    monkeypatch.setattr(gradients, "COMPILE_FLOPS", 0)
    compiled = {}
    for wish in ("auto", "on"):
        run = make_run(f"runtime.compile={wish}", "runtime.dtype=bfloat16")
        compiled[wish] = gradients.Gradients([run], torch.device("cpu"), ALONE).compiled
    assert compiled == {"auto": False, "on": True}
    assert capfd.readouterr().err.count("this CPU has no bfloat16 instructions") == 1


def test_autocast_changes_little(make_run):
    half, full = make_run("runtime.dtype=bfloat16"), make_run("runtime.dtype=float32")
    for run in (half, full):
        train_stack([run])
    assert curve(half) != curve(full) and curve(half) == pytest.approx(curve(full), abs=0.02)
