import pytest
import torch

from scaling.errors import InputError
from scaling.formats import parse
from scaling.ptq import rtn
from scaling.quantize import FormatStack, quantize_stack, round_to_grid

FORMATS = ["int2", "int3", "int4", "int8", "e2m0", "e2m1", "e3m0", "e3m1", "e2m3", "e3m2", "e4m1", "e4m3", "e5m2"]


def stack_of(*names):
    return FormatStack([parse(name) for name in names])


def nearest(x, book):
    """Brute force: the closest value of the codebook; where two are equally close, the one with the even code."""
    distance = (x.double()[..., None] - book.double()).abs()
    best = distance.min(-1, keepdim=True).values
    codes = torch.arange(len(book)) - len(book) // 2
    even_first = torch.where(distance == best, (codes % 2).abs().double(), 9.0)
    return book[even_first.argmin(-1)]


@pytest.mark.parametrize("name", FORMATS)
def test_rounds_to_the_nearest_value(name):
    fmt = parse(name)
    book = fmt.codebook()
    generator = torch.Generator().manual_seed(0)
    random = (torch.randn(4000, generator=generator) * fmt.max_value / 3).clamp(-fmt.max_value, fmt.max_value)
    halves = (book[1:] + book[:-1]) / 2
    fine = torch.linspace(-4, 4, 4000) * book[book > 0].min()
    x = torch.cat([random, book, halves, fine.clamp(-fmt.max_value, fmt.max_value), torch.tensor([fmt.max_value])])
    q = round_to_grid(x.view(1, 1, -1), stack_of(name), "channel").view(-1)
    if fmt.mantissa_bits:
        assert torch.equal(q, nearest(x, book))
    else:  # a code without mantissa bits has no even neighbour: there, ties only have to be equally near
        assert torch.equal((q - x).abs(), (nearest(x, book) - x).abs()) and torch.isin(q, book).all()


@pytest.mark.parametrize("name, dtype", [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_agrees_with_torch_casts(name, dtype):
    largest = parse(name).max_value
    x = torch.randn(1, 8, 512, generator=torch.Generator().manual_seed(1)) * 3
    x[..., 0] = largest  # the scale is then 1
    assert torch.equal(round_to_grid(x, stack_of(name), "channel"), x.to(dtype).float())


@pytest.mark.parametrize("granularity, axes", [("tensor", (0, 1)), ("channel", (1,)), ("token", (1,))])
def test_integers_follow_the_paper_for_each_granularity(granularity, axes):
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(2))
    scale = x.abs().amax(axes, keepdim=True) / 7
    expected = (x / scale).round() * scale
    q = round_to_grid(x[None], stack_of("int4"), granularity)[0]
    assert torch.equal(q, expected)


def test_blocks_have_scales_of_their_own():
    x = torch.tensor([[[1.0, 0.4, 100.0, 40.0]]])
    q = round_to_grid(x, stack_of("int2"), "block2")
    assert q.tolist() == [[[1.0, 0.0, 100.0, 0.0]]]
    assert round_to_grid(x, stack_of("int2"), "channel").tolist() == [[[0.0, 0.0, 100.0, 0.0]]]
    with pytest.raises(InputError, match="block3: does not divide a width of 4"):
        round_to_grid(x, stack_of("int2"), "block3")


def test_idempotent_odd_and_zero_preserving():
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(3))
    x[:, 2] = 0
    formats = stack_of("int4", "e2m1", "e4m3")
    q = round_to_grid(x, formats, "channel")
    assert torch.equal(q[:, 2], torch.zeros(3, 64))
    torch.testing.assert_close(round_to_grid(q, formats, "channel"), q, rtol=3e-7, atol=0)
    assert torch.equal(round_to_grid(-x, formats, "channel"), -q)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block16"])
def test_a_member_is_quantized_as_if_alone(granularity):
    names = ["int3", "e2m1", "bf16", "int8", "e4m3"]
    x = torch.randn(5, 7, 48, generator=torch.Generator().manual_seed(4))
    together = round_to_grid(x, stack_of(*names), granularity)
    for m, name in enumerate(names):
        assert torch.equal(together[m], round_to_grid(x[m : m + 1], stack_of(name), granularity)[0])
    assert torch.equal(together[2], x[2])


def test_a_nan_stays_in_its_own_model_and_group():
    x = torch.ones(2, 2, 4)
    x[0, 0, 1] = float("nan")
    x[1, 1, 0] = float("inf")
    q = round_to_grid(x, stack_of("int4", "int4"), "channel")
    assert q[0, 0].isnan().all() and q[1, 1].isnan().all()
    assert torch.equal(q[0, 1], torch.ones(4)) and torch.equal(q[1, 0], torch.ones(4))


def test_gradient_passes_straight_through():
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(5), requires_grad=True)
    weights = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(6))
    (quantize_stack(x, stack_of("int3", "e2m1"), "tensor") * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_bf16_input_keeps_its_dtype_and_rounds_once():
    x = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(7)).bfloat16()
    q = round_to_grid(x, stack_of("int4"), "channel")
    assert q.dtype == torch.bfloat16
    assert torch.equal(q, round_to_grid(x.float(), stack_of("int4"), "channel").bfloat16())


def test_rtn_takes_a_plain_weight():
    w = torch.randn(8, 32, generator=torch.Generator().manual_seed(8))
    for granularity in ("tensor", "channel", "block8"):
        assert torch.equal(rtn(w, "int4", granularity), round_to_grid(w[None], stack_of("int4"), granularity)[0])
