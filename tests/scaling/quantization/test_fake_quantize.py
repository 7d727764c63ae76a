from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scaling.errors import InputError
from scaling.quantization.fake_quantize import Quantizer, fake_quantize
from scaling.quantization.formats import parse
from scaling.quantization.spec import QuantSpec

FORMATS = ["int2", "int3", "int4", "int8", "int16", "e2m0", "e2m1", "e3m0", "e3m1", "e4m3", "e5m2", "e8m7", "nf4"]
EVERY = [*FORMATS, "uint2", "uint4", "uint8", "mxfp4", "mxfp6", "mxfp8", "mxint8", "nvfp4", "ternary", "binary"]
RULES = ["absmax", "pow2_floor", "pow2_ceil", "pow2_nearest", "e4m3", "mse", "gaussian", "percentile90", "absmean"]
GRANULARITIES = ["tensor", "channel", "token", "block16"]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rules_of(name):
    return ["absmax", "mse"] if parse(name).zero_point else RULES


def quantizer(names, granularity="channel", **more):
    return Quantizer([QuantSpec.of(name, granularity, **more) for name in names])


# Integers against the paper and against torchao


@pytest.mark.parametrize("granularity, axes", [("tensor", (0, 1)), ("channel", (1,)), ("token", (1,))])
def test_integers_follow_the_paper_for_each_granularity(granularity, axes):
    x = randn(6, 32, seed=2)
    scale = x.abs().amax(axes, keepdim=True) / 7
    expected = (x / scale).round() * scale
    assert torch.equal(fake_quantize(x, "int4", granularity), expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity, block", [("tensor", (64, 128)), ("channel", (1, 128)), ("block32", (1, 32))])
def test_symmetric_integers_agree_with_torchao(bits, granularity, block):
    """torchao's own range has one code more, -2^(b-1); here its operations are given the symmetric range."""
    ao = pytest.importorskip("torchao.quantization.quant_primitives")
    x, largest = randn(64, 128, seed=3), 2 ** (bits - 1) - 1
    bounds = {"quant_min": -largest, "quant_max": largest}
    scale, zero = ao.choose_qparams_affine(x, ao.MappingType.SYMMETRIC, block, torch.int8, **bounds)
    theirs = ao._fake_quantize_affine(x, block, scale, torch.zeros_like(zero), torch.int32, **bounds)
    assert torch.equal(fake_quantize(x, f"int{bits}", granularity), theirs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_points_agree_with_torchao(bits):
    """Its codes are shifted by 2^(b-1), which leaves the values as they are. To an ulp of the scale."""
    qat = pytest.importorskip("torchao.quantization.qat")
    x = randn(64, 128, seed=4) + torch.linspace(-3, 3, 64).view(-1, 1)
    theirs = qat.IntxFakeQuantizer(
        qat.IntxFakeQuantizeConfig(getattr(torch, f"int{bits}"), "per_token", is_symmetric=False)
    )(x)
    torch.testing.assert_close(fake_quantize(x, f"uint{bits}", "token"), theirs, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name, dtype", [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_floats_agree_with_torchao(name, dtype, granularity, kind):
    """torchao divides the peak in the dtype of x, here that is done in float32: peaks are 1.75 times powers of two."""
    qat = pytest.importorskip("torchao.quantization.qat")
    from torchao.quantization.granularity import PerRow, PerTensor

    x = (randn(64, 128, seed=5) * torch.logspace(-3, 3, 64).view(-1, 1)).to(kind)
    x[:, 3] = (1.75 * x.abs().amax(-1).log2().ceil().exp2()).to(kind)
    by = PerTensor() if granularity == "tensor" else PerRow()
    theirs = qat.fake_quantizer.Float8FakeQuantizer(qat.Float8FakeQuantizeConfig(dtype, by))(x)
    assert torch.equal(fake_quantize(x, name, granularity), theirs)


def test_rtn_takes_a_plain_weight():
    from scaling.ptq.rtn import rtn

    w = randn(8, 32, seed=8)
    for granularity in ("tensor", "channel", "block8"):
        assert torch.equal(rtn(w, "int4", granularity), fake_quantize(w, "int4", granularity))


# Granularity and blocks


def test_blocks_have_scales_of_their_own():
    x = torch.tensor([[1.0, 0.4, 100.0, 40.0]])
    assert fake_quantize(x, "int2", "block2").tolist() == [[1.0, 0.0, 100.0, 0.0]]
    assert fake_quantize(x, "int2", "channel").tolist() == [[0.0, 0.0, 100.0, 0.0]]
    with pytest.raises(InputError, match="block3: does not divide a width of 4") as caught:
        fake_quantize(x, "int2", "block3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6", "mxfp8", "mxint8", "nvfp4", "mxfp4-hadamard"])
@pytest.mark.parametrize("rule", ["auto", "absmax", "mse", "pow2_ceil"])
@pytest.mark.parametrize("width", [2, 20, 40, 100])
def test_own_blocks_fill_up_short_rows_with_zeros(name, rule, width):
    from scaling.quantization.hadamard import rotate

    x = randn(5, width, seed=6)
    q = fake_quantize(x, name, "tensor", scale_rule=rule)
    plain = name.removesuffix("-hadamard")
    filled = torch.zeros(5, -(-width // 32) * 32)
    filled[:, :width] = x if plain == name else rotate(x[None])[0]
    expected = fake_quantize(filled, plain, scale_rule=rule)[:, :width].contiguous()
    assert torch.equal(q, expected if plain == name else rotate(expected[None])[0])
    assert q.is_contiguous()


@pytest.mark.parametrize("rule", ["gaussian", "absmean", "percentile90"])
def test_rules_that_would_count_the_zeros_are_refused(rule):
    fake_quantize(randn(2, 64), "mxfp4", scale_rule=rule)
    with pytest.raises(InputError, match=f"{rule}: a width of 40 leaves a short block of 32") as caught:
        fake_quantize(randn(2, 40), "mxfp4", scale_rule=rule)
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_exist():
    for wrong, line in (
        ({"fmt": "in4"}, "fmt=in4: no such number format; nearest: int4"),
        ({"granularity": "row"}, "granularity=row: no such granularity; use tensor, channel, token, or block<k>"),
        ({"scale_rule": "best"}, "scale_rule=best: no such scale rule; use absmax"),
        ({"rounding": "up"}, "rounding=up: no such rounding; use nearest_even or stochastic"),
        ({"estimator": "ste"}, "estimator=ste: no such estimator; use straight_through or clipped"),
    ):
        with pytest.raises(InputError) as caught:
            fake_quantize(randn(2, 4), **{"fmt": "int4", **wrong})
        assert str(caught.value).startswith(line)
    with pytest.raises(InputError, match="it has to be floating point"):
        fake_quantize(torch.ones(2, 4, dtype=torch.int64), "int4")


# Shapes, strides, dtypes


@pytest.mark.parametrize("name", EVERY)
def test_shapes_strides_and_dtypes(name):
    x = randn(6, 10, 32, seed=7)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        q = fake_quantize(x.to(dtype), name)
        assert q.shape == x.shape and q.dtype == dtype
        assert torch.equal(q, fake_quantize(x.to(dtype).float(), name).to(dtype))  # one rounding more, the cast
    for view in (x.transpose(0, 2), x[:, ::3, ::2], x[:, :1].expand(-1, 4, -1)):
        for rounding in ("nearest_even", "stochastic"):
            q = fake_quantize(view, name, rounding=rounding)
            assert torch.equal(q, fake_quantize(view.contiguous(), name, rounding=rounding))
    for shape in ((), (0,), (3, 0), (0, 32), (1,), (32,), (1, 1, 1, 32), (4, 1)):
        q = fake_quantize(torch.ones(shape), name)
        assert q.shape == shape and q.isfinite().all()


@pytest.mark.parametrize(
    "name", ["int4", "e2m1", "nf4", "uint4", "ternary", "binary", "mxfp4", "nvfp4", "int4-hadamard"]
)
def test_strides_change_no_bit(name):
    """Not even of sums, which depend on their order, at widths that vector instructions do not divide."""
    for rows, columns in ((37, 128), (128, 208)):
        turned = randn(columns, rows, seed=8).T
        for rule in rules_of(name):
            for granularity in ("tensor", "channel", "block16"):
                for rounding in ("nearest_even", "stochastic"):
                    more = {"scale_rule": rule, "rounding": rounding}
                    try:
                        expected = fake_quantize(turned.contiguous(), name, granularity, **more)
                    except InputError as fault:
                        assert "short block" in str(fault)
                        continue
                    assert torch.equal(fake_quantize(turned, name, granularity, **more), expected), (rule, granularity)


def test_bf16_format_is_the_identity():
    x = randn(3, 5)
    assert torch.equal(fake_quantize(x, "bf16"), x) and fake_quantize(x, "bf16").data_ptr() == x.data_ptr()
    assert fake_quantize(x, "bf16", scale_rule="mse", rounding="stochastic").data_ptr() == x.data_ptr()


def test_bf16_input_keeps_its_dtype_and_rounds_once():
    x = randn(4, 64, seed=7).bfloat16()
    q = fake_quantize(x, "int4")
    assert q.dtype == torch.bfloat16
    assert torch.equal(q, fake_quantize(x.float(), "int4").bfloat16())


@pytest.mark.parametrize("name", EVERY)
def test_input_is_left_alone(name):
    x = randn(4, 32, seed=9)
    for rule in rules_of(name):
        for granularity in ("tensor", "channel"):
            before = x.clone()
            fake_quantize(x, name, granularity, scale_rule=rule, estimator="clipped")
            assert torch.equal(x, before)


def test_values_are_those_of_the_call_without_a_gradient():
    x = randn(1, 4, 32, seed=10).requires_grad_()
    for name, rule in (("int4", "absmax"), ("e2m1", "mse"), ("mxfp4", "auto"), ("bf16", "auto")):
        q = quantizer([name], scale_rule=rule)
        values = q.values(x)
        assert torch.equal(values, q(x)) and (name == "bf16" or not values.requires_grad)


# Properties of any tensor

ordinary = st.floats(-1e10, 1e10, width=32, allow_subnormal=False)
tiny = st.floats(-(2.0**-120), 2.0**-120, width=32)
huge = st.floats(-(2.0**126), 2.0**126, width=32)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9)
prove = settings(deadline=None, max_examples=20, derandomize=True)


def tensors(*elements):
    return st.one_of([hnp.arrays(np.float32, shapes, elements=e) for e in elements]).map(torch.from_numpy)


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("ternary", "binary")])
@prove
@given(x=tensors(ordinary, tiny, huge, st.sampled_from([0.0, -1.0, 1.0, 2.5, 2.0**-127, 2.0**100])))
def test_absmax_properties(name, x):
    q = fake_quantize(x, name, scale_rule="absmax")
    assert q.shape == x.shape and q.isfinite().all()
    assert (q[x == 0] == 0).all()
    for group, found in zip(x.reshape(-1, x.shape[-1]), q.reshape(-1, x.shape[-1]), strict=True):
        holds(name, group, found)  # rows are shorter than any block
    if not parse(name).zero_point:
        assert name == "nf4" or torch.equal(fake_quantize(-x, name, scale_rule="absmax"), -q)
        again = fake_quantize(q, name, scale_rule="absmax")
        torch.testing.assert_close(again, q, rtol=5e-7, atol=2.0**-149)


@cache
def book_of(name):
    return parse(name).codebook().double()


def holds(name, x, q):
    """Of one group: how many values there are, that order is kept, and that no other value would have been nearer."""
    fmt, book = parse(name), book_of(name)
    assert q.unique().numel() <= len(book)
    order = x.argsort()
    assert (q[order].diff() >= 0).all()
    x, q = x.double(), q.double()
    span = x.clamp_min(0).max() - x.clamp_max(0).min() if fmt.zero_point else x.abs().max()
    step = max(span.item() / fmt.max_value, 2.0**-126)
    if fmt.zero_point:
        book = book + round(min(x.min().item(), 0.0) / step)
    above = torch.searchsorted(book, x / step).clamp(1, len(book) - 1)
    best = torch.minimum((x - book[above] * step).abs(), (x - book[above - 1] * step).abs())
    assert ((q - x).abs() <= best + 5e-7 * x.abs().max() + 2.0**-149).all()


@pytest.mark.parametrize("name", [n for n in EVERY if n != "e8m7"])
@prove
@given(x=tensors(st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)), k=st.integers(-40, 40))
def test_powers_of_two_pass_through(name, x, k):
    for rule in [r for r in rules_of(name) if r in ("absmax", "pow2_floor", "pow2_ceil", "pow2_nearest")]:
        q, scaled = (fake_quantize(y, name, scale_rule=rule) for y in (x, x * 2.0**k))
        rows = (x != 0).any(-1, keepdim=True)  # of zeros, binary makes the smallest numbers
        assert torch.equal(scaled * rows, q * 2.0**k * rows)


