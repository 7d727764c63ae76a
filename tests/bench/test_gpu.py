"""The prepared command for a GPU, in a small form on a CPU: it writes as it goes, goes on, and does what it says."""

import dataclasses
import os
import subprocess
import sys
import tarfile
import time

import numpy as np
import pandas as pd
import pytest

from bench.gpu import cells, machines, study
from bench.gpu.__main__ import main
from bench.gpu.results import ARCHIVE, Results
from scaling.errors import InputError
from tests.conftest import REPOSITORY


def test_lines_survive_a_kill_and_archives_another_machine(tmp_path):
    first = Results(tmp_path / "a", tmp_path / "out")
    first.describe({"device": "x"})
    first.add("tests", {"test": 1})
    (first.runs / "study" / "run").mkdir(parents=True)
    (first.runs / "study" / "run" / "result.json").write_text("{}")
    (first.runs / "study" / "run" / "checkpoint.safetensors").write_text("weights")
    first.add("tests", {"test": 2})
    with open(tmp_path / "a" / "tests.jsonl", "a") as file:
        file.write('{"test": 3')  # killed here
    assert first.lines("tests") == [{"test": 1}, {"test": 2}]

    second = Results(tmp_path / "b")
    second.restore(tmp_path / "out" / ARCHIVE)
    assert second.lines("tests") == [{"test": 1}, {"test": 2}]
    assert (second.runs / "study" / "run" / "result.json").exists()
    assert not (second.runs / "study" / "run" / "checkpoint.safetensors").exists()


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / ARCHIVE, "w:xz") as file:
        file.add(tmp_path / "evil", "../evil2")
    with pytest.raises(tarfile.OutsideDestinationError):
        Results(tmp_path / "in").restore(tmp_path / ARCHIVE)
    assert not (tmp_path / "evil2").exists()


def test_cells_are_measured_once_in_order_and_one_fault_costs_no_other(tmp_path, monkeypatch):
    asked = []

    def cell(name, seconds, failed=None):
        def work(say):
            asked.append(name)
            if failed:
                raise failed
            return {"failed": False}

        return cells.Cell(name=name, seconds=seconds, work=work)

    results, said = Results(tmp_path), []
    found = [cell("a", 1), cell("b", 1, ValueError("no kernel")), cell("c", 1), cell("d", 1e6)]
    monkeypatch.setattr(cells, "cells", lambda device, tiny: found)
    assert cells.run(results, time.monotonic() + 100, "cpu", tiny=True, say=said.append) == 1
    assert asked == ["a", "b", "c"] and said[-1].startswith("d: needs 1000000 s")
    assert [line["failed"] for line in results.lines("throughput")] == [False, True, False]
    assert "ValueError: no kernel" in results.lines("throughput")[1]["note"]
    # What failed is tried again, what was measured is not.
    found[1] = cell("b", 1)
    assert cells.run(results, time.monotonic() + 100, "cpu", tiny=True, say=said.append) == 3
    assert asked == ["a", "b", "c", "b"]


def test_the_study_grows_no_longer_than_its_time():
    stacks = study.stacks(Results(REPOSITORY / "outputs" / "gpu"), "cuda", tiny=False)
    of = [(stack[0].study, f"{stack[0].N / 1e6:.2g}M", len(stack), max(r.steps for r in stack)) for stack in stacks]
    assert of == [
        ("machines", "0.024M", 16, 3906),
        ("gpu_overtraining", "0.78M", 6, 31250),
        ("gpu_overtraining", "5.3M", 6, 31250),
        ("gpu_overtraining", "1.6M", 4, 31250),
        ("gpu_overtraining", "3.2M", 4, 31250),
        ("gpu_overtraining", "1.6M", 2, 62500),
    ]
    # 62 s hold 64M tokens at 2 ms a step, and not at 2.1.
    assert len(study.within(stacks[1], 62.5, 2e-3)) == 6
    assert {run.data.tokens for run in study.within(stacks[1], 62.5, 2.1e-3)} == {8_000_000, 32_000_000}
    # Above 3 ms a step: 64M become 32M, and 5.3M parameters are left out.
    assert {run.data.tokens for run in study.smaller(stacks[1])} == {8_000_000, 32_000_000}
    assert study.smaller(stacks[2]) == []


