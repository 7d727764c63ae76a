"""Number formats, and the grammar that names them.

An integer is a float that has only its subnormal binade. So one triple says almost every element format:

    mantissa_bits   fraction bits of a normal number
    min_exponent    exponent of the smallest normal binade; below it the spacing stays constant (subnormals)
    max_value       largest magnitude

A value x (already scaled) is rounded to a multiple of 2^(max(floor(log2 |x|), min_exponent) - mantissa_bits) and
clamped to +-max_value. `int4` and `e2m1` are two rows of one table, and members of one stack can differ in them.

Largest values. Integers are symmetric as in the paper (arXiv 2411.04330, Appendix D): 2^(b-1) - 1, so -2^(b-1) is not
used unless `-full` behind the name asks for it. Floats with up to four exponent bits use every code for a finite number
(OCP Microscaling v1.0: e2m1 has 6, e3m2 28, e2m3 7.5), except that OCP FP8 e4m3 gives its last mantissa code to NaN
(448 instead of 480). From five exponent bits up the top exponent is kept for infinity and NaN as in IEEE 754 (e5m2
57344).

What a triple cannot say is a list of levels (`nf4`, `binary`) or an integer with a zero point (`uint4`).

How a group of values is scaled is a rule of its own (`scaling.quantization.scale_rules`), and how large a group is a
granularity. Some formats are defined together with both: a microscaling format is an element with blocks of 32 and
power-of-two scales, `nvfp4` one with blocks of 16 and e4m3 scales. `-hadamard` behind any format rotates the values
before they are rounded, `-rht` does so with random signs (the randomized Hadamard transform).
"""

import dataclasses
import re
from functools import cache

import torch

from scaling.errors import InputError, nearest_names

