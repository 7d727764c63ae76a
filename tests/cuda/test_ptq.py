"""Quantization after training: a card against a CPU, and each method against rounding to nearest.

`rtn` agrees to the bit. GPTQ corrects later columns by the errors of earlier ones, in float64, so that a value next to
a tie may send the rest of its row another way, to an error that is about as large; AWQ chooses among candidates by
their errors in float32, and of two that are as good either will do. What is compared is the error of the layer's
outputs: of GPTQ to 1%, of AWQ to 0.1%. (Sums in another order, on a CPU, change the first by 3e-8 and the second not at
all.)
"""

import pytest
import torch

from scaling.ptq.awq import awq
from scaling.ptq.gptq import gptq
from scaling.ptq.rtn import rtn

pytestmark = pytest.mark.cuda

NAMES = ("int2", "int4", "e2m1", "nf4", "uint3", "mxfp4", "nvfp4", "int3-hadamard")
GRANULARITIES = ("tensor", "channel", "block16")


@pytest.fixture(scope="module")
def layer(card):
    """A weight and inputs whose channels are correlated and differ in size, as in trained models."""
    rows, columns, samples = (96, 128, 1024) if card.type == "cuda" else (16, 64, 256)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator)
    mixing = torch.eye(columns) + 0.1 * torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(samples, columns, generator=generator) @ mixing
    return weight, inputs * torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]


@pytest.fixture(scope="module")
def error(layer):
    """error(q): mean squared error of the layer's outputs, in float64 on a CPU."""
    weight, inputs = layer

    def mean_error(q):
        return (inputs.double() @ (q.detach().cpu().double() - weight.double()).T).square().sum(1).mean().item()

    return mean_error


@pytest.mark.parametrize("name", NAMES)
def test_rtn_to_the_bit(card, layer, name):
    weight, _ = layer
    for granularity in GRANULARITIES:
        ours, expected = rtn(weight.to(card), name, granularity).cpu(), rtn(weight, name, granularity)
        if name.endswith("hadamard"):  # rotated by sums, whose order differs: a value next to a tie may go either way
            assert ((ours - expected).abs() > 1e-5).float().mean() < 0.01
        else:
            assert torch.equal(ours, expected), granularity


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gptq(card, layer, error, report, name, granularity):
    weight, inputs = layer
    plain = error(rtn(weight, name, granularity))
    for act_order in (False, True):
        q = gptq(weight.to(card), inputs.to(card), name, granularity, act_order=act_order)
        expected = gptq(weight, inputs, name, granularity, act_order=act_order)
        same = ((q.cpu() - expected).abs().amax(1) < 1e-5).float().mean().item()
        report("rows that are the same, and ratio of errors", (same, error(q) / error(expected)))
        assert error(q) <= plain * (1 + 1e-6)
        assert error(q) == pytest.approx(error(expected), rel=0.01)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_awq(card, layer, error, report, name, granularity):
    weight, inputs = layer
    plain = error(rtn(weight, name, granularity))
    for clip in (False, True):
        q = awq(weight.to(card), inputs.to(card), name, granularity, clip=clip)
        expected = awq(weight, inputs, name, granularity, clip=clip)
        report("ratio of errors", error(q) / error(expected))
        assert error(q) <= plain * (1 + 1e-6)
        assert error(q) == pytest.approx(error(expected), rel=0.001)
