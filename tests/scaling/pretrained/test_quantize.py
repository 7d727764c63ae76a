"""Matrices of a loaded model quantized in place: those that the quantizers give when they are called by hand."""

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from scaling.pretrained.calibration import Statistician, groups_of
from scaling.pretrained.linears import layout_of
from scaling.pretrained.presets import runs_of
from scaling.pretrained.quantize import InPlace, check_fit
from scaling.pretrained.scratch import Scratch
from scaling.ptq.awq import awq
from scaling.ptq.gptq import gptq
from scaling.ptq.rtn import rtn
from scaling.ptq.settings import settings_of
from tests.scaling.pretrained.conftest import tiny

CALIBRATION = np.random.default_rng(1).integers(0, 16, (12, 33))


@pytest.fixture
def in_place(make_job, saved, tmp_path):
    """in_place("llama", ...) -> the model taken apart, its settings, and the same as `InPlace`."""

    def make(family, *overrides):
        run = runs_of(make_job(f"pretrained.path={saved(family)}", *overrides))[0]
        layout = layout_of(tiny(family), 0.9)
        scratch = Scratch(tmp_path / "cache").__enter__()
        return (
            layout,
            settings_of(run),
            InPlace(layout, scratch, lambda: Statistician(layout, run, CALIBRATION, None, scratch)),
        )

    return make


def inputs_of(family: str, change=None) -> dict[str, torch.Tensor]:
    """What enters each matrix on the calibration windows, (tokens, in)."""
    model = tiny(family)
    if change:
        change(model)
    found = {}
    for linear in layout_of(model, 0.9).linears:
        linear.module.register_forward_hook(
            lambda _, x, y, name=linear.name: found.__setitem__(name, x[0].reshape(-1, x[0].shape[-1]))
        )
    model(torch.from_numpy(CALIBRATION[:, :-1]))
    return found


@pytest.mark.parametrize("family", ["llama", "neox", "gpt2"])
def test_matrices_are_those_of_the_quantizers(in_place, family):
    asked = ("ptq.formats=[int3,nvfp4]", "ptq.granularities=[channel,block16]")
    layout, settings, quantizable = in_place(family, "ptq.methods=[rtn,gptq]", *asked)
    inputs = inputs_of(family)
    assert len(settings) == 6
    for setting in settings:
        quantizable.apply(setting)
        fmt, granularity = setting.weights.format.name, setting.weights.granularity
        for linear in layout.linears:
            w, x = quantizable.originals[linear.name], inputs[linear.name]
            wanted = rtn(w, fmt, granularity) if setting.method == "rtn" else gptq(w, x, fmt, granularity)
            # Products of GPTQ's Hessian are summed in another order.
            share = float(((linear.weight - wanted).abs() > 1e-4).float().mean())
            assert share < (1e-9 if setting.method == "rtn" else 0.02), linear.name
    quantizable.restore()
    for (name, p), (_, q) in zip(layout.model.named_parameters(), tiny(family).named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_matrices_with_the_same_inputs_are_scaled_together_by_awq(in_place):
    layout, (setting,), quantizable = in_place("llama", "ptq.methods=[awq]", "ptq.formats=[int3]")
    names = [[linear.name.rpartition(".")[2] for linear in group.linears] for group in groups_of(layout)]
    assert names == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2
    quantizable.apply(setting)
    inputs = inputs_of("llama")
    for group in quantizable.groups:
        w = torch.cat([quantizable.originals[linear.name] for linear in group.linears])
        wanted = awq(w, inputs[group.linears[0].name], "int3")
        found = torch.cat([linear.weight for linear in group.linears])
        assert float(((found - wanted).abs() > 1e-4).float().mean()) < 0.02


def test_sequential_calibration_sees_the_blocks_that_are_quantized_already(in_place):
    layout, (setting,), quantizable = in_place("llama", "ptq=gptq", "ptq.formats=[int3]", "ptq.sequential=true")
    assert setting.key.endswith("/sequential=True") and setting.columns()["sequential"] is True
    quantizable.apply(setting)
    found = {linear.name: linear.weight.clone() for linear in layout.linears}
    first = {linear.name for linear in layout.in_block(0)}

    def first_block_quantized(model):
        for linear in layout_of(model, 0.9).linears:
            if linear.name in first:
                linear.put(found[linear.name])

    for part, inputs in (
        (first, inputs_of("llama")),
        (found.keys() - first, inputs_of("llama", first_block_quantized)),
    ):
        for name in part:
            wanted = gptq(quantizable.originals[name], inputs[name], "int3")
            assert float(((found[name] - wanted).abs() > 1e-4).float().mean()) < 0.02, name
    other = inputs_of("llama")
    late = max(found.keys() - first)
    assert not torch.allclose(found[late], gptq(quantizable.originals[late], other[late], "int3"), atol=1e-4)


def test_matrices_that_are_skipped_stay(in_place):
    asked = ("ptq.methods=[rtn,awq]", "ptq.formats=[int3]", "ptq.skip=['*.layers.0.*','*.v_proj']")
    layout, settings, quantizable = in_place("llama", *asked)
    for setting in settings:
        check_fit(layout, setting)
        quantizable.apply(setting)
        for linear in layout.linears:
            is_left = ".layers.0." in linear.name or "v_proj" in linear.name
            assert torch.equal(linear.weight, quantizable.originals[linear.name]) == is_left
    with pytest.raises(InputError, match=r"ptq.skip\[0\]=\*.qkv: matches none of model.layers.0"):
        check_fit(layout, in_place("llama", "ptq.skip=['*.qkv']")[1][0])


def test_blocks_that_do_not_divide_a_width_are_refused(in_place):
    layout, (setting,), _ = in_place("llama", "ptq.formats=[int4]", "ptq.granularities=[block24]")
    with pytest.raises(InputError, match="block24"):
        check_fit(layout, setting)


def test_a_weight_that_is_not_finite_is_named(in_place, tmp_path):
    layout = layout_of(tiny("llama"), 0.9)
    layout.linears[3].module.weight[0, 0] = float("nan")
    with Scratch(tmp_path) as scratch, pytest.raises(InputError, match=r"o_proj: weight: 1 of"):
        InPlace(layout, scratch, None)
    assert not list(tmp_path.iterdir())
