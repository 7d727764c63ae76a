"""Fake quantization on a card against the same on a CPU, to the bit in eager mode.

Each operation of a quantizer is exact or correctly rounded on both: comparisons, exponent bits, divisions, products,
rounding, integer hashes. Only sums depend on the order in which they are taken. They occur in means (`gaussian`,
`absmean`, `mse`) and in rotations, so that these get values whose sums are exact in float32 in any order, where a
format allows for it, and a stated bound elsewhere.
"""

import pytest
import torch

from scaling.quantization.fake_quantize import Quantizer, fake_quantize
from scaling.quantization.formats import known_names, parse
from scaling.quantization.spec import QuantSpec

pytestmark = pytest.mark.cuda

GRANULARITIES = ("tensor", "channel", "block16")
NAMES = ("int2", "int4", "int16", "e2m1", "e3m0", "e4m3", "nf4", "uint3", "mxfp4", "nvfp4", "ternary", "binary")
RULES = ("absmax", "pow2_floor", "pow2_ceil", "pow2_nearest", "e4m3", "percentile90", "gaussian", "absmean")
SUMS = ("gaussian", "absmean", "mse")


def values(*shape, seed=0):
    """Normal numbers in rows of very different size, one of zeros among them."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    x = x * torch.logspace(-30, 30, shape[-2]).view(-1, 1)
    x[..., shape[-2] // 2, :] = 0
    return x


def dyadic(*shape, seed=0):
    """Multiples of 1/8 between -2 and 2: sums of these, of their squares and of their Hadamard transforms in blocks of
    64 are exact in float32."""
    return torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(seed)) / 8


def rules_of(name):
    return ("absmax",) if parse(name).zero_point else RULES


def same(ours, expected, what):
    """Equal values, NaN equal to NaN."""
    ours = ours.detach().cpu()
    assert ours.dtype == expected.dtype and ours.shape == expected.shape
    differ = ~((ours == expected) | (ours.isnan() & expected.isnan()))
    assert not differ.any(), (
        f"{what}: {int(differ.sum())} of {differ.numel()} values differ; {ours[differ][0].item()!r} on the card, "
        f"{expected[differ][0].item()!r} on a CPU"
    )


def with_gradient(x, device, *args, **more):
    """Quantized x, and the gradient that comes back through it."""
    x = x.to(device).requires_grad_()
    q = fake_quantize(x, *args, **more)
    q.backward(torch.arange(x.numel(), device=device, dtype=x.dtype).view(x.shape))
    return q.detach(), x.grad


@pytest.mark.parametrize("name", known_names())
def test_every_format(card, name):
    """Under its own rule."""
    x = dyadic(32, 64) if parse(name).scale_rule in SUMS else values(32, 64)
    for granularity in GRANULARITIES:
        same(fake_quantize(x.to(card), name, granularity), fake_quantize(x, name, granularity), granularity)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_rounding_and_estimator(card, name):
    for rule in rules_of(name):
        x = (dyadic if rule in SUMS else values)(32, 64, seed=1)
        for granularity in GRANULARITIES:
            for rounding in ("nearest_even", "stochastic"):
                for estimator in ("straight_through", "clipped"):
                    asked = (name, granularity)
                    how = {"scale_rule": rule, "rounding": rounding, "estimator": estimator}
                    ours = with_gradient(x, card, *asked, **how)
                    expected = with_gradient(x, "cpu", *asked, **how)
                    for found, wanted, kind in zip(ours, expected, ("value", "gradient"), strict=True):
                        same(found, wanted, f"{kind} of {granularity}, {how}")


@pytest.mark.parametrize("name", ["int3", "e2m1", "uint3", "nf4"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_least_squared_error(card, name, granularity, report):
    """Errors are sums, and choose among 49 scales: another order may choose another of two that are as good. No group
    may be worse off by more than rounding, and in few may the choice differ."""
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    ours = fake_quantize(x.to(card), name, granularity, scale_rule="mse").cpu()
    expected = fake_quantize(x, name, granularity, scale_rule="mse")
    width = {"tensor": x.numel(), "channel": 128, "block16": 16}[granularity]
    grouped = [v.reshape(-1, width) for v in (x, ours, expected)]
    errors = [(v - grouped[0]).double().square().sum(-1) for v in grouped[1:]]
    torch.testing.assert_close(*errors, rtol=1e-5, atol=0)
    differ = ((grouped[1] - grouped[2]).abs() > 1e-6 * grouped[0].abs().amax(-1, keepdim=True)).any(-1)
    report("share of groups with another scale", differ.double().mean().item())
    assert differ.double().mean() <= 0.01


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_rotations(card, rounding):
    """Exact throughout where scales are powers of two; else but for the sums of rotating back."""
    x = dyadic(32, 64, seed=3)
    for granularity in GRANULARITIES:
        for name, rule in (("mxfp4-hadamard", "auto"), ("int4-hadamard", "pow2_ceil"), ("e2m1-hadamard", "pow2_floor")):
            how = {"scale_rule": rule, "rounding": rounding, "estimator": "clipped"}
            expected = fake_quantize(x, name, granularity, **how)
            same(fake_quantize(x.to(card), name, granularity, **how), expected, f"{name}, {granularity}")
    for name, rule in (("int4-hadamard", "auto"), ("nvfp4-hadamard", "auto"), ("nf4-hadamard", "gaussian")):
        how = {"scale_rule": rule, "rounding": rounding}
        ours, expected = (fake_quantize(x.to(d), name, "channel", **how).cpu() for d in (card, "cpu"))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite(card, name):
    x = dyadic(32, 64, seed=4)
    x[3, 5], x[20, 60] = float("nan"), float("inf")
    for granularity in GRANULARITIES:
        same(fake_quantize(x.to(card), name, granularity), fake_quantize(x, name, granularity), granularity)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(card, dtype):
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(5)).to(dtype)
    for name in ("int4", "e2m1", "mxfp4", "nvfp4", "nf4"):
        same(fake_quantize(x.to(card), name), fake_quantize(x, name), name)


MIXED = ("int3", "bf16", "e2m1", "int8", "e4m3")


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_stacks(card, granularity, rounding):
    """Members of mixed formats in one quantizer, matrices of several parts, and each member alone."""

    def quantizer(names, device):
        return Quantizer([QuantSpec.of(name, granularity, "e4m3", rounding, "clipped") for name in names], device)

    x = values(len(MIXED), 48, 64, seed=6)
    q, mask = quantizer(MIXED, card).rounded(x.to(card), 3)
    expected, expected_mask = quantizer(MIXED, "cpu").rounded(x, 3)
    same(q, expected, "values")
    same(mask, expected_mask, "mask")
    for m, name in enumerate(MIXED):
        alone = quantizer([name], card).values(x[m : m + 1].to(card), 3)
        same(alone[0], expected[m], f"{name} alone")
