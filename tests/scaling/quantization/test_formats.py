import dataclasses
import re

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from scaling.quantization.formats import Format, known_names, parse

# name, bits, largest value, number of values. Largest values: OCP Microscaling v1.0 and OCP FP8 for e2m1, e2m3, e3m2,
# e4m3, e5m2; IEEE 754 for e5m10; the rest by hand. All floats of the paper (arXiv 2411.04330, Appendix N) are here.
KNOWN = [
    ("int2", 2, 1, 3),
    ("int3", 3, 3, 7),
    ("int4", 4, 7, 15),
    ("int5", 5, 15, 31),
    ("int6", 6, 31, 63),
    ("int8", 8, 127, 255),
    ("int16", 16, 32767, 65535),
    ("e2m0", 3, 4, 7),
    ("e2m1", 4, 6, 15),
    ("e3m0", 4, 16, 15),
    ("e3m1", 5, 24, 31),
    ("e2m3", 6, 7.5, 63),
    ("e3m2", 6, 28, 63),
    ("e4m1", 6, 384, 63),
    ("e4m2", 7, 448, 127),
    ("e4m3", 8, 448, 253),
    ("e5m2", 8, 57344, 247),
    ("e5m6", 12, 65024, 3967),
    ("e5m10", 16, 65504, 63487),
    ("e8m7", 16, torch.finfo(torch.bfloat16).max, 65279),
    ("mxfp4", 4, 6, 15),
    ("mxfp6_e2m3", 6, 7.5, 63),
    ("mxfp6_e3m2", 6, 28, 63),
    ("mxfp8_e4m3", 8, 448, 253),
    ("mxfp8_e5m2", 8, 57344, 247),
    ("mxint8", 8, 127, 255),
    ("nvfp4", 4, 6, 15),
    ("ternary", 2, 1, 3),
    ("binary", 1, 1, 2),
]

# bitsandbytes' and the paper's table (QLoRA, arXiv 2305.14314, Appendix E).
NF4 = """-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334
-0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"""


def by_definition(name: str) -> np.ndarray:
    """Every value of int<b>, uint<b> or e<x>m<y>, ascending in float64, decoded from its bit patterns."""
    if match := re.fullmatch(r"(u?)int(\d+)", name):
        bits = int(match[2])
        return np.arange(2.0**bits) if match[1] else np.arange(1.0 - 2 ** (bits - 1), 2 ** (bits - 1))
    x, y = map(int, re.fullmatch(r"e(\d+)m(\d+)", name).groups())
    code = np.arange(2 ** (x + y))
    exponent, fraction, bias = code >> y, code & (2**y - 1), 2 ** (x - 1) - 1
    values = np.where(
        exponent == 0, np.ldexp(1.0 * fraction, 1 - bias - y), np.ldexp(2.0**y + fraction, exponent - bias - y)
    )
    finite = exponent < 2**x - 1 if x >= 5 else code < len(code) - (name == "e4m3")
    positive = values[finite]
    return np.concatenate([-positive[:0:-1], positive])


GENERATED = [name for name in known_names() if re.fullmatch(r"u?int\d+|e\d+m\d+", name)]


@pytest.mark.parametrize("name, bits, largest, count", KNOWN)
def test_published_ranges(name, bits, largest, count):
    book = parse(name).codebook()
    assert parse(name).bits == bits
    assert book.max() == largest == parse(name).max_value and book.min() == -largest
    assert len(book) == count == len(book.unique())
    assert torch.equal(book, -book.flip(0))


@pytest.mark.parametrize("name", GENERATED)
def test_codebook_is_what_the_bit_patterns_say(name):
    """An enumeration that shares nothing with the triple."""
    assert np.array_equal(parse(name).codebook().double().numpy(), by_definition(name))


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("e4m3", torch.float8_e4m3fn),
        ("e5m2", torch.float8_e5m2),
        ("e5m10", torch.float16),
        ("e8m7", torch.bfloat16),
    ],
)
def test_codebook_is_that_of_torch(name, dtype):
    bits = torch.finfo(dtype).bits
    codes = torch.arange(2**bits, dtype=torch.int32).to({8: torch.uint8, 16: torch.uint16}[bits]).view(dtype).float()
    finite = codes[codes.isfinite()].unique()
    assert torch.equal(parse(name).codebook(), finite)


@pytest.mark.parametrize(
    "name, triple",
    [
        *[(f"int{b}", (b - 2, b - 2, 2 ** (b - 1) - 1)) for b in range(2, 17)],
        ("e2m1", (1, 0, 6)),
        ("e4m3", (3, -6, 448)),
        ("e5m2", (2, -14, 57344)),
        ("e3m0", (0, -2, 16)),
        ("e2m0", (0, 0, 4)),
    ],
)
def test_triples(name, triple):
    fmt = parse(name)
    assert (fmt.mantissa_bits, fmt.min_exponent, fmt.max_value) == triple