UNQUANTIZED = "bf16"
FULL = "-full"
ROTATIONS = {"-hadamard": False, "-rht": True}
"""What stands behind the name of a format that rotates -> whether signs are random."""
GRAMMAR = (
    "bf16 (unquantized), int2 to int16 (int4-full: down to -8), uint2 to uint8 (with a zero point), e<x>m<y> with 3 to "
    "16 bits such as e2m1 or e4m3, mxfp4, mxfp6, mxfp8, mxint8, nvfp4, nf4, ternary, binary; -hadamard behind any of "
    "them rotates first, -rht with random signs"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One number format. `bits` counts the sign bit, as P does in the paper; scales come on top."""

    name: str
    bits: int
    mantissa_bits: int
    min_exponent: int
    max_value: float
    levels: tuple[float, ...] | None = None
    """All values, ascending, where the triple cannot say them; it then holds only their largest magnitude."""
    zero_point: bool = False
    """The values are the integers from 0 to `max_value`, less a zero point that each group has of its own."""
    full_range: bool = False
    """Whether an integer goes down to -2^(b-1), one beyond `max_value`."""
    block: int | None = None
    """Values that share a scale, where the format itself says so; it then overrules the granularity."""
    scale_rule: str = "absmax"
    """The format's own rule; see `scaling.quantization.scale_rules`."""
    hadamard: bool = False
    """Whether values are rotated before they are rounded (and back afterwards); see `scaling.quantization.hadamard`."""
    random_signs: bool = False
    """Whether the rotation is a randomized one."""

    @property
    def quantizes(self) -> bool:
        """False for `bf16`, which stands for the unquantized run and passes every value through unchanged."""
        return self.name != UNQUANTIZED

    @property
    def is_integer(self) -> bool:
        """True where the representable values are the integers up to `max_value`."""
        return (
            self.levels is None
            and self.min_exponent == self.mantissa_bits
            and self.max_value < 2.0 ** (self.min_exponent + 1)
        )

    @property
    def min_value(self) -> float:
        """The least value, without a zero point."""
        return -self.max_value - (1 if self.full_range else 0)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(self.max_value, -self.min_value)

    def granularity(self, name: str) -> str:
        """The granularity in effect: what was asked for, unless the format brings blocks of its own, which may be as
        wide as those of two dimensions that were asked for."""
        if self.block is None or re.fullmatch(rf"block\d+x{self.block}", name):
            return name
        return f"block{self.block}"

    def codebook(self) -> torch.Tensor:
        """All representable values, ascending, each once (zero has one entry), as a 1-d float32 tensor.

        With a zero point these are the codes; the values of a group are the codes less its zero point.

        Raises:
            ValueError: for `bf16`, whose values are not enumerated.
        """
        if not self.quantizes:
            raise ValueError("bf16 is the unquantized format: it has no codebook")
        if self.levels is not None:
            return torch.tensor(self.levels, dtype=torch.float32)
        if self.zero_point:
            return torch.arange(self.max_value + 1, dtype=torch.float32)
        steps = 2**self.mantissa_bits
        magnitudes = [k * 2.0 ** (self.min_exponent - self.mantissa_bits) for k in range(steps)]
        exponent = self.min_exponent
        while 2.0**exponent <= self.max_value:
            magnitudes += [(1 + k / steps) * 2.0**exponent for k in range(steps)]
            exponent += 1
        positive = [v for v in magnitudes if 0 < v <= self.max_value]
        least = [self.min_value] if self.full_range else []
        return torch.tensor([*least, *(-v for v in reversed(positive)), 0.0, *positive], dtype=torch.float32)


@cache
def parse(name: str, *others: str) -> Format:
    """The format that `name` stands for. `others` are what else would have been accepted, for the message.

    Raises:
        InputError: names the nearest known formats and says what the grammar accepts.
    """
    text = str(name).strip().lower()
    rotation = next((end for end in ROTATIONS if text.endswith(end)), "")
    base = text.removesuffix(rotation)
    if base in _NAMED:
        format_ = _NAMED[base]
    elif match := re.fullmatch(rf"int(\d+)({FULL})?", base):
        format_ = _integer(int(match[1]), full_range=bool(match[2]))
    elif match := re.fullmatch(r"uint(\d+)", base):
        format_ = _with_zero_point(int(match[1]))
    elif match := re.fullmatch(r"e(\d+)m(\d+)", base):
        format_ = _float(int(match[1]), int(match[2]))
    else:
        raise _refusal(str(name), "no such number format", f"; use {', '.join((*others, GRAMMAR))}")
    if not rotation:
        return format_
    if not format_.quantizes:
        raise InputError(f"{name}: bf16 is not quantized, so there is nothing to rotate for; use {GRAMMAR}")
    more = {"hadamard": True, "random_signs": ROTATIONS[rotation]}
    return dataclasses.replace(format_, name=format_.name + rotation, **more)


def _refusal(name: str, why: str, accepted: str = "") -> InputError:
    return InputError(f"{name}: {why}{nearest_names(name, known_names())}{accepted}")


def known_names() -> list[str]:
    """Every name that `parse` takes, those of rotated formats apart."""
    floats = [f"e{x}m{y}" for x in range(1, 9) for y in range(0, 15) if 3 <= 1 + x + y <= 16]
    integers = [f"int{b}{end}" for end in ("", FULL) for b in range(2, 17)]
    return [*integers, *[f"uint{b}" for b in range(2, 9)], *floats, *_NAMED]


def _integer(bits: int, *, full_range: bool = False) -> Format:
    name = f"int{bits}{FULL if full_range else ''}"
    if not 2 <= bits <= 16:
        raise _refusal(name, f"{bits} bits are out of range; integers have 2 to 16 bits")
    return Format(
        name=name,
        bits=bits,
        mantissa_bits=bits - 2,
        min_exponent=bits - 2,
        max_value=2.0 ** (bits - 1) - 1,
        full_range=full_range,
    )


def _with_zero_point(bits: int) -> Format:
    if not 2 <= bits <= 8:
        raise _refusal(f"uint{bits}", f"{bits} bits are out of range; integers with a zero point have 2 to 8 bits")
    return Format(
        name=f"uint{bits}",
        bits=bits,
        mantissa_bits=bits - 1,
        min_exponent=bits - 1,
        max_value=2.0**bits - 1,
        zero_point=True,
    )


def _float(exponent_bits: int, mantissa_bits: int) -> Format:
    name, bits = f"e{exponent_bits}m{mantissa_bits}", 1 + exponent_bits + mantissa_bits
    if exponent_bits < 1 or exponent_bits > 8 or not 3 <= bits <= 16:
        raise _refusal(name, f"{bits} bits with the sign; floats have 3 to 16 bits of which 1 to 8 are exponent bits")
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


def _microscaling(name: str, element: Format) -> Format:
    """OCP Microscaling v1.0: blocks of 32 that share a power of two, stored as an 8-bit exponent."""
    return dataclasses.replace(element, name=name, block=32, scale_rule="pow2_floor")


def _normal_float() -> Format:
    """NF4 of QLoRA (Dettmers et al., arXiv 2305.14314, Appendix E): quantiles of the normal distribution, eight above
    zero and seven below, divided by the largest. Zero is exact."""
    end = (1 - 1 / 32 + 1 - 1 / 30) / 2

    def quantiles(count: int) -> list[float]:
        probabilities = torch.linspace(end, 0.5, count + 1, dtype=torch.float64)[:-1]
        return torch.special.ndtri(probabilities).tolist()

    above, below = quantiles(8), quantiles(7)
    levels = sorted(v / above[0] for v in [*above, 0.0, *(-v for v in below)])
    return _listed("nf4", 4, levels)


def _listed(name: str, bits: int, levels: list[float], **more) -> Format:
    largest = max(map(abs, levels))
    return Format(
        name=name, bits=bits, mantissa_bits=0, min_exponent=0, max_value=largest, levels=tuple(levels), **more
    )


# BitNet b1.58 (arXiv 2402.17764) and BitNet (arXiv 2310.11453): signs, and signs with zero, times the mean magnitude.
# A ternary weight carries log2 3 = 1.58 bits and is stored in two.
_NAMED = {
    UNQUANTIZED: Format(name=UNQUANTIZED, bits=16, mantissa_bits=7, min_exponent=-126, max_value=float("inf")),
    "mxfp4": _microscaling("mxfp4", _float(2, 1)),
    "mxfp6": _microscaling("mxfp6", _float(2, 3)),
    "mxfp6_e2m3": _microscaling("mxfp6", _float(2, 3)),
    "mxfp6_e3m2": _microscaling("mxfp6_e3m2", _float(3, 2)),
    "mxfp8": _microscaling("mxfp8", _float(4, 3)),
    "mxfp8_e4m3": _microscaling("mxfp8", _float(4, 3)),
    "mxfp8_e5m2": _microscaling("mxfp8_e5m2", _float(5, 2)),
    "mxint8": _microscaling("mxint8", _integer(8)),
    "nvfp4": dataclasses.replace(_float(2, 1), name="nvfp4", block=16, scale_rule="e4m3"),
    "nf4": _normal_float(),
    "ternary": dataclasses.replace(_integer(2), name="ternary", scale_rule="absmean"),
    "binary": _listed("binary", 1, [-1.0, 1.0], scale_rule="absmean"),
}
