"""Numbers at the ends of their dtypes: what is finite stays finite, and nothing is lost that a format could keep."""

import itertools
import math

import pytest
import torch

from scaling.errors import InputError
from scaling.quantization.dtypes import largest_before, saturated
from scaling.quantization.fake_quantize import Quantizer, fake_quantize
from scaling.quantization.formats import parse
from scaling.quantization.scale_rules import NAMED, POWERS, check_rule, scale_rule
from scaling.quantization.spec import QuantSpec

FORMATS = ["int2", "int4", "int8", "int16", "e2m1", "e3m0", "e3m4", "e4m3", "e5m2", "e8m1", "e8m7"]
FORMATS += ["uint2", "uint8", "mxfp4", "mxfp8", "mxint8", "nvfp4", "nf4", "ternary", "binary"]
FORMATS += ["int2-full", "int4-full", "int8-full", "int4-full-rht", "e2m1-rht"]
FORMATS += ["int4-hadamard", "e2m1-hadamard", "mxfp4-hadamard", "nvfp4-hadamard"]
RULES = [*NAMED, "percentile90", "e4m3", "e4m3_single", "e4m3_4over6", "e4m3_single_4over6"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def rules_of(name):
    """The rules that there are for a format."""
    fmt = parse(name)
    if fmt.zero_point:
        return ["absmax", "mse"]
    return [rule for rule in RULES if fmt.max_value == 6 or "4over6" not in rule]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def flushed():
    """A CPU that takes subnormal numbers for zero."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot")
    yield
    torch.set_flush_denormal(False)


# The largest values


def near_the_largest(dtype):
    largest = torch.finfo(dtype).max
    x = torch.rand(6, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    x[0], x[1, ::2], x[2, 3] = 1, -1, 1
    x[3] = x[3].sign()
    x[4, :32] *= 2.0**-8
    return (x.clamp(-1, 1) * largest).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_finite_values_stay_finite(name, dtype):
    x = near_the_largest(dtype)
    assert x.isfinite().all()
    # How a value is rounded does not depend on how many share its scale.
    ways = [
        *((granularity, "nearest_even") for granularity in ("tensor", "channel", "block16")),
        ("channel", "stochastic"),
    ]
    for rule, (granularity, rounding) in itertools.product(rules_of(name), ways):
        q = fake_quantize(x, name, granularity, scale_rule=rule, rounding=rounding)
        assert q.dtype == dtype and q.isfinite().all(), (rule, granularity, rounding)


def test_scales_end_at_the_largest_power_of_two():
    """2^127 is the largest of E8M0 and of float32; 3e38 is 1.76 times that."""
    assert fake_quantize(torch.tensor([[3e38, 1e38]]), "int2", scale_rule="pow2_ceil").tolist() == [[2.0**127] * 2]


@pytest.mark.parametrize(
    "dtype, values, name, rule, expected",
    [
        # step 2^126: 3.5 and 1.2 steps; 4 steps are 2^128.
        (torch.float32, [3e38, 1e38], "int4", "pow2_ceil", [torch.finfo(torch.float32).max, 2.0**126]),
        # step 131,008 / 255, zero at the code 128: both ends are codes, -128 steps are -65,761.
        (torch.float16, [-65504.0, 65504.0], "uint8", "absmax", [-65504.0, 127 * 131008 / 255]),
        # step 256: 250 steps round to 256, which are 65,536.
        (torch.float16, [64000.0, 1000.0], "mxfp8", "pow2_ceil", [65504.0, 1024.0]),
        (torch.float32, [3.4028234e38, 0.0], "e3m4", "absmax", [3.4028234e38, 0.0]),
        (torch.float64, [1e300, -3e299], "int4", "absmax", [1e300, -2e300 / 7]),
        (torch.float64, [1.7e308, 1e307], "int2", "pow2_ceil", [torch.finfo(torch.float64).max, 0.0]),
    ],
)
def test_results_saturate(dtype, values, name, rule, expected):
    q = fake_quantize(torch.tensor([values], dtype=dtype), name, scale_rule=rule)
    tolerance = 4e-7 if dtype in (torch.float32, torch.float64) else 1e-3
    torch.testing.assert_close(q, torch.tensor([expected], dtype=dtype), rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [f for f in FORMATS if f not in ("e8m1", "e8m7", "int16")])
def test_saturated_results_are_those_of_smaller_numbers(name, dtype):
    """Quantized in units of a power of two, in which nothing is near the end of any range, and clamped. Not for formats
    whose scales are at the other end, or where an ulp of the scale is a step of some value."""
    x = near_the_largest(dtype).double()
    unit = 2.0 ** (math.frexp(torch.finfo(dtype).max)[1] - 10)
    for rule in rules_of(name):
        if dtype in (torch.float32, torch.bfloat16) and (rule in POWERS[1:] or rule == "gaussian"):
            continue  # scales, which are float32 as well, end there
        if "single" in rule:
            continue  # whose scales end at 448
        found = fake_quantize(x.to(dtype), name, scale_rule=rule)
        exact = fake_quantize((x / unit).float(), name, scale_rule=rule).double() * unit
        largest = torch.finfo(dtype).max
        expected = exact.clamp(-largest, largest).to(dtype)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6 * largest if parse(name).hadamard else 0)


@pytest.mark.parametrize("power", [200, 1000, -30])
@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "uint4", "nvfp4", "mxfp4", "int4-hadamard"])
def test_float64_follows_its_powers_of_two(name, power):
    x = randn(8, 64).double()
    assert torch.equal(fake_quantize(x * 2.0**power, name), fake_quantize(x, name) * 2.0**power)


def test_one_huge_model_of_a_stack_leaves_the_others_alone():
    quantizer = Quantizer([QuantSpec.of(name) for name in ("int4-hadamard", "bf16", "int8-hadamard")])
    x = randn(3, 4, 64)
    clean = quantizer(x)
    x[0] *= 2.0**125
    found = quantizer(x)
    assert torch.equal(found[1:], clean[1:]) and torch.equal(found[0], clean[0] * 2.0**125)


def test_what_is_unquantized_passes_through():
    quantizer = Quantizer([QuantSpec.of(name, scale_rule="mse") for name in ("bf16", "int4")])
    for dtype in DTYPES:
        x = torch.stack([near_the_largest(dtype)] * 2)
        x[0, 0, :2] = torch.tensor([torch.inf, -torch.inf], dtype=dtype)
        assert torch.equal(quantizer(x)[0], x[0])


@pytest.mark.parametrize("dtype, beyond", [(torch.float16, 65520.0), (torch.bfloat16, 255.5 * 2.0**120)])
def test_the_last_number_before_infinity(dtype, beyond):
    last = largest_before(dtype)
    assert torch.tensor(last).to(dtype).isfinite() and torch.tensor(beyond).to(dtype).isinf()
    assert torch.nextafter(torch.tensor(last), torch.tensor(torch.inf)) == beyond
    values = torch.tensor([last, beyond, -torch.inf, torch.nan])
    largest = torch.finfo(dtype).max
    assert saturated(values, dtype)[:3].tolist() == [largest, largest, -largest] and saturated(values, dtype)[3].isnan()


# The smallest scales


def by_ocp(x, name, powers):
    """OCP Microscaling v1.0, 6.3, in float64: nearest value of the element under the power of two of each block."""
    book = parse(name).codebook().double()
    y = x.double() / powers
    return book[(y[..., None] - book).abs().argmin(-1)] * powers


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "mxfp8", "mxint8"])
def test_all_scales_of_e8m0_are_used(name):
    """Blocks with peaks from 2^-149 up, without ties; scales are 2^(floor(log2 peak) - floor(log2 Q)), from 2^-127."""
    peaks = 2.0 ** torch.arange(-149, -100).double()
    x = (torch.rand(49, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * peaks[:, None]).float()
    x[:, 0] = peaks.float()
    floor = torch.log2(x.double().amax(-1, keepdim=True)).floor() - math.floor(math.log2(parse(name).max_value))
    expected = by_ocp(x, name, torch.exp2(floor.clamp_min(-127)))
    assert (floor < -127).any() and (floor > -127).any() and (floor == -127).any()
    found = fake_quantize(x, name).double()
    near = (found - expected).abs() <= 0
    ties = ((found - x.double()).abs() - (expected - x.double()).abs()).abs() == 0
    assert (near | ties).all()


def test_a_block_with_a_small_peak_keeps_what_ocp_keeps():
    x = torch.tensor([[4, 3, 2, 1.5, 1, 0.5, -6, 0.0] * 4]) * 2.0**-127
    assert torch.equal(fake_quantize(x, "mxfp4"), x)


@pytest.mark.parametrize("rule", ["pow2_floor", "pow2_ceil", "pow2_nearest"])
def test_subnormal_steps_are_rounded_in_the_rules_direction(rule):
    """Of int2, whose step is the peak: 1.3 and 1.5 times 2^-127 lie below and above its geometric middle."""
    for factor, power in ((0.3, -127), (1.0, -127), (1.3, -126 if rule == "pow2_ceil" else -127), (1.5, -127)):
        power = -126 if factor == 1.5 and rule != "pow2_floor" else power
        x = torch.tensor([[factor * 2.0**-127]])
        expected = round(factor * 2.0 ** (-127 - power)) * 2.0**power if rule != "pow2_floor" else 2.0**-127
        assert fake_quantize(x, "int2", scale_rule=rule).item() == (expected if factor != 0.3 else 0.0)


@pytest.mark.parametrize("name", ["e8m0", "e8m1", "e8m3", "e8m7", "e4m3", "int4", "mxfp4", "nvfp4", "nf4", "uint4"])
def test_a_device_that_flushes_subnormal_numbers(name, flushed):
    x = randn(16, 64) * torch.logspace(-3, 3, 16).view(-1, 1)
    x[3], x[5, :32] = 0, 1e-37
    for rule, rounding in itertools.product(rules_of(name), ("nearest_even", "stochastic")):
        found = fake_quantize(x, name, "block32", scale_rule=rule, rounding=rounding)
        torch.set_flush_denormal(False)
        expected = fake_quantize(x, name, "block32", scale_rule=rule, rounding=rounding)
        torch.set_flush_denormal(True)
        assert found.isfinite().all() and (found[3] == 0).all()
        normal = expected.abs() > 2.0**-120
        # Of the formats with eight exponent bits blocks have the scale 2^-127, which is none there.
        assert (name[:2] == "e8" and rule in POWERS) or torch.equal(found[normal], expected[normal]), (rule, rounding)


# Names of scales


@pytest.mark.parametrize("asked", ["e8m0", "E8M0", "e08m0"])
def test_a_power_of_two_is_asked_for_by_how_it_is_chosen(asked):
    with pytest.raises(InputError, match="use pow2_floor or pow2_even or pow2_ceil_peak or pow2_ceil or") as caught:
        check_rule(asked, parse("int4"))
    assert str(caught.value).startswith(f"{asked}: ")
    assert all(scale_rule(rule).stored_bits(parse("int4")) == (8, 0) for rule in POWERS)


@pytest.mark.parametrize(
    "spellings, name",
    [
        (("percentile99.9", "percentile99.90", "percentile099.9", "Percentile99.9"), "percentile99.9"),
        (("e4m3", "E4M3", "e04m3"), "e4m3"),
        (("MSE", "mse", " mse"), "mse"),
        (("auto", "AUTO", "absmax"), "absmax"),
    ],
)
def test_a_rule_has_one_name(spellings, name):
    assert {check_rule(spelled, parse("int4")) for spelled in spellings} == {name}
