"""Number formats as three numbers each, and the grammar that names them.

An integer is a float that has only its subnormal binade. So one triple says every element format:

    mantissa_bits   fraction bits of a normal number
    min_exponent    exponent of the smallest normal binade; below it the spacing stays constant (subnormals)
    max_value       largest magnitude; the absmax scale maps a tensor's largest magnitude onto it

A value x (already scaled) is rounded to a multiple of 2^(max(floor(log2 |x|), min_exponent) - mantissa_bits) and
clamped to +-max_value. `int4` and `e2m1` are two rows of one table, and members of one stack can differ in them.

Largest values. Integers are symmetric as in the paper (arXiv 2411.04330, Appendix D): 2^(b-1) - 1, so -2^(b-1) is never
used. Floats with up to four exponent bits use every code for a finite number (OCP Microscaling v1.0: e2m1 has 6, e3m2
28, e2m3 7.5), except that OCP FP8 e4m3 gives its last mantissa code to NaN (448 instead of 480). From five exponent
bits up the top exponent is kept for infinity and NaN as in IEEE 754 (e5m2 57344).
"""

import dataclasses
import difflib
import re
from functools import cache

import torch

from scaling.errors import InputError

UNQUANTIZED = "bf16"
GRAMMAR = "bf16 (unquantized), int2 to int16, or e<x>m<y> with 3 to 16 bits such as e2m1, e4m3, e5m2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One element format. `bits` counts the sign bit, as P does in the paper."""

    name: str
    bits: int
    mantissa_bits: int
    min_exponent: int
    max_value: float

    @property
    def quantizes(self) -> bool:
        """False for `bf16`, which stands for the unquantized run and passes every value through unchanged."""
        return self.name != UNQUANTIZED

    @property
    def is_integer(self) -> bool:
        """True where the representable values are the integers up to `max_value`."""
        return self.min_exponent == self.mantissa_bits and self.max_value < 2.0 ** (self.min_exponent + 1)

    def codebook(self) -> torch.Tensor:
        """All representable values, ascending, each once (zero has one entry), as a 1-d float32 tensor.

        Raises:
            ValueError: for `bf16`, whose values are not enumerated.
        """
        if not self.quantizes:
            raise ValueError("bf16 is the unquantized format: it has no codebook")
        steps = 2**self.mantissa_bits
        magnitudes = [k * 2.0 ** (self.min_exponent - self.mantissa_bits) for k in range(steps)]
        exponent = self.min_exponent
        while 2.0**exponent <= self.max_value:
            magnitudes += [(1 + k / steps) * 2.0**exponent for k in range(steps)]
            exponent += 1
        positive = [v for v in magnitudes if 0 < v <= self.max_value]
        return torch.tensor([-v for v in reversed(positive)] + [0.0, *positive], dtype=torch.float32)


@cache
def parse(name: str) -> Format:
    """The format that `name` stands for.

    Raises:
        InputError: names the nearest known formats and says what the grammar accepts.
    """
    text = str(name).strip().lower()
    if text == UNQUANTIZED:
        return Format(name=text, bits=16, mantissa_bits=7, min_exponent=-126, max_value=float("inf"))
    if found := re.fullmatch(r"int(\d+)", text):
        return _integer(int(found[1]))
    if found := re.fullmatch(r"e(\d+)m(\d+)", text):
        return _float(int(found[1]), int(found[2]))
    close = difflib.get_close_matches(text, _names(), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise InputError(f"{name}: no such number format{hint}; use {GRAMMAR}")


def _integer(bits: int) -> Format:
    if not 2 <= bits <= 16:
        raise InputError(f"int{bits}: {bits} bits are out of range; integers have 2 to 16 bits")
    return Format(
        name=f"int{bits}",
        bits=bits,
        mantissa_bits=bits - 2,
        min_exponent=bits - 2,
        max_value=2.0 ** (bits - 1) - 1,
    )


def _float(exponent_bits: int, mantissa_bits: int) -> Format:
    name, bits = f"e{exponent_bits}m{mantissa_bits}", 1 + exponent_bits + mantissa_bits
    if exponent_bits < 1 or exponent_bits > 8 or not 3 <= bits <= 16:
        raise InputError(
            f"{name}: {bits} bits with the sign; floats have 3 to 16 bits of which 1 to 8 are exponent bits"
        )
    bias = 2 ** (exponent_bits - 1) - 1
    top = 2**exponent_bits - 1 - bias - (1 if exponent_bits >= 5 else 0)
    largest = (2.0 - 2.0**-mantissa_bits) * 2.0**top
    return Format(
        name=name,
        bits=bits,
        mantissa_bits=mantissa_bits,
        min_exponent=1 - bias,
        max_value=448.0 if name == "e4m3" else largest,
    )


def _names() -> list[str]:
    floats = [f"e{x}m{y}" for x in range(1, 9) for y in range(0, 15) if 3 <= 1 + x + y <= 16]
    return [UNQUANTIZED, *[f"int{b}" for b in range(2, 17)], *floats]
