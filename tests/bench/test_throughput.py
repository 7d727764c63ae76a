"""What the rows of throughput count, and that their groups name what they refer to."""

import pytest
import torch

from bench import throughput
from bench.gpu import cells
from bench.training import run_of
from scaling.config.model import ModelConfig


def test_model_flops_by_hand():
    run = run_of("model=2k", *throughput.SMALL)
    # qkv, out, gate and up, down, and 256 bytes as the tied head
    weights = 3 * 16 * 16 + 16 * 16 + 2 * 16 * 16 + 16 * 16 + 256 * 16
    assert (run.model.d_model, run.model.width_ff, run.model.n_layers) == (16, 16, 1)
    assert throughput.model_flops(run, 3) == 6 * weights * 4096 * 3


@pytest.mark.parametrize("tied", [True, False])
def test_matmuls_are_those_of_every_parameter_but_the_embedding(tied, monkeypatch):
    run = run_of("model=2k", f"model.tied_head={str(tied).lower()}", "data.batch_tokens=128")
    flops = []

    def counting(a, b, out):
        flops.append(2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2])
        assert out.shape == (a.shape[0], a.shape[1], b.shape[2]) and out.dtype == torch.bfloat16

    step = throughput.matmuls(run, 2, torch.bfloat16)
    step()
    monkeypatch.setattr(torch, "bmm", counting)
    step()
    counts = ModelConfig.count(run.model, 256)
    multiplied = counts["N_total"] - (0 if tied else counts["embedding"])
    assert sum(flops) == 6 * multiplied * 128 * 2 == throughput.model_flops(run, 2)
    assert len(flops) == 3 * (4 + 1)


def _groups(kind):
    if kind == "gpu":
        steps = [cell.work.args[0] for cell in cells.cells("cuda", tiny=False) if len(cell.work.args) == 2]
        assert len(steps) == 11
        return [found.group("cell") for found in steps]
    return list(throughput.groups("cpu", kind))


@pytest.mark.parametrize("kind", ["quick", "normal", "all", "gpu"])
def test_groups_name_what_they_refer_to(kind):
    for group in _groups(kind):
        names = [variant.name for variant in group.variants]
        assert len(set(names)) == len(names)
        for variant in group.variants:
            assert variant.peak is None or variant.peak in names
            assert {against.name for against in variant.against} <= set(names) - {variant.name}


def test_every_goal_is_that_of_one_row():
    for (model, *_), times in throughput.GOALS.items():
        (group,) = (g for g in throughput.groups("cpu", "normal") if g.name == f"throughput/{model}")
        assert f">= {times:g}x" in [a.goal for v in group.variants for a in v.against]
    rows = [a for g in throughput.groups("cpu", "normal") for v in g.variants for a in v.against if a.goal]
    assert len(rows) == len(throughput.GOALS)


def test_every_prediction_for_a_card_is_that_of_one_row():
    rows = [(v.name, str(a), a.goal) for g in _groups("gpu") for v in g.variants for a in v.against if a.goal]
    assert rows == [
        ("64 models, compiled", "64 x plain PyTorch, eager", ">= 20x"),
        ("1 model, compiled", "matmuls", ">= 0.45x"),
        ("16 models, compiled", "16 x plain PyTorch, eager", ">= 6x"),
        ("1 model, w4a4kv4, compiled", "1 model, compiled", "<= 1.15"),
        ("1 model, nvfp4, compiled", "1 model, compiled", "<= 1.15"),
    ]


def test_stacks_are_compared_with_as_many_peers():
    (group,) = throughput.groups("cpu", "quick")
    for variant in group.variants:
        for against in variant.against:
            count = int(variant.name.partition(" ")[0])
            assert against.times == (1 if "w4a4kv4" in variant.name and against.name.startswith("1 m") else count)
