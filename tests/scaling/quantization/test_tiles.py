"""Blocks of several rows: k neighbours in each of r rows share a scale."""

import pytest
import torch

from scaling.errors import InputError
from scaling.quantization.fake_quantize import Quantizer, fake_quantize
from scaling.quantization.normal_error import over_matrices
from scaling.quantization.spec import QuantSpec

NAMES = ["int4", "int4-full", "uint4", "e2m1", "nf4", "ternary"]
RULES = ["absmax", "pow2_ceil", "e4m3", "e4m3_single", "mse", "gaussian", "percentile90", "absmean"]


def randn(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x * torch.logspace(-2, 1, shape[-2]).view(-1, 1)


def tile_by_tile(x, name, tall, wide, rule):
    """Each tile as a row with a scale of its own, filled up with zeros where the matrix ends."""
    down, across = -(-len(x) // tall), -(-x.shape[1] // wide)
    padded = torch.zeros(down * tall, across * wide)
    padded[: len(x), : x.shape[1]] = x
    tiles = padded.view(down, tall, across, wide).transpose(1, 2)
    q = fake_quantize(tiles.reshape(-1, tall * wide), name, "channel", scale_rule=rule)
    return q.view(tiles.shape).transpose(1, 2).reshape(padded.shape)[: len(x), : x.shape[1]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tall, wide", [(16, 16), (4, 8), (2, 64), (32, 1)])
def test_each_tile_has_a_scale_of_its_own(name, tall, wide):
    x = randn(32, 64)
    for rule in ["absmax", "mse"] if name == "uint4" else RULES:
        if rule != "e4m3":  # whose second scale is that of all tiles
            found = fake_quantize(x, name, f"block{tall}x{wide}", scale_rule=rule)
            expected = tile_by_tile(x, name, tall, wide, rule)
            tolerance = 3e-7 if rule in ("gaussian", "absmean") else 0
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=0, msg=rule)


@pytest.mark.parametrize("rows", [5, 16, 20, 47])
@pytest.mark.parametrize("name, wide", [("int4", 16), ("e2m1", 32), ("mxfp4", 32), ("nvfp4", 16)])
def test_the_last_tiles_are_filled_up_with_zeros(rows, name, wide):
    """In rows; in columns those of a format's own width."""
    for columns in (64, 80) if name in ("mxfp4", "nvfp4") else (64,):
        x = randn(rows, columns, seed=1)
        found = fake_quantize(x, name, f"block16x{wide}", scale_rule="absmax")
        assert torch.equal(found, tile_by_tile(x, "e2m1" if name != "int4" else name, 16, wide, "absmax"))
        assert found.is_contiguous()
    with pytest.raises(InputError, match="block16x16: does not divide a width of 24"):
        fake_quantize(randn(32, 24), "int4", "block16x16")


def test_rows_of_zeros_are_not_counted():
    fake_quantize(randn(32, 32), "int4", "block16x16", scale_rule="gaussian")
    with pytest.raises(InputError, match="gaussian: a height of 40 leaves a short block of 16") as caught:
        fake_quantize(randn(40, 32), "int4", "block16x16", scale_rule="gaussian")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["int4", "e2m1", "nvfp4", "int4-hadamard"])
@pytest.mark.parametrize("rule", ["auto", "mse", "e4m3"])
def test_no_tile_reaches_from_one_part_into_the_next(name, rule):
    """Three matrices of 20 rows in one, in a stack: as each of them alone."""
    x = randn(2, 60, 64, seed=2)
    spec = QuantSpec.of(name, "block16x16", rule)
    together = Quantizer([spec] * 2).values(x, parts=3)
    for m in range(2):
        for p, part in enumerate(x[m].chunk(3)):
            alone = fake_quantize(part, name, "block16x16", scale_rule=rule)
            assert torch.equal(together[m, 20 * p : 20 * (p + 1)], alone)


def test_the_gradient_of_clipped_values_stops_tile_by_tile():
    x = randn(20, 32, seed=3).requires_grad_()
    q = fake_quantize(x, "int4", "block4x16", scale_rule="pow2_floor", estimator="clipped")
    q.sum().backward()
    steps = torch.exp2(x.detach().view(5, 4, 2, 16).abs().amax((1, 3), keepdim=True).log2().floor() - 2)
    inside = (x.detach().view(5, 4, 2, 16).abs() <= 7 * steps).view(20, 32)
    assert torch.equal(x.grad, inside.float()) and not inside.all()


@pytest.mark.parametrize(
    "name, granularity, effective",
    [
        ("int4", "block128x128", ("block128x128", 128, 128)),
        ("nvfp4", "block16x16", ("block16x16", 16, 16)),
        ("nvfp4", "block128x128", ("block16", 16, 1)),
        ("mxfp8", "block8x32", ("block8x32", 32, 8)),
        ("mxfp8", "block32", ("block32", 32, 1)),
    ],
)
def test_formats_with_own_blocks_take_tiles_that_are_as_wide(name, granularity, effective):
    spec = QuantSpec.of(name, granularity)
    assert (spec.granularity, spec.block, spec.block_rows) == effective
    assert QuantSpec.of(spec.format, spec.granularity, spec.scale_rule) == spec


@pytest.mark.parametrize("granularity", ["block16x", "blockx16", "block0x16", "block16x0", "block16X16", "16x16"])
def test_tiles_that_do_not_exist(granularity):
    with pytest.raises(
        InputError, match=r"no such granularity; use tensor, .*block<r>x<k> such as block16x16"
    ) as caught:
        QuantSpec.of("int4", granularity)
    assert "nearest: block16" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such granularity; use tensor, token, or block<k> such as block16"):
        QuantSpec.of("int4", "block16x16", rows=("token",), tiles=False)


def test_the_error_on_normal_values_is_that_of_groups_of_as_many():
    matrices = [(64, 96, 1), (32, 32, 1)]
    tiles, group = over_matrices(matrices, QuantSpec.of("int4", "block8x16"))
    blocks, _ = over_matrices([(64, 256, 1)], QuantSpec.of("int4", "block128"))
    assert group == 128 and tiles == pytest.approx(blocks, rel=0.02)
    assert over_matrices(matrices, QuantSpec.of("nvfp4", "block16x16"))[1] == 256


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
@pytest.mark.parametrize(
    "names, granularity, rule",
    [
        (("int4-full", "int3", "bf16", "e2m1"), "block8x16", "auto"),
        (("int2-full", "int8-full", "int4", "bf16"), "tensor", "mse"),
        (("int4-rht", "e2m1-rht", "bf16", "int8-full-rht"), "block4x32", "pow2_even"),
        (("nvfp4", "nvfp4", "bf16", "e2m1"), "block16x16", "e4m3_4over6"),
        (("nvfp4", "e2m1", "bf16", "nvfp4"), "block16", "e4m3_single_4over6"),
        (("mxfp4", "mxfp8", "bf16", "mxint8"), "block32", "pow2_ceil_peak"),
        (("uint4", "uint2", "bf16", "uint8"), "block5x16", "mse"),
    ],
)
def test_in_a_stack_as_alone(names, granularity, rule, rounding):
    """Bit for bit, values and gradients, in float32 and bfloat16."""
    specs = [QuantSpec.of(name, granularity, rule, rounding, "clipped") for name in names]
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4, 60, 64, generator=torch.Generator().manual_seed(0)).pow(3).to(dtype).requires_grad_()
        y = Quantizer(specs)(x, 3)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        for m, spec in enumerate(specs):
            alone = x[m : m + 1].detach().requires_grad_()
            found = Quantizer([spec])(alone, 3)
            assert torch.equal(found[0], y[m]), (dtype, names[m])
            assert torch.equal(torch.autograd.grad(found.square().sum(), alone)[0][0], gradient[m]), (dtype, names[m])
