"""How the scale of a group of values is chosen, by the rules that `scaling.quantization.scale_rules` names: a matter
apart from the element format.

Scales are finite float32 numbers, so a group of zeros has one as well: normal ones, 2^-126 or more, and those that are
powers of two all that OCP's E8M0 has, 2^-127 to 2^127 (2^-126 to 2^127 where the device takes subnormal numbers for
zero). A group that holds a NaN or an infinity has the scale NaN, and all of it becomes NaN (all of the tensor, where it
has a second scale). Sums run over rows first and then over their sums: like that a model has the same scale alone and
in a stack, and whatever the strides of its values.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from scaling.quantization.dtypes import FLOAT32_MAX, largest_before
from scaling.quantization.formats import Format
from scaling.quantization.rounding import EXPONENT_BITS, SMALLEST, FormatStack
from scaling.quantization.scale_rules import POWERS, scale_rule

LEAST_INFINITE = 2.0**128 - 2.0**103
"""What float32 rounds to infinity."""
LEAST_POWER, MOST_POWER = -127, 127
"""Exponents of E8M0."""
FRACTION_BITS, BIAS = 23, 127
"""Of float32."""
LEAST_BITS = 0x00400000
"""2^-127, as float32 has it."""
SHRINK = [2.0 ** (-k / 16) for k in range(49)]
SIX_OVER_FOUR = 1.5


class Scale(NamedTuple):
    """What values are divided by, (M, G, 1), and the bounds of scaled values, which are None where nothing lies
    beyond them. Bounds are representable, so it is all the same whether values are clamped or rounded first; clamped
    first, none is infinite."""

    step: torch.Tensor
    low: torch.Tensor | None
    high: torch.Tensor | None

    def clamp_(self, y: torch.Tensor) -> torch.Tensor:
        """Bring scaled values within the bounds, in place."""
        if self.high is not None:
            torch.minimum(y, self.high, out=y)
            torch.maximum(y, self.low, out=y)
        return y

    def nearest(self, x: torch.Tensor, formats: FormatStack) -> torch.Tensor:
        """The representable values nearest to x, in the units of x."""
        return formats.nearest_(self.clamp_(x / self.step)).mul_(self.step)


class Scaler:
    """One rule, which `check_rule` has passed, for the formats of a stack."""

    def __init__(self, rule: str, formats: FormatStack):
        self.rule, self.formats = scale_rule(rule), formats
        scale_format = self.rule.format
        self.scale_format = None if scale_format is None else FormatStack([scale_format], formats.device)
        if rule == "absmax":
            # Up to the second the largest value is a finite float32.
            most = [_largest_step(f.max_value) for f in formats.computed]
            self.range = formats.column([SMALLEST] * len(most)), formats.column(most)
        if rule in POWERS:
            # The exponent of the largest value, and half a unit of the format's last place in the bits of a float32.
            self.top_exponent = formats.column(formats.tops, torch.int32)
            halves = [2 ** (FRACTION_BITS - 1 - f.mantissa_bits) for f in formats.computed]
            self.half_unit = formats.column(halves, torch.int32)
        if rule == "gaussian":
            self.factors = formats.column([gaussian_factor(f) if f.quantizes else 1.0 for f in formats.formats])

    def __call__(
        self, x_MGn: torch.Tensor, whole: bool = False, parts: int = 1, unit: torch.Tensor | None = None
    ) -> Scale:
        """The scale of every group.

        Args:
            x_MGn: float32 values, a group a row; or with `whole` (M, R, C), one group a model.
            parts: tensors of equal size that x holds one after the other.
            unit: the second scale of each tensor, where it has one and x is not all of the tensor (`unit`); by default
                it comes from x.
        """
        if self.rule.from_all:
            # Sums depend on the order of values in memory.
            x_MGn = x_MGn.contiguous()
        if self.rule.format is not None:
            return self._in_format(x_MGn, whole, parts, unit)
        if self.rule.from_all:
            # Sums and squares would leave the range of float32 long before the values do.
            unit = _normal(_floor_power(_amax(x_MGn, whole)))
            scale = self._from_all(x_MGn / unit, whole)
            return scale._replace(step=_normal(_finite(scale.step * unit)))
        if self.formats.family == "zero_point":
            return self._with_zero_point(x_MGn, whole)
        if self.rule.name == "absmax":
            step = self._covering(x_MGn, whole)
            return Scale(step.clamp(*self.range).add_(step - step), None, None)
        return self._within(self._power(x_MGn, whole))

    def may_exceed(self, dtype: torch.dtype) -> bool:
        """Whether results may lie beyond the largest value of their dtype although the values did not. Under absmax the
        scale is an ulp smaller where they would."""
        if self.rule.name == "pow2_floor":
            tops = zip(self.formats.largest, self.formats.tops, strict=True)
            return any(q * 2.0 ** (MOST_POWER - top) > largest_before(dtype) for q, top in tops)
        return self.rule.name != "absmax" or self.formats.family == "zero_point" or not self.formats.symmetric

    def bounded(self, scale: Scale) -> Scale:
        """The scale with its bounds, for other values than those it was chosen for."""
        return self._within(scale.step) if scale.high is None else scale

    def unit(self, x_MGn: torch.Tensor, parts: int = 1) -> torch.Tensor | None:
        """The second scale of each of `parts` tensors, (M, parts, 1, 1), None where they have none."""
        return self._unit(self._covering(x_MGn, whole=False).view(len(x_MGn), parts, -1, 1))

    def _unit(self, steps_MPG1: torch.Tensor) -> torch.Tensor | None:
        """Lets the largest scale of a tensor's groups meet the largest value of the format that scales are rounded to,
        or, where scales may become 6 / 4 times as large, a power of two that leaves room for that (256 in e4m3)."""
        if not self.rule.second:
            return None
        largest = self.rule.format.max_value
        if self.rule.four_over_six:
            largest = 2.0 ** math.floor(math.log2(largest / SIX_OVER_FOUR))
        return _normal(steps_MPG1.amax(dim=2, keepdim=True) / largest)

    def _covering(self, x: torch.Tensor, whole: bool) -> torch.Tensor:
        """The least scale under which no value lies beyond the format's."""
        if self.formats.symmetric:
            return _amax(x, whole) / self.formats.max_value
        axes = (1, 2) if whole else -1
        above, below = x.amax(dim=axes, keepdim=True), x.amin(dim=axes, keepdim=True)
        return torch.maximum(above / self.formats.max_value, below / self.formats.min_value)

    def _power(self, x: torch.Tensor, whole: bool) -> torch.Tensor:
        """The rule's power of two, one that E8M0 has. In integers: E8M0 has a subnormal float32."""
        rule = self.rule.name
        if rule in ("pow2_ceil", "pow2_nearest"):
            peak = self._covering(x, whole)
            exponent = (peak.view(torch.int32) >> FRACTION_BITS) - BIAS
            power = _power_of(exponent)
            exponent = exponent + (peak > (power if rule == "pow2_ceil" else power * 2**0.5))
        else:
            peak = _amax(x, whole)
            bits = peak.view(torch.int32)
            if rule == "pow2_even":
                bits = bits + self.half_unit
            exponent = (bits >> FRACTION_BITS) - BIAS - self.top_exponent
            if rule == "pow2_ceil_peak":
                exponent = exponent + (bits & (2**FRACTION_BITS - 1) > 0)
        power = _power_of(exponent.clamp(LEAST_POWER, MOST_POWER))
        # Where a device takes subnormal numbers for zero the least power is none.
        return torch.where(power > 0, power, SMALLEST) + (peak - peak)

    def _in_format(self, x: torch.Tensor, whole: bool, parts: int, unit: torch.Tensor | None) -> Scale:
        """Scales that are rounded to a format."""
        step = self._covering(x, whole)
        unit = self._unit(step.view(len(step), parts, -1, 1)) if unit is None else unit
        scale = self._bounded(self._rounded(step, parts, unit))
        if not self.rule.four_over_six:
            return scale
        wider = self._bounded(self._rounded(step * SIX_OVER_FOUR, parts, unit))
        power = _normal(_floor_power(_amax(x, whole)))
        return self._best(x, whole, (scale, wider), power)

    def _rounded(self, step: torch.Tensor, parts: int, unit: torch.Tensor | None) -> torch.Tensor:
        """Steps of the groups rounded to a format, never to zero."""
        fmt = self.rule.format
        by_part = step.view(len(step), parts, -1, 1)
        relative = (by_part if unit is None else by_part / unit).clamp_max(fmt.max_value).view(1, 1, -1)
        rounded = self.scale_format.nearest_(relative).clamp_min_(2.0 ** (fmt.min_exponent - fmt.mantissa_bits))
        rounded = rounded.view_as(by_part)
        return (rounded if unit is None else _finite(rounded * unit)).view_as(step)

    def _from_all(self, x_MGn: torch.Tensor, whole: bool) -> Scale:
        """Rules to which every value counts, not only the largest."""
        if self.rule.name == "mse":
            zero_point = self.formats.family == "zero_point"
            return self._with_zero_point(x_MGn, whole) if zero_point else self._least_error(x_MGn, whole)
        if self.rule.name == "gaussian":
            return self._bounded(_mean(x_MGn.square(), whole).sqrt_() * self.factors)
        if self.rule.name == "absmean":
            return self._bounded(_mean(x_MGn.abs(), whole) / self.formats.max_value.sqrt())
        return self._bounded(_quantile(x_MGn.abs(), self.rule.share, whole) / self.formats.max_value)

    def _bounded(self, step: torch.Tensor) -> Scale:
        return self._within(_normal(step))

    def _within(self, step: torch.Tensor) -> Scale:
        return Scale(step, self.formats.min_value, self.formats.max_value)

    def _least_error(self, x: torch.Tensor, whole: bool) -> Scale:
        start = _normal(self._covering(x, whole))
        return self._best(x, whole, (self._bounded(start * shrink) for shrink in SHRINK))

    def _best(
        self, x: torch.Tensor, whole: bool, candidates: Iterable[Scale], power: torch.Tensor | None = None
    ) -> Scale:
        """Of the candidates the one with the least squared error for each group, the first of equals; errors are taken
        in units of `power`, a power of two for each, where their squares would not be finite."""
        best, error = None, None
        for scale in candidates:
            apart = scale.nearest(x, self.formats).sub_(x)
            candidate_error = _mean((apart if power is None else apart.div_(power)).square_(), whole)
            if best is None:
                best, error = scale, candidate_error
                continue
            better = candidate_error < error
            error = torch.where(better, candidate_error, error)
            best = Scale(*(torch.where(better, new, old) for new, old in zip(scale, best, strict=True)))
        return best

    def _with_zero_point(self, x: torch.Tensor, whole: bool) -> Scale:
        axes = (1, 2) if whole else -1
        low = x.amin(dim=axes, keepdim=True).clamp_max(0.0)
        high = x.amax(dim=axes, keepdim=True).clamp_min(0.0)

        def candidate(shrink: float) -> Scale:
            step = _normal((high / self.formats.max_value - low / self.formats.max_value) * shrink)
            least = (low * shrink / step).round_()
            return Scale(step, least, least + self.formats.max_value)

        return candidate(1.0) if self.rule.name == "absmax" else self._best(x, whole, map(candidate, SHRINK))


