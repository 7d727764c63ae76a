import pytest
import torch

from scaling.errors import InputError
from scaling.ptq.awq import awq
from scaling.ptq.gptq import gptq
from scaling.ptq.rtn import rtn, rtn_layers
from scaling.quantization.fake_quantize import Quantizer, fake_quantize
from scaling.quantization.spec import QuantSpec


@pytest.mark.parametrize("name", ["int4", "mxfp4", "nvfp4", "nf4", "uint3", "e2m1-hadamard"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block8"])
def test_rtn_is_fake_quantization(layer, name, granularity):
    weight, _ = layer
    assert torch.equal(rtn(weight, name, granularity), fake_quantize(weight, name, granularity))


def test_many_layers_and_settings_equal_each_alone(layer):
    """A scale of a whole tensor is that of one matrix, not of the matrices and layers that are stored with it."""
    weight, _ = layer
    layers = torch.stack([weight, weight.flip(0) * 3])
    for granularity, rule in (("tensor", "auto"), ("channel", "mse"), ("block8", "e4m3")):
        quantizer = Quantizer([QuantSpec.of(name, granularity, rule) for name in ("int3", "int5")])
        found = rtn_layers(layers, quantizer, parts=2)
        for k, name in enumerate(["int3", "int5"]):
            for i, both in enumerate(layers):
                pieces = [rtn(piece, name, granularity, scale_rule=rule) for piece in both.chunk(2)]
                assert torch.equal(found[k, i], torch.cat(pieces))


def methods(weight, inputs):
    return {
        "rtn": lambda *a, **k: rtn(weight, *a, **k),
        "gptq": lambda *a, **k: gptq(weight, inputs, *a, **k),
        "awq": lambda *a, **k: awq(weight, inputs, *a, **k),
    }


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_bad_layers_are_refused_in_a_line(layer, method):
    weight, inputs = layer
    run = methods(weight, inputs)[method]
    for call, says in [
        (lambda: run("int44"), "2 to 16 bits"),
        (lambda: run("in4"), "nearest: int4"),
        (lambda: run("int4", "block7"), "block7: does not divide a width of 40"),
        (lambda: run("int4", "row"), "row: no such granularity; use tensor, channel"),
        (lambda: run("int4", scale_rule="best"), "best: no such scale rule; use absmax"),
        (lambda: run("uint4", scale_rule="pow2_ceil"), "pow2_ceil: not for uint4"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
    broken = weight.clone()
    broken[3, 4] = float("nan")
    with pytest.raises(InputError, match="1 of 960 values are not finite"):
        methods(broken, inputs)[method]("int4")
    with pytest.raises(InputError, match=r"expected \(out, in\)"):
        methods(weight[0], inputs)[method]("int4")


@pytest.mark.parametrize("method", [gptq, awq])
def test_bad_inputs_are_refused_in_a_line(layer, method):
    weight, inputs = layer
    with pytest.raises(InputError, match=r"expected \(samples, 40\)"):
        method(weight, inputs[:, 1:], "int4")
    with pytest.raises(InputError, match="no sample"):
        method(weight, inputs[:0], "int4")
    with pytest.raises(InputError, match="1 of 12000 values are not finite"):
        method(weight, inputs.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(torch.inf)), "int4")


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_is_kept(layer, method, dtype):
    weight, inputs = layer
    run = methods(weight.to(dtype), inputs)[method]
    assert run("int4").dtype == dtype
    assert torch.equal(run("bf16"), weight.to(dtype))


def test_a_weight_that_is_not_contiguous(layer):
    weight, inputs = layer
    turned = weight.T.contiguous().T
    for method in ("rtn", "gptq", "awq"):
        ours, theirs = (methods(w, inputs)[method]("int3", "block8") for w in (turned, weight))
        assert torch.equal(ours, theirs)
