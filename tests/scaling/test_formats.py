import pytest
import torch

from scaling.errors import InputError
from scaling.formats import parse

# name, bits, largest value, number of values. Largest values: OCP Microscaling v1.0 and OCP FP8 for e2m1, e2m3, e3m2,
# e4m3, e5m2; IEEE 754 for e5m10; the rest by hand.
KNOWN = [
    ("int2", 2, 1, 3),
    ("int4", 4, 7, 15),
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
    ("e5m10", 16, 65504, 63487),
]


@pytest.mark.parametrize("name, bits, largest, count", KNOWN)
def test_published_ranges(name, bits, largest, count):
    book = parse(name).codebook()
    assert parse(name).bits == bits
    assert book.max() == largest and book.min() == -largest
    assert len(book) == count == len(book.unique())
    assert torch.equal(book, -book.flip(0))


@pytest.mark.parametrize("name, dtype", [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_codebook_is_that_of_torch(name, dtype):
    codes = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    finite = codes[codes.isfinite()].unique()
    assert torch.equal(parse(name).codebook(), finite)


def test_an_integer_is_a_float_without_normal_binades():
    # e1m<y> has one subnormal and one normal binade of equal spacing: int<y+2> up to a factor.
    assert torch.equal(parse("e1m2").codebook() * 2, parse("int4").codebook())


@pytest.mark.parametrize(
    "name, says",
    [
        ("int1", "2 to 16"),
        ("int17", "2 to 16"),
        ("e1m0", "3 to 16"),
        ("e9m2", "1 to 8"),
        ("in4", "int4"),
        ("e4m", "e4m"),
        ("", "e<x>m<y>"),
    ],
)
def test_what_cannot_be_parsed_says_what_can(name, says):
    with pytest.raises(InputError, match=says) as caught:
        parse(name)
    assert "\n" not in str(caught.value)


def test_bf16_is_the_unquantized_format():
    assert not parse("bf16").quantizes and parse("BF16").bits == 16
    with pytest.raises(ValueError, match="no codebook"):
        parse("bf16").codebook()