@pytest.mark.parametrize("name", EVERY)
def test_groups_of_one_and_of_zeros(name):
    x = randn(8, 1, seed=11)
    q = fake_quantize(x, name, scale_rule="absmax")
    if name != "e8m7":  # its scales would lie below 2^-126
        torch.testing.assert_close(q, x, rtol=3e-7, atol=0)
    if name != "binary":
        for rule in rules_of(name):
            x = randn(4, 32, seed=12)
            x[2] = 0
            assert (fake_quantize(x, name, scale_rule=rule)[2] == 0).all()


# NaN and infinity


NAN, INF = float("nan"), float("inf")
ROTATED = ["int4-hadamard", "mxfp4-hadamard"]


@pytest.mark.parametrize(
    "name, bad",
    [
        *((name, (NAN, INF, -INF)) for name in [*EVERY, *ROTATED]),
        *((name, (bad,)) for name in ("int4", "nf4", "nvfp4", *ROTATED) for bad in (NAN, INF, -INF)),
    ],
)
def test_a_value_that_is_not_finite_takes_its_group_and_nothing_else(name, bad):
    """Scales that are rounded to a format take the whole tensor along, rotation does the rows that it mixes.

    Each bad value lies in a model of its own, the first and the last model are clean. All at once for every format; one
    at a time for one format of each way to a scale."""
    models = len(bad) + 2
    for rule in rules_of(name):
        for granularity in ("tensor", "channel", "block32"):
            for rounding in ("nearest_even", "stochastic"):
                quantize = quantizer([name] * models, granularity, scale_rule=rule, rounding=rounding)
                x = randn(models, 4, 64, seed=13)
                clean = quantize(x)
                x[1:-1, 2, 5] = torch.tensor(bad)
                lost = torch.zeros_like(x, dtype=torch.bool)
                lost[1:-1, 2, :32] = True
                if (granularity == "channel" and parse(name).block is None) or parse(name).hadamard:
                    lost[1:-1, 2] = True
                if (granularity == "tensor" and parse(name).block is None) or rule == "e4m3":
                    lost[1:-1] = True
                if parse(name).block == 16 and rule != "e4m3":
                    lost[1:-1, 2, 16:32] = False
                q = quantize(x)
                assert q[lost].isnan().all() and torch.equal(q[~lost], clean[~lost]), (rule, granularity)