def test_same_rates_as_on_the_cpu():
    stacks = study.stacks(Results(REPOSITORY / "outputs" / "gpu"), "cuda", tiny=False)
    for stack in stacks:
        rates = {run.optimizer.lr for run in stack}
        assert rates == ({4e-3, 8e-3, 16e-3} if stack[0].N > 5e6 else {8e-3})
        assert {(r.data.batch_tokens, r.optimizer.weight_decay, r.schedule.kind) for r in stack} == {
            (2048, 0.1, "cosine")
        }


def _table(path, shift, spread, seeds=16, sha="a"):
    """Gaps that differ by `shift` in the mean over the seeds, and by `spread` from seed to seed."""
    rows, own = [], np.random.default_rng(0).normal(size=seeds)
    own = shift + spread * (own - own.mean()) / own.std(ddof=1)
    for seed in range(seeds):
        base = {"seed_init": seed, "loss": 1.75 + shift, "data_sha": sha, "eval_sha": sha}
        rows.append(base)
        for bits, gap in ((3, 0.5), (4, 0.1), (5, 0.02), (8, -1e-4)):
            row = {**base, "ptq": "rtn", "format_post": f"int{bits}", "granularity_post": "channel"}
            rows.append({**row, "gap": gap * np.exp(own[seed])})
            rows.append({**row, "granularity_post": "block16", "gap": 9.0})
            rows.append({**row, "ptq": "gptq", "gap": 9.0})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"), [(0.02, 0.1, "agree"), (0.3, 0.1, "differ"), (0.08, 0.3, "not decided")]
)
def test_machines_are_told_apart_where_they_differ(tmp_path, shift, spread, verdict):
    found = machines.compare(_table(tmp_path / "cpu.csv", 0, 0), _table(tmp_path / "gpu.csv", shift, spread))
    assert found.verdict == verdict and found.pairs == 16
    # Student's t with 15 degrees of freedom: 1.753 at 95%
    assert (found.mean, found.loss) == pytest.approx((shift, shift))
    assert (found.high - found.low) / 2 == pytest.approx(1.75305 * spread / 4, rel=1e-5)


def test_machines_with_other_text_are_not_compared(tmp_path):
    with pytest.raises(InputError, match="data_sha is b there and a in"):
        machines.compare(_table(tmp_path / "cpu.csv", 0, 0), _table(tmp_path / "gpu.csv", 0, 0.1, sha="b"))


def test_floor_by_hand():
    way = dataclasses.replace(cells.cells("cpu", tiny=True)[0].work.args[0].ours[0], members=2)
    # qkv, out, gate and up, down, and 256 bytes as the tied head; 16 wide throughout
    weights = 3 * 16 * 16 + 16 * 16 + 2 * 16 * 16 + 16 * 16 + 256 * 16
    widths = (3 * 16 + 16) + (16 + 16) + (2 * 16 + 16) + (16 + 16) + (256 + 16)
    # Of weights, gradients and two moments in float32 both ways; three operands of each matmul in two bytes.
    assert cells.floor(way)["bytes"] == 2 * (8 * 4 * weights + 2 * (3 * weights + 3 * widths * 256))


@pytest.mark.slow
def test_the_command_itself(tmp_path, monkeypatch):
    """Both measuring sections, killed and called again, and what they made brought home."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "TINY": "1",
        "DEVICE": "cpu",
        "OUT": str(tmp_path / "out"),
        "STATE": str(tmp_path / "state"),
        "PACK": str(tmp_path / "pack"),
        "CUDA_VISIBLE_DEVICES": "",
        "SCALING_COMMIT": "abc",
    }

    def call(*sections):
        command = [REPOSITORY / "bench" / "gpu.sh", *sections]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = call("study=0")
    assert done.returncode == 3 and "study: time ran out" in done.stdout, done.stderr
    done = call("study=100")
    assert done.returncode == 0 and "study: complete" in done.stdout, done.stderr
    results = Results(tmp_path / "state")
    assert [(line["study"], line["done"], line["failed"]) for line in results.lines("study")] == [
        ("machines", 2, {}),
        ("gpu_overtraining", 2, {}),
    ]
    with tarfile.open(tmp_path / "out" / ARCHIVE) as file:
        names = file.getnames()
    assert sum(name.endswith("result.json") for name in names) == 4
    assert not any(name.endswith((".safetensors", ".xz")) for name in names)
    monkeypatch.chdir(tmp_path)
    assert main(["bring", str(tmp_path / "out" / ARCHIVE)]) == 0
    for table in ("gpu/machines.csv", "gpu_overtraining/runs.csv"):
        assert pd.read_csv(tmp_path / "results" / table).run_id.nunique() == 2
    assert call("nonsense=3").returncode == 2
    assert call().returncode == 2
