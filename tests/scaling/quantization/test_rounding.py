import re

import numpy as np
import pytest
import torch
from scipy import stats

from scaling.quantization.fake_quantize import fake_quantize
from scaling.quantization.formats import known_names, parse
from scaling.quantization.rounding import FormatStack, family, noise_of

NAMES = [name for name in known_names() if name != "bf16"]


def at_scale_one(name, x, **more):
    """x (1-d, within the largest value) rounded where each group's scale is 1: each also holds the largest value."""
    fmt = parse(name)
    if fmt.zero_point:
        ends = torch.stack([x.min(), x.min() + fmt.max_value])
        return fake_quantize(torch.cat([x, ends]), name, "tensor", **more)[:-2]
    if fmt.block is None:
        return fake_quantize(
            torch.cat([x, x.new_tensor([fmt.max_value])]), name, "tensor", scale_rule="absmax", **more
        )[:-1]
    width = fmt.block - 1
    rows = torch.nn.functional.pad(x, (0, -len(x) % width)).view(-1, width)
    rows = torch.nn.functional.pad(rows, (0, 1), value=fmt.max_value)
    # A format of scales maps the largest of them onto its own largest, 448: one more block makes that the unit.
    rows = torch.cat([rows, torch.full((1, fmt.block), fmt.max_value * 448)])
    return fake_quantize(rows, name, "channel", **more)[:-1, :-1].reshape(-1)[: len(x)]


def neighbours(x, book):
    """The values of the ascending `book` on either side of x, in float64; both ends are neighbours of themselves."""
    above = np.searchsorted(book, x, side="right").clip(1, len(book) - 1)
    return book[above - 1], book[above]


def nearest(x, book, fmt):
    """Brute force in float64. Ties: to the even code, which counts from zero; without mantissa bits away from zero
    (halfway to the smallest value to zero, though, whose code is even); in a list of levels upwards."""
    low, high = neighbours(x, book)
    if fmt.levels is not None:
        upper = np.ones(len(x), bool)
    elif fmt.mantissa_bits:
        code = np.searchsorted(book, high) - np.searchsorted(book, 0.0)
        upper = code % 2 == 0
    else:
        upper = np.where(low == 0, False, np.where(high == 0, True, high > 0))
    half = (low + high) / 2  # exact; a difference to x need not be
    return np.where(x < half, low, np.where(x > half, high, np.where(upper, high, low)))


def probes(book, seed=0):
    """Values, exact midpoints, what lies just beside both, subnormal fractions, and random values of all magnitudes."""
    halves = ((book[1:] + book[:-1]) / 2).astype(np.float32)
    points = np.concatenate([book.astype(np.float32), halves])
    beside = [np.nextafter(points, np.float32(side)) for side in (-np.inf, np.inf)]
    smallest = book[book > 0].min()
    random = np.random.default_rng(seed)
    spread = np.exp2(random.uniform(np.log2(smallest) - 3, np.log2(book.max()), 4000)) * random.choice([-1, 1], 4000)
    fine = np.linspace(-4, 4, 2001) * smallest
    x = np.concatenate([points, *beside, spread, fine, random.uniform(book.min(), book.max(), 4000)])
    return x.clip(book.min(), book.max()).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_rounds_to_the_nearest_value(name):
    fmt = parse(name)
    book = fmt.codebook().double().numpy()
    x = probes(book)
    q = at_scale_one(name, torch.from_numpy(x)).double().numpy()
    expected = nearest(x.astype(np.float64), book, fmt)
    if name == "nf4":  # float32 does not hold the midpoints of these levels: beside one, both levels are near enough
        low, high = neighbours(x.astype(np.float64), book)
        decided = np.abs(x - (low + high) / 2) > 1e-7
        assert np.isin(q, book).all() and (np.abs(q - x) <= np.abs(expected - x) + 1e-7).all()
        q, expected = q[decided], expected[decided]
    assert np.array_equal(q, expected)