def test_normal_float_has_the_published_levels():
    book = parse("nf4").codebook()
    torch.testing.assert_close(book, torch.tensor([float(v) for v in NF4.split()]), rtol=0, atol=1e-6)
    assert parse("nf4").bits == 4 and parse("nf4").max_value == 1
    assert book[7] == 0 and not torch.signbit(book[7])


def test_an_integer_is_a_float_without_normal_binades():
    # e1m<y> has one subnormal and one normal binade of equal spacing: int<y+2> up to a factor.
    for bits in range(3, 17):
        as_float, integer = parse(f"e1m{bits - 2}").codebook(), parse(f"int{bits}").codebook()
        assert torch.equal(as_float * (integer.max() / as_float.max()), integer)


def test_which_formats_are_integers():
    assert all(parse(f"int{b}").is_integer for b in range(2, 17)) and parse("mxint8").is_integer
    assert not any(parse(name).is_integer for name in ("e2m1", "e2m0", "e4m3", "e5m10", "nf4", "binary", "bf16"))


@pytest.mark.parametrize(
    "name, block, rule",
    [
        ("int4", None, "absmax"),
        ("nf4", None, "absmax"),
        ("mxfp4", 32, "pow2_floor"),
        ("mxfp6", 32, "pow2_floor"),
        ("mxfp6_e3m2", 32, "pow2_floor"),
        ("mxfp8", 32, "pow2_floor"),
        ("mxfp8_e5m2", 32, "pow2_floor"),
        ("mxint8", 32, "pow2_floor"),
        ("nvfp4", 16, "e4m3"),
        ("ternary", None, "absmean"),
        ("binary", None, "absmean"),
    ],
)
def test_what_a_format_brings_besides_its_values(name, block, rule):
    fmt = parse(name)
    assert (fmt.block, fmt.scale_rule) == (block, rule)
    assert fmt.granularity("channel") == ("channel" if block is None else f"block{block}")


def test_a_zero_point_shifts_unsigned_codes():
    for bits in range(2, 9):
        fmt = parse(f"uint{bits}")
        assert fmt.zero_point and fmt.bits == bits and fmt.max_value == 2**bits - 1
        assert fmt.codebook().tolist() == list(range(2**bits))


def test_every_known_name_is_parsed_and_named_alike():
    names = known_names()
    assert len(names) == len(set(names))
    for name in names:
        fmt = parse(name)
        aliases = {"mxfp6_e2m3": "mxfp6", "mxfp8_e4m3": "mxfp8"}
        assert fmt.name == aliases.get(name, name) and not fmt.hadamard
        assert fmt == parse(name.upper()) == parse(f" {name} ")
        if fmt.quantizes:
            assert len(fmt.codebook()) <= 2**fmt.bits
            rotated = parse(f"{name}-hadamard")
            assert rotated == dataclasses.replace(fmt, name=f"{fmt.name}-hadamard", hadamard=True)
    assert {"int2", "int16", "uint2", "uint8", "e1m1", "e8m7", "e2m0", "e5m10", "mxfp4", "nvfp4", "nf4"} <= set(names)
    assert all(3 <= parse(name).bits <= 16 for name in names if re.fullmatch(r"e\d+m\d+", name))


@pytest.mark.parametrize(
    "name, says",
    [
        ("int1", "2 to 16"),
        ("int17", "2 to 16"),
        ("uint1", "2 to 8"),
        ("uint9", "2 to 8"),
        ("e1m0", "3 to 16"),
        ("e8m8", "3 to 16"),
        ("e9m2", "1 to 8"),
        ("e0m4", "1 to 8"),
        ("in4", r"nearest: int4\b"),
        ("nf5", r"nearest: .*\bnf4\b"),
        ("mxfp5", r"nearest: .*\bmxfp4\b"),
        ("mxfp6_e2m2", r"nearest: .*\bmxfp6_e2m3\b"),
        ("e4m33", r"\be4m3\b"),
        ("e4m", r"\be4m3\b"),
        ("bf16-hadamard", "not quantized"),
        ("int4-hadamard-hadamard", "no such number format"),
        ("fp17", "mxfp4"),
        ("", "e<x>m<y>"),
    ],
)
def test_what_cannot_be_parsed_says_what_can(name, says):
    with pytest.raises(InputError, match=says) as caught:
        parse(name)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: ")


def test_bf16_is_the_unquantized_format():
    assert not parse("bf16").quantizes and parse("BF16").bits == 16
    assert isinstance(parse("bf16"), Format)
    with pytest.raises(ValueError, match="no codebook"):
        parse("bf16").codebook()
