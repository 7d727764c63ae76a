"""Rounding scaled values to the nearest values of a format, for the M models of a stack at once.

Two details make it exact and cheap. floor(log2 |y|) is read off the exponent bits: float32 viewed as int32 and masked
with 0x7F800000 *is* 2^floor(log2 |y|) when viewed back, where `log2` would be off near powers of two and costs three
times as much. And the spacing of the grid is a power of two, so dividing by it and multiplying back is exact: the only
rounding is the one that is meant.

What looks roundabout is measured: on a CPU `clamp` with tensor bounds and `where` with a broadcast condition take five
to ten times as long as any other pass over the values, so neither is used.

Ties. Nearest-even throughout; without mantissa bits a normal value has no even neighbour, and ties between two of them
go away from zero; in a list of levels the upper one wins.

Stochastic rounding draws from a hash of each value's own bits and its place in its model's tensor. It needs no
generator and no state: a resumed run, and a model in other company, round as before.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from scaling.quantization.formats import Format, parse

EXPONENT_BITS = 0x7F800000
SMALLEST = 2.0**-126
"""The smallest normal float32."""


def family(fmt: Format) -> str:
    """`grid` (triples), `levels` or `zero_point`: formats of one family can share a stack. Unquantized ones count
    as `grid`."""
    return "levels" if fmt.levels is not None else "zero_point" if fmt.zero_point else "grid"


class FormatStack:
    """The formats of one part (weights, say) for the M models of a stack, as tensors of shape (M, 1, 1)."""

    def __init__(self, formats: Sequence[Format], device: torch.device | str = "cpu"):
        self.formats, self.device = list(formats), device
        # Known when the stack is made, these skip work that would not change a bit of the result.
        self.any_quantized = any(f.quantizes for f in self.formats)
        self.passing = [m for m, f in enumerate(self.formats) if not f.quantizes] if self.any_quantized else []
        self.passes = torch.tensor([not f.quantizes for f in self.formats], device=device).view(-1, 1, 1)
        # An unquantized member is computed like a quantized one and then replaced by its input.
        stand_in = next((f for f in self.formats if f.quantizes), parse("int16"))
        self.computed = computed = [f if f.quantizes else stand_in for f in self.formats]
        families = {family(f) for f in computed}
        assert len(families) == 1, families
        self.family = families.pop()
        self.all_integer = all(f.is_integer for f in computed)
        self.max_value = self.column([f.max_value for f in computed])
        self.min_value = self.column([f.min_value for f in computed])
        self.symmetric = not any(f.full_range for f in computed)
        self.largest = [f.largest for f in computed]
        self.min_power = self.column([2.0**f.min_exponent for f in computed])
        self.fraction = self.column([2.0**-f.mantissa_bits for f in computed])
        # Whether a spacing may be a subnormal float32, which some devices take for zero.
        self.fine = any(2.0 ** (f.min_exponent - f.mantissa_bits) < SMALLEST for f in computed)
        # Exponents of the largest values: what the floor rule of microscaling aligns.
        self.tops = [math.frexp(f.max_value)[1] - 1 for f in computed]
        if self.family == "levels":
            count = max(len(f.levels) for f in computed)
            padded = [[*f.levels, *[float("inf")] * (count - len(f.levels))] for f in computed]
            self.levels = torch.tensor(padded, dtype=torch.float32, device=device)
            self.halves = (self.levels[:, 1:] + self.levels[:, :-1]) / 2

    def column(self, values: Iterable[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A value for each model, (M, 1, 1)."""
        return torch.tensor([*values], dtype=dtype, device=self.device).view(-1, 1, 1)

    def with_passing(self, q_MRC: torch.Tensor, x_MRC: torch.Tensor) -> torch.Tensor:
        """q with the values of x for the members that are not quantized; may work in place."""
        if not self.passing:
            return q_MRC
        if q_MRC.device.type != "cpu":
            return torch.where(self.passes, x_MRC, q_MRC)  # one launch, however many they are
        for m in self.passing:
            q_MRC[m].copy_(x_MRC[m])
        return q_MRC

    def nearest_(self, y_MGn: torch.Tensor) -> torch.Tensor:
        """The nearest representable value of each scaled float32 value; may work in place. Values beyond the largest
        are the caller's to clamp."""
        if self.all_integer:
            # |y| stays below 2^(min_exponent + 1), where the spacing is 1: the general rule gives the same.
            return y_MGn.round_()
        if self.family == "levels":
            flat = y_MGn.reshape(len(y_MGn), -1)
            index = torch.searchsorted(self.halves, flat, right=True)
            return torch.gather(self.levels, 1, index).view_as(y_MGn).add_(y_MGn * 0)  # keeps NaN
        spacings, factors = self._in_spacings(y_MGn)
        return _times(spacings.round_(), factors)

    def stochastic_(self, y_MGn: torch.Tensor, noise_MGn: torch.Tensor) -> torch.Tensor:
        """One of the two neighbours, the upper with the probability that makes the mean equal to the value. `noise` is
        uniform in [0, 1). May work in place."""
        if self.family == "levels":
            flat = y_MGn.reshape(len(y_MGn), -1)
            upper = torch.searchsorted(self.levels, flat, right=True).clamp_(1, self.levels.shape[1] - 1)
            low, high = torch.gather(self.levels, 1, upper - 1), torch.gather(self.levels, 1, upper)
            up = noise_MGn.reshape_as(flat) * (high - low) < flat - low
            return torch.where(up, high, low).view_as(y_MGn).add_(y_MGn * 0)
        if self.all_integer:
            floor = y_MGn.floor()
            return floor.add_(noise_MGn < y_MGn - floor)
        spacings, factors = self._in_spacings(y_MGn)
        floor = spacings.floor()
        return _times(floor.add_(noise_MGn < spacings - floor), factors)

    def _in_spacings(self, y: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Each y in units of the distance of the representable values around it, worked out in place, and the factors
        that lead back."""
        power = y.view(torch.int32).bitwise_and(EXPONENT_BITS).view(torch.float32)
        torch.maximum(power, self.min_power, out=power)
        if self.fine:
            return y.div_(power).div_(self.fraction), (self.fraction, power)
        return y.div_(power.mul_(self.fraction)), (power,)


def _times(values: torch.Tensor, factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The product, in place of the values."""
    for factor in factors:
        values.mul_(factor)
    return values


def noise_of(x_MGn: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1) of the shape of float32 x, each a hash of the value's bits and of its place within its
    own model."""
    place = torch.arange(x_MGn[0].numel(), device=x_MGn.device, dtype=torch.int32).view(x_MGn.shape[1:])
    mixed = x_MGn.view(torch.int32) ^ (place * 0x3C6EF372)
    # An integer hash that spreads every input bit over all 32. Products wrap around, as is meant.
    for _ in range(2):
        mixed = ((mixed >> 16) & 0xFFFF).bitwise_xor_(mixed).mul_(0x45D9F3B)
    return (((mixed >> 16) & 0xFFFF).bitwise_xor_(mixed) & 0xFFFFFF).float().mul_(2.0**-24)