@pytest.mark.parametrize("name", [f"uint{b}" for b in range(2, 9)])
def test_zero_points_shift_the_codes(name):
    fmt = parse(name)
    for zero in {0, 1, 2, int(fmt.max_value) // 2, int(fmt.max_value)}:
        book = fmt.codebook().double().numpy() - zero
        x = probes(book) if zero < fmt.max_value else -probes(-book[::-1])
        q = at_scale_one(name, torch.from_numpy(x)).double().numpy()
        assert np.array_equal(q, nearest(x.astype(np.float64), book, fmt))


@pytest.mark.parametrize(
    "name, x, expected",
    [
        ("int4", [0.5, 1.5, 2.5, -0.5, -1.5, 6.5], [0, 2, 2, 0, -2, 6]),
        ("e2m1", [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -5], [0, 1, 1, 2, 2, 4, 4, -4]),
        ("e3m0", [0.125, 0.375, 0.75, 1.5, 3, 6, 12, -12], [0, 0.5, 1, 2, 4, 8, 16, -16]),
        ("int2", [0.5, -0.5], [0, 0]),
        ("binary", [0, -0.0], [1, 1]),
        ("uint4", [0.5, 1.5, 14.5], [0, 2, 14]),
    ],
)
def test_ties(name, x, expected):
    assert at_scale_one(name, torch.tensor([0.0, *x]))[1:].tolist() == expected


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("e4m3", torch.float8_e4m3fn),
        ("e5m2", torch.float8_e5m2),
        ("e5m10", torch.float16),
        ("e8m7", torch.bfloat16),
    ],
)
def test_agrees_with_torch_casts(name, dtype):
    x = torch.from_numpy(probes(parse(name).codebook().double().numpy(), seed=1))
    assert torch.equal(at_scale_one(name, x), x.to(dtype).float())


# e4m3 is finite-only there, with 480; formats from five exponent bits up have no infinity there. m0 is not taken.
@pytest.mark.parametrize(
    "name", ["e2m1", "e2m2", "e2m3", "e2m4", "e2m5", "e3m1", "e3m2", "e3m3", "e3m4", "e4m1", "e4m2"]
)
def test_agrees_with_the_bit_twiddling_of_torchao(name):
    twiddling = pytest.importorskip("torchao.prototype.custom_fp_utils")
    bits = tuple(map(int, re.findall(r"\d+", name)))
    x = torch.from_numpy(probes(parse(name).codebook().double().numpy(), seed=2))
    codes = twiddling._f32_to_floatx_unpacked(x, *bits)
    assert torch.equal(at_scale_one(name, x), twiddling._floatx_unpacked_to_f32(codes, *bits))


def test_agrees_with_the_normal_float_of_torchao():
    """The levels, which torchao has to four digits, and its search; its scales are themselves quantized, to int8."""
    nf4 = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor").NF4Tensor
    book = parse("nf4").codebook()
    torch.testing.assert_close(book, nf4.from_tensor(torch.randn(256), 64, 4).nf4.float(), rtol=0, atol=6e-5)
    x = torch.linspace(-1, 1, 20011)
    assert torch.equal(at_scale_one("nf4", x), book[nf4.quantize_tensor_nearest(x, book)])


def test_members_of_one_stack_round_in_their_own_formats():
    names = ["int2", "e2m1", "bf16", "int16", "e5m10", "e3m0"]
    stack = FormatStack([parse(name) for name in names])
    assert stack.passing == [2] and not stack.all_integer and {family(f) for f in stack.formats} == {"grid"}
    x = torch.rand(1, 4, 100, generator=torch.Generator().manual_seed(3)).sub(0.5).mul(2).expand(6, -1, -1)
    y = stack.nearest_(x.clone())
    for m, name in enumerate(names):
        if name != "bf16":
            assert torch.equal(y[m], FormatStack([parse(name)]).nearest_(x[:1].clone())[0])