def _normal(step: torch.Tensor) -> torch.Tensor:
    """At least the smallest normal number. NaN where it is not finite: a value of the group was not."""
    return step.clamp_min(SMALLEST).add_(step - step)


def _amax(x: torch.Tensor, whole: bool) -> torch.Tensor:
    return x.abs().amax(dim=(1, 2) if whole else -1, keepdim=True)


def _mean(x: torch.Tensor, whole: bool) -> torch.Tensor:
    rows = x.mean(-1, keepdim=True)
    return rows.mean(1, keepdim=True) if whole else rows


def _quantile(magnitude: torch.Tensor, share: float, whole: bool) -> torch.Tensor:
    """The smallest magnitude that at least `share` of a group does not exceed."""
    values = magnitude.reshape(len(magnitude), 1, -1) if whole else magnitude
    rank = math.ceil(round(values.shape[-1] * share, 6))
    return values.kthvalue(max(rank, 1), dim=-1, keepdim=True).values


def _floor_power(x: torch.Tensor) -> torch.Tensor:
    """2^floor(log2 x) of positive float32; what is not finite stays so."""
    power = x.view(torch.int32).bitwise_and(EXPONENT_BITS).view(torch.float32)
    return power + (x - x)


def _power_of(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent of int32 from -127 to 127; 128 is infinite."""
    bits = torch.where(exponent > LEAST_POWER, (exponent + BIAS) << FRACTION_BITS, LEAST_BITS)
    return bits.view(torch.float32)


def _finite(step: torch.Tensor) -> torch.Tensor:
    """A product of finite numbers or NaN, at most the largest number."""
    return step.clamp_max(FLOAT32_MAX)


@cache
def _largest_step(largest: float) -> float:
    """The largest float32 whose product with a format's `largest` value is, in float32, finite."""
    step = np.float32(FLOAT32_MAX / largest)
    return float(step if float(step) * largest < LEAST_INFINITE else np.nextafter(step, np.float32(0)))


@cache
def gaussian_factor(fmt: Format) -> float:
    """Scale that gives `fmt` the least mean squared error on standard normal values."""
    # Quantiles of the distribution stand in for a sample of it: the tails beyond them weigh less than 1e-6.
    count = 2**15
    x = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float().view(1, 1, -1)
    stack = FormatStack([fmt])

    def error(log2_factor: float) -> float:
        scale = Scale(torch.full((1, 1, 1), 2.0**log2_factor), stack.min_value, stack.max_value)
        return scale.nearest(x, stack).sub_(x).double().square_().mean().item()

    start = float(torch.log2(4.5 / stack.max_value))
    coarse = min((start - k / 16 for k in range(80)), key=error)
    return 2.0 ** min((coarse + k / 256 for k in range(-16, 17)), key=error)