# Stacks

MIXED = [
    (["int3", "e2m1", "bf16", "int8", "e4m3"], ["auto", *RULES]),
    (["int3-hadamard", "e2m1-hadamard", "bf16", "int8-hadamard"], ["auto", *RULES]),
    (["int4", "bf16", "int2", "int16"], ["auto", "mse"]),
    (["nf4", "bf16", "binary"], RULES),
    (["uint2", "uint8", "bf16", "uint3"], ["auto", "mse"]),
    (["mxfp4", "bf16", "mxfp8", "mxint8"], ["auto", *RULES]),
    (["nvfp4", "bf16", "nvfp4"], ["auto", "mse"]),
    (["ternary", "bf16", "ternary"], ["auto"]),
]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("names, rules", MIXED)
def test_a_member_is_quantized_as_if_alone(names, rules, granularity):
    x = randn(len(names), 6, 64, seed=14) * torch.logspace(-2, 2, 6).view(-1, 1)
    for rule in rules:
        for rounding in ("nearest_even", "stochastic"):
            for parts in (1, 3):
                more = {"scale_rule": rule, "rounding": rounding}
                together = quantizer(names, granularity, **more)(x, parts)
                for m, name in enumerate(names):
                    alone = quantizer([name], granularity, **more)(x[m : m + 1], parts)[0]
                    assert torch.equal(together[m], alone), (rule, rounding, parts, name)
                    assert name != "bf16" or torch.equal(together[m], x[m])