STOCHASTIC = [
    "int2",
    "int4",
    "int8",
    "e2m0",
    "e2m1",
    "e3m0",
    "e4m3",
    "e5m2",
    "nf4",
    "binary",
    "uint4",
    "mxfp4",
    "nvfp4",
]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_rounding_takes_one_of_the_two_neighbours(name):
    book = parse(name).codebook().double().numpy()
    x = probes(book, seed=4)
    q = at_scale_one(name, torch.from_numpy(x), rounding="stochastic").double().numpy()
    low, high = neighbours(x.astype(np.float64), book)
    exact = np.isin(x, book)
    assert np.array_equal(q[exact], x[exact])
    assert ((q == low) | (q == high))[~exact].all()
    between = ~exact & (np.abs(x - (low + high) / 2) < (high - low) / 4)
    assert (q == low)[between].any() and (q == high)[between].any()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_rounding_is_unbiased(name):
    book = parse(name).codebook().double().numpy()
    n = 15 * 31 * 100
    for share in (0.02, 0.3, 0.5, 0.9):
        for i in {0, len(book) // 2 - 1, len(book) - 2}:
            value = np.float32(book[i] + share * (book[i + 1] - book[i]))
            x = torch.full((n,), float(value))
            if parse(name).zero_point:
                x[0] = 0
            q = at_scale_one(name, x, rounding="stochastic")[1:].double()
            p = (value - book[i]) / (book[i + 1] - book[i])
            sigma = (p * (1 - p) / n) ** 0.5 * (book[i + 1] - book[i])
            assert abs(q.mean().item() - value) < 5 * sigma


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_least_noise_rounds_up_and_the_most_down(name):
    """Noise reaches 0, which must leave exact values alone, and 1 - 2^-24."""
    book = parse(name).codebook().view(1, 1, -1)
    between = book[..., :-1] + (book[..., 1:] - book[..., :-1]) / 4
    stack, most = FormatStack([parse(name)]), 1 - 2.0**-24
    for noise in (0.0, most):
        assert torch.equal(stack.stochastic_(book.clone(), torch.full_like(book, noise)), book)
    assert torch.equal(stack.stochastic_(between.clone(), torch.zeros_like(between)), book[..., 1:])
    assert torch.equal(stack.stochastic_(between.clone(), torch.full_like(between, most)), book[..., :-1])


def test_stochastic_rounding_has_no_state():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(5))
    q = fake_quantize(x, "e2m1", rounding="stochastic")
    torch.manual_seed(1)
    assert torch.equal(q, fake_quantize(x, "e2m1", rounding="stochastic"))
    assert not torch.equal(q, fake_quantize(x, "e2m1"))


def test_stochastic_rounding_stays_within_the_largest_value():
    """Dividing by the absmax scale can give a value just beyond the largest, which must not be rounded up."""
    x = torch.linspace(1, 2, 2**22)[:-1].view(-1, 1, 1)
    step = x / 127
    y = x / step
    escapes = x[noise_of(x) < y - 127]
    assert len(escapes), "no value of the kind: the test has lost its point"
    for value in escapes:
        torch.testing.assert_close(fake_quantize(value.view(1), "int8", rounding="stochastic"), value.view(1))


@pytest.mark.parametrize("kind", ["constant", "zero", "normal", "bfloat16", "small integers", "sorted"])
def test_noise_is_uniform_and_uncorrelated(kind):
    shape, generator = (1, 384, 256), torch.Generator().manual_seed(6)
    x = {
        "constant": torch.full(shape, 0.3),
        "zero": torch.zeros(shape),
        "normal": torch.randn(shape, generator=generator),
        "bfloat16": torch.randn(shape, generator=generator).bfloat16().float(),
        "small integers": torch.randint(-8, 8, shape, generator=generator).float(),
        "sorted": torch.linspace(-1, 1, 384 * 256).view(shape),
    }[kind]
    noise = noise_of(x)[0].double().numpy()
    assert noise.min() >= 0 and noise.max() < 1
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-4
    for bits in (2, 256):  # coarse and fine bins, and the lowest bits of the noise
        assert stats.chisquare(np.bincount((noise.ravel() * bits).astype(int), minlength=bits)).pvalue > 1e-4
        low = (noise.ravel() * 2**24).astype(np.int64) % bits
        assert stats.chisquare(np.bincount(low, minlength=bits)).pvalue > 1e-4
    limit = 4.5 / noise.size**0.5
    for lag in (1, 2, 16, 256, 257, 4096):
        flat = noise.ravel()
        assert abs(np.corrcoef(flat[lag:], flat[:-lag])[0, 1]) < limit
    for other in (torch.nextafter(x, x + 1), x * 3 + 0.1, -x - 0.7):
        assert abs(np.corrcoef(noise.ravel(), noise_of(other)[0].numpy().ravel())[0, 1]) < limit


def test_noise_depends_on_the_place_within_a_model_alone():
    x = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(7))
    assert torch.equal(noise_of(x.expand(3, -1, -1).contiguous()), noise_of(x).expand(3, -1, -1))
    assert torch.equal(noise_of(x.transpose(1, 2)), noise_of(x.transpose(1, 2).contiguous()))
