"""What rtn, gptq and awq promise of what they return: the input's shape and dtype, finite, and on the layer's inputs
never worse than rtn, by outputs in float64."""

import pytest
import torch

from scaling.errors import InputError
from scaling.ptq.awq import awq
from scaling.ptq.gptq import gptq
from scaling.ptq.rtn import rtn

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
METHODS = {
    "gptq": gptq,
    "gptq, act-order": lambda *asked: gptq(*asked, act_order=True),
    "awq": awq,
    "awq, unclipped": lambda *asked: awq(*asked, clip=False),
}
FORMATS = [("int2", "channel"), ("int4", "tensor"), ("int10", "block16"), ("int12", "channel"), ("e2m1", "block16")]
FORMATS += [("e4m3", "channel"), ("mxfp8", "channel"), ("nvfp4", "channel"), ("nf4", "block16"), ("uint8", "block16")]


def error(q, w, x):
    """Mean squared error of the outputs, in float64, in units of the largest input."""
    unit = x.abs().max().double()
    return ((x.double() / unit) @ (q.double() - w.double()).T).square().sum(1).mean().item()


def correlated(seed, samples=256, width=64):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(width) + 0.4 * torch.randn(width, width, generator=generator)
    return torch.randn(samples, width, generator=generator) @ mixing


def weight(dtype, factor, seed=0):
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(seed)) * factor).to(dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", ["small", "ordinary", "large"])
def test_what_is_returned_is_never_worse_than_rtn(method, dtype, factor):
    """Many bits of a coarse dtype, where the cast is all of the error, and values near the largest."""
    largest = torch.finfo(dtype).max / 5
    factors = {"small": 1e-4, "ordinary": 1.0, "large": min(largest, 6e37)}
    w = weight(dtype, factors[factor])
    assert w.isfinite().all()
    for seed, (name, granularity) in enumerate(FORMATS):
        x = correlated(seed)
        plain, found = rtn(w, name, granularity), METHODS[method](w, x, name, granularity)
        assert found.shape == w.shape and found.dtype == dtype and found.isfinite().all(), name
        assert error(found, w, x) <= error(plain, w, x), name


@pytest.mark.parametrize("method", METHODS)
def test_a_bfloat16_weight_at_ten_bits(method):
    """Where what gptq finds in float32 is better, and is worse once it is bfloat16."""
    w, x = weight(torch.bfloat16, 1.0), correlated(0)
    best = METHODS[method](w.float(), x, "int10", "block16").bfloat16()
    plain, found = rtn(w, "int10", "block16"), METHODS[method](w, x, "int10", "block16")
    assert error(found, w, x) <= min(error(plain, w, x), error(best, w, x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offset, size", [(1e4, 1.0), (1e6, 1.0), (0.0, 1e20), (0.0, 1e37), (0.0, 1e-30), (0.0, 1e-18)])
def test_inputs_of_any_size(method, offset, size):
    """A Hessian in float32 knows nothing of what varies beside a large offset, and squares of 1e20 leave its range."""
    w = weight(torch.float32, 1.0)
    x = correlated(1).double() * torch.logspace(-1, 1, 64).double()
    plain = rtn(w, "int3")
    moved = x + offset
    found = METHODS[method](w, moved * size, "int3")
    assert error(found, w, moved) < error(plain, w, moved) * (1.0 if method == "awq, unclipped" else 0.95)
    if not offset and not method.startswith("awq"):  # AWQ's factors are no smaller than 1e-4
        torch.testing.assert_close(found, METHODS[method](w, x, "int3"), rtol=1e-5, atol=1e-6)


def test_awq_takes_the_best_candidate_beside_an_offset():
    """All candidates by their outputs in float64, without a Hessian."""
    w, x = weight(torch.float32, 1.0), correlated(2).double() + 1e4
    magnitude = x.abs().mean(0)
    tried = []
    for k in range(20):
        s = magnitude ** (k / 20)
        s = (s / (s.max() * s.min()).sqrt()).float()
        tried.append(error(rtn(w * s, "int3") / s, w, x))
    assert error(awq(w, x, "int3", clip=False), w, x) == pytest.approx(min(tried), rel=1e-6)


@pytest.mark.parametrize("method", [gptq, awq])
def test_inputs_whose_squares_leave_float64_are_refused(method):
    x = correlated(3).double()
    x[3, 4] = 1e200
    with pytest.raises(InputError, match=r"inputs: hold 1e\+200; nothing can be chosen"):
        method(weight(torch.float32, 1.0), x, "int4")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 64), (16, 0), (0, 0)])
@pytest.mark.parametrize(
    "name, granularity", [("int4", "channel"), ("int4", "tensor"), ("nf4", "block16"), ("nvfp4", "channel")]
)
def test_empty_weights(shape, dtype, name, granularity):
    w, x = torch.empty(shape, dtype=dtype), torch.ones(10, shape[1])
    for found in (rtn(w, name, granularity), gptq(w, x, name, granularity), awq(w, x, name, granularity)):
        assert found.shape == shape and found.dtype == dtype
    with pytest.raises(InputError, match="no such number format"):
        rtn(w, "int44x")


@pytest.mark.parametrize("method", METHODS)
def test_float64_weights_beyond_float32(method):
    w, x = weight(torch.float64, 1.0), correlated(4)
    found = METHODS[method](w * 2.0**500, x, "int3")
    assert torch.equal(found, METHODS[method](w, x, "int3") * 2.0**500)
    assert error(found * 2.0**-500, w, x) < 0.97 * error(rtn(w, "int3"), w, x)
