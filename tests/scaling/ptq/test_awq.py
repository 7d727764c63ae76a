import itertools

import pytest
import torch

from scaling.errors import InputError
from scaling.ptq.awq import awq, awq_layers
from scaling.ptq.layers import statistics
from scaling.ptq.rtn import rtn
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec


def reference(weight, inputs, name, granularity, clip):
    """arXiv 2306.00978, Eq. 4 and 5, by trying everything: exponents for the layer, then shares for each row."""
    x, w = inputs.double(), weight.double()

    def errors(q):
        return (x @ (q.double() - w).T).square().mean(0)

    def quantized(alpha, share):
        s = x.abs().mean(0) ** alpha
        s = (s / (s.max() * s.min()).sqrt()).float()
        scaled = weight * s
        groups = scaled.view(len(weight), -1, 40 if granularity == "channel" else int(granularity[5:]))
        bound = groups.abs().amax(-1, keepdim=True) * share
        return rtn(groups.clamp(-bound, bound).view_as(weight), name, granularity) / s

    alpha = min((k / 20 for k in range(20)), key=lambda a: errors(quantized(a, 1.0)).sum().item())
    tried = [quantized(alpha, 1 - k / 20) for k in range(11 if clip else 1)]
    best = torch.stack([errors(q) for q in tried]).argmin(0)
    return torch.stack([tried[k][row] for row, k in enumerate(best.tolist())])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name, granularity", [*itertools.product(["int3", "e2m1", "nf4"], ["channel", "block8"])])
def test_finds_what_trying_everything_finds(layer, name, granularity, clip):
    weight, inputs = layer
    ours = awq(weight, inputs, name, granularity, clip=clip)
    torch.testing.assert_close(ours, reference(weight, inputs, name, granularity, clip), rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours, rtn(weight, name, granularity))


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block8", "block20"])
@pytest.mark.parametrize(
    "name", ["int2", "int3", "int8", "e2m1", "e4m3", "mxfp4", "nvfp4", "nf4", "uint3", "ternary", "binary"]
)
def test_never_worse_than_rtn(layer, objective, name, granularity):
    weight, inputs = layer
    plain = objective(rtn(weight, name, granularity))
    unclipped, clipped = (objective(awq(weight, inputs, name, granularity, clip=clip)) for clip in (False, True))
    assert clipped <= unclipped * (1 + 1e-6) <= plain * (1 + 2e-6)


def test_keeps_the_channels_that_matter(layer):
    """With one input that dwarfs the others, its weights come out nearly exact."""
    weight, inputs = layer
    inputs = inputs.clone()
    inputs[:, 7] *= 1e3
    error = (awq(weight, inputs, "int3") - weight).abs().mean(0)
    assert error[7] < 0.2 * error.mean()


def test_one_pass_over_layers_and_formats_equals_each_alone(layer):
    weight, inputs = layer
    layers, all_inputs = torch.stack([weight, weight.flip(0)]), [inputs, inputs.flip(1)]
    found = statistics(torch.stack(all_inputs))
    for granularity in ("channel", "tensor", "block8"):
        quantizer = Quantizer([QuantSpec.of(name, granularity) for name in ("int2", "e2m1")])
        together = awq_layers(layers, found, quantizer, 1, clip=True, grid=20)
        for k, name in enumerate(["int2", "e2m1"]):
            for i in range(2):
                alone = awq(layers[i], all_inputs[i], name, granularity)
                torch.testing.assert_close(together[k, i], alone, rtol=1e-5, atol=1e-6)


def test_an_input_that_is_always_zero(layer):
    weight, inputs = layer
    inputs = inputs.clone()
    inputs[:, 3] = 0
    assert awq(weight, inputs, "int4").isfinite().all()
    assert torch.equal(awq(weight, inputs * 0, "int4"), rtn(weight, "int4"))


def test_what_cannot_be_done_is_said(layer):
    weight, inputs = layer
    with pytest.raises(InputError, match="int4-hadamard: awq scales channels, which a rotation mixes"):
        awq(weight, inputs, "int4-hadamard")
    with pytest.raises(InputError, match="grid=0: must be a whole number, at least 1"):
        awq(weight, inputs, "int4", grid=0)