@pytest.mark.parametrize("name", [*EVERY, "int4-hadamard"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_parts_are_quantized_as_if_apart(name, granularity):
    x = randn(2, 12, 64, seed=15) * torch.tensor([1.0, 30.0, 0.01]).repeat_interleave(4).view(-1, 1)
    for rule in rules_of(name):
        quantize = quantizer([name] * 2, granularity, scale_rule=rule)
        apart = torch.cat([quantize(piece) for piece in x.chunk(3, dim=1)], dim=1)
        tolerance = 3e-7 if rule in ("gaussian", "absmean") else 0  # their sums run over other rows
        torch.testing.assert_close(quantize(x, parts=3), apart, rtol=tolerance, atol=100 * tolerance, msg=rule)


# Estimators


def gradient(quantize, x, upstream, parts=1):
    x = x.clone().requires_grad_()
    (quantize(x, parts) * upstream).sum().backward()
    return x.grad


@pytest.mark.parametrize(
    "names", [["int3", "e2m1"], ["nf4"], ["uint4"], ["mxfp4"], ["int4-hadamard"], ["bf16"], ["binary"]]
)
def test_gradient_passes_straight_through(names):
    x, upstream = randn(len(names), 3, 8, seed=5), randn(len(names), 3, 8, seed=6)
    for rule in rules_of(names[0]):
        assert torch.equal(gradient(quantizer(names, "tensor", scale_rule="absmax"), x, upstream), upstream), rule
    for estimator in ("straight_through", "clipped"):
        quantize = quantizer(names, "tensor", scale_rule="absmax", estimator=estimator)
        if names != ["uint4"] or estimator == "straight_through":
            assert torch.equal(gradient(quantize, x, upstream), upstream), "absmax clips nothing"


@pytest.mark.parametrize("rule", ["mse", "gaussian", "pow2_floor", "percentile90", "absmean", "e4m3", "pow2_ceil"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["int3", "e2m1", "nf4", "int4-hadamard"])
def test_clipped_stops_what_lies_beyond_the_largest_value(name, rule, granularity):
    """Exactly there, and in the rotated basis where values are rotated. Peaks are near 4, where pow2_floor clips."""
    from scaling.quantization.hadamard import rotate
    from scaling.quantization.scales import Scaler

    blocks, upstream = randn(24, 16, seed=16) ** 3, randn(1, 6, 64, seed=17)
    turned = (blocks / blocks.abs().amax(-1, keepdim=True) * 3.9).view(1, 6, 64)
    x = rotate(turned) if parse(name).hadamard else turned
    quantize = quantizer([name], granularity, scale_rule=rule, estimator="clipped")
    shape = {"tensor": (1, 1, -1), "block16": (1, -1, 16)}.get(granularity, (1, 6, 64))
    step = Scaler(rule, quantize.formats)(turned.reshape(shape)).step.double()
    inside = (turned.reshape(shape).double().abs() <= step * parse(name).max_value * (1 + 1e-6)).view(1, 6, 64)
    assert inside.any() and (rule in ("e4m3", "pow2_ceil", "mse") or not inside.all())
    grad = gradient(quantize, x, upstream)
    if parse(name).hadamard:
        torch.testing.assert_close(grad, rotate(rotate(upstream) * inside))
    else:
        assert torch.equal(grad, upstream * inside)


def test_clipped_under_a_zero_point_keeps_the_range():
    """All of the range has codes: under absmax nothing is clipped."""
    x, upstream = randn(1, 200, 16, seed=18), randn(1, 200, 16, seed=19)
    assert torch.equal(gradient(quantizer(["uint3"], estimator="clipped"), x, upstream), upstream)


@pytest.mark.parametrize("rotation", ["", "-hadamard"])
def test_gradients_of_a_stack_are_those_alone(rotation):
    names = [f"int3{rotation}", "bf16", f"e2m1{rotation}"]
    x, upstream = randn(3, 6, 32, seed=20) ** 3, randn(3, 6, 32, seed=21)
    for granularity in GRANULARITIES:
        for dtype in (torch.float32, torch.bfloat16):
            more = {"scale_rule": "gaussian", "estimator": "clipped"}
            together = gradient(quantizer(names, granularity, **more), x.to(dtype), upstream.to(dtype), parts=2)
            assert together.dtype == dtype
            for m, name in enumerate(names):
                alone = quantizer([name], granularity, **more), x[m : m + 1].to(dtype), upstream[m : m + 1].to(dtype)
                assert torch.equal(together[m], gradient(*alone, parts=2)[0])
