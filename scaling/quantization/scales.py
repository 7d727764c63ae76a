"""How the scale of a group of values is chosen: a rule apart from the element format.

| rule | scale s of a group, for an element format whose largest value is Q |
|---|---|
| `absmax` | max abs(x) / Q, so that nothing is clipped (arXiv 2411.04330, Appendix D) |
| `pow2_floor` | 2^(floor(log2 max abs(x)) - floor(log2 Q)), that of OCP Microscaling v1.0; clips values above s Q |
| `pow2_ceil`, `pow2_nearest` | the power of two that is next above, or nearest (in log) to, the absmax scale |
| e<x>m<y> | the absmax scale rounded to that format, in units that map the tensor's largest onto it (NVFP4: `e4m3`) |
| `mse` | least squared error over absmax scales shrunk by 2^(-k / 16), k = 0 to 48 |
| `gaussian` | root mean square of x, times what is best for normally distributed values (QuEST, arXiv 2502.05003) |
| `percentile<p>` | the p-th percentile of abs(x), divided by Q |
| `absmean` | mean abs(x) / sqrt(Q) (BitNet b1.58, arXiv 2402.17764, for Q = 1; BitNet a4.8, 2411.04965, for others) |

Scales are finite float32 numbers, so a group of zeros has one as well: normal ones, 2^-126 or more, and those that are
powers of two all that OCP's E8M0 has, 2^-127 to 2^127 (2^-126 to 2^127 where the device takes subnormal numbers for
zero). A group that holds a NaN or an infinity has the scale NaN, and all of it becomes NaN (all of the tensor, where
scales are rounded to a format). Sums run over rows first and then over their sums: like that a model has the same scale
alone and in a stack, and whatever the strides of its values.

With a zero point (`uint4`) the range is that from the least to the largest value, zero included; the rules are `absmax`
(all of the range) and `mse`.
"""

import math
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

from scaling.errors import InputError
from scaling.quantization.dtypes import FLOAT32_MAX, largest_before
from scaling.quantization.formats import Format, parse
from scaling.quantization.rounding import EXPONENT_BITS, SMALLEST, FormatStack

LEAST_POWER, MOST_POWER = 2.0**-127, 2.0**127
"""Of E8M0."""
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SHRINK = [2.0 ** (-k / 16) for k in range(49)]
POWERS = ("pow2_floor", "pow2_ceil", "pow2_nearest")
"""Rules whose scales are powers of two, stored as OCP's E8M0."""
NAMED = ("absmax", *POWERS, "mse", "gaussian", "absmean")
RULES = "absmax, pow2_floor, pow2_ceil, pow2_nearest, mse, gaussian, absmean, percentile<p> such as percentile99.9, or \
a format of scales such as e4m3; auto takes the format's own"


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


def check_rule(rule: str, fmt: Format) -> str:
    """The rule in effect for a format, by the one name that it has: `auto` is the format's own.

    Raises:
        InputError: no such rule, or not one for this format.
    """
    asked = str(rule)
    rule = asked.strip().lower()
    rule = fmt.scale_rule if rule == "auto" else rule
    share, scale_format = _percentile(rule), _scale_format(rule)
    if share is not None:
        rule = f"percentile{100 * share:.12g}"
    elif scale_format is not None:
        rule = scale_format.name
    elif rule not in NAMED:
        raise InputError(f"{asked}: no such scale rule; use {RULES}")
    if rule == "e8m0":
        raise InputError(f"{asked}: does not say how the power of two is chosen; use {' or '.join(POWERS)}")
    if fmt.zero_point and rule not in ("absmax", "mse"):
        raise InputError(f"{rule}: not for {fmt.name}, which has a zero point; use absmax or mse")
    return rule


def counts_zeros(rule: str) -> bool:
    """Whether zeros that are added to a group change its scale."""
    return rule in ("gaussian", "absmean") or _percentile(rule) is not None


def stored_bits(rule: str, fmt: Format) -> tuple[int, int]:
    """Bits that a scale takes: for each group (with its zero point), and once a tensor."""
    scale_format = _scale_format(rule)
    if scale_format is not None:
        return scale_format.bits, 32
    return (8 if rule in POWERS else 16) + (fmt.bits if fmt.zero_point else 0), 0


class Scaler:
    """One rule, which `check_rule` has passed, for the formats of a stack."""

    def __init__(self, rule: str, formats: FormatStack):
        self.rule, self.formats = rule, formats
        self.share = _percentile(rule)
        self.from_all = rule == "mse" or counts_zeros(rule)
        scale_format = _scale_format(rule)
        self.scale_format = None if scale_format is None else FormatStack([scale_format], formats.device)
        largest = formats.largest
        # The largest scales with which all results are finite in a dtype, and dtypes in which pow2_floor exceeds that.
        self.most = {
            dtype: torch.tensor([_largest_step(dtype, q) for q in largest], device=formats.device).view(-1, 1, 1)
            for dtype in DTYPES
        }
        reach = max(q / power for q, power in zip(largest, formats.top_powers, strict=True))
        self.exceeded = {dtype for dtype in DTYPES if reach * MOST_POWER > largest_before(dtype)}
        if rule == "gaussian":
            factors = [gaussian_factor(f) if f.quantizes else 1.0 for f in formats.formats]
            self.factors = torch.tensor(factors, device=formats.device).view(-1, 1, 1)

    def __call__(
        self,
        x_MGn: torch.Tensor,
        whole: bool = False,
        parts: int = 1,
        unit: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Scale:
        """The scale of every group.

        Args:
            x_MGn: float32 values, a group a row; or with `whole` (M, R, C), one group a model.
            parts: tensors of equal size that x holds one after the other.
            unit: the second scale of each tensor, where scales are rounded to a format and x is not all of the tensor
                (`unit`); by default it comes from x.
            dtype: that of the results (see `may_exceed`).
        """
        if self.from_all:
            # Sums depend on the order of values in memory.
            x_MGn = x_MGn.contiguous()
        peak, largest = _amax(x_MGn, whole), self.formats.max_value
        if self.from_all:
            # Sums and squares would leave the range of float32 long before the values do.
            unit = _normal(_floor_power(peak))
            scale = self._from_all(x_MGn / unit, whole)
            return scale._replace(step=_normal(_finite(scale.step * unit)))
        if self.formats.family == "zero_point":
            return self._with_zero_point(x_MGn, whole)
        if self.rule == "absmax":
            return Scale(_normal(torch.minimum(peak / largest, self.most[dtype]) + (peak - peak)), None, None)
        if self.rule in POWERS:
            return self._within(self._power(peak))
        return self._bounded(self._rounded(peak / largest, parts, unit))

    def may_exceed(self, dtype: torch.dtype) -> bool:
        """Whether results may lie beyond the largest value of their dtype although the values did not. Under absmax the
        scale is an ulp smaller where they would."""
        if self.formats.family == "zero_point" or self.rule not in ("absmax", "pow2_floor"):
            return True
        return self.rule == "pow2_floor" and dtype in self.exceeded

    def _from_all(self, x_MGn: torch.Tensor, whole: bool) -> Scale:
        """Rules to which every value counts, not only the largest."""
        if self.rule == "mse":
            zero_point = self.formats.family == "zero_point"
            return self._with_zero_point(x_MGn, whole) if zero_point else self._least_error(x_MGn, whole)
        if self.rule == "gaussian":
            return self._bounded(_mean(x_MGn.square(), whole).sqrt_() * self.factors)
        if self.rule == "absmean":
            return self._bounded(_mean(x_MGn.abs(), whole) / self.formats.max_value.sqrt())
        return self._bounded(_quantile(x_MGn.abs(), self.share, whole) / self.formats.max_value)

    def bounded(self, scale: Scale) -> Scale:
        """The scale with its bounds, for other values than those it was chosen for."""
        return self._within(scale.step) if scale.high is None else scale

    def _power(self, peak: torch.Tensor) -> torch.Tensor:
        """The rule's power of two, one that E8M0 has."""
        if self.rule == "pow2_floor":
            power = _floor_power(peak) / self.formats.top_power
        else:
            step = peak / self.formats.max_value
            floor = _floor_power(step).clamp_min(LEAST_POWER)
            power = torch.where(step > (floor if self.rule == "pow2_ceil" else floor * 2**0.5), floor * 2, floor)
        power = power.clamp(LEAST_POWER, MOST_POWER)
        # Where a device takes subnormal numbers for zero the least power is none.
        return torch.where(power > 0, power, SMALLEST) + (peak - peak)

    def unit(self, x_MGn: torch.Tensor, parts: int = 1) -> torch.Tensor | None:
        """The second scale of each of `parts` tensors, (M, parts, 1, 1), that lets the largest scale of its groups meet
        the largest value of the format that scales are rounded to. None where the rule has no such format."""
        if self.scale_format is None:
            return None
        return self._unit((_amax(x_MGn, whole=False) / self.formats.max_value).view(len(x_MGn), parts, -1, 1))

    def _unit(self, steps_MPG1: torch.Tensor) -> torch.Tensor:
        return _normal(steps_MPG1.amax(dim=2, keepdim=True) / self.scale_format.max_value)

    def _rounded(self, step: torch.Tensor, parts: int, unit: torch.Tensor | None) -> torch.Tensor:
        """Steps of the groups rounded to a format, never to zero."""
        by_part = step.view(len(step), parts, -1, 1)
        unit = self._unit(by_part) if unit is None else unit
        fmt = self.scale_format.formats[0]
        relative = (by_part / unit).clamp_max(fmt.max_value).view(1, 1, -1)
        rounded = self.scale_format.nearest_(relative).clamp_min_(2.0 ** (fmt.min_exponent - fmt.mantissa_bits))
        return _finite(rounded.view_as(by_part) * unit).view_as(step)

    def _bounded(self, step: torch.Tensor) -> Scale:
        return self._within(_normal(step))

    def _within(self, step: torch.Tensor) -> Scale:
        return Scale(step, -self.formats.max_value, self.formats.max_value)

    def _least_error(self, x: torch.Tensor, whole: bool) -> Scale:
        start = _normal(_amax(x, whole) / self.formats.max_value)
        return self._search(x, whole, lambda shrink: self._bounded(start * shrink))

    def _search(self, x: torch.Tensor, whole: bool, candidate: Callable[[float], Scale]) -> Scale:
        """Of the scales `candidate(shrink)` the one with the least squared error for each group; the largest of
        equals."""
        best, error = None, None
        for shrink in SHRINK:
            scale = candidate(shrink)
            candidate_error = _mean(scale.nearest(x, self.formats).sub_(x).square_(), whole)
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

        return candidate(1.0) if self.rule == "absmax" else self._search(x, whole, candidate)


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


def _finite(step: torch.Tensor) -> torch.Tensor:
    """A product of finite numbers or NaN, at most the largest number."""
    return step.clamp_max(FLOAT32_MAX)


@cache
def _largest_step(dtype: torch.dtype, largest: float) -> float:
    """The largest float32 whose product with a format's `largest` value, in float32, is finite in a dtype."""
    limit = largest_before(dtype)
    step = torch.tensor(limit / largest)
    if step * largest > limit:
        step = torch.nextafter(step, torch.zeros(()))
    return step.item()


@cache
def _percentile(rule: str) -> float | None:
    match = re.fullmatch(r"percentile(\d+(?:\.\d+)?)", rule)
    share = float(match[1]) / 100 if match else None
    return share if share is not None and 0 < share <= 1 else None


@cache
def _scale_format(rule: str) -> Format | None:
    try:
        return parse(rule) if re.fullmatch(r"e\d+m\d+", rule) else None
    except InputError:
        return None


@cache
def gaussian_factor(fmt: Format) -> float:
    """Scale that gives `fmt` the least mean squared error on standard normal values."""
    # Quantiles of the distribution stand in for a sample of it: the tails beyond them weigh less than 1e-6.
    count = 2**15
    x = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float().view(1, 1, -1)
    stack = FormatStack([fmt])

    def error(log2_factor: float) -> float:
        scale = Scale(torch.full((1, 1, 1), 2.0**log2_factor), -stack.max_value, stack.max_value)
        return scale.nearest(x, stack).sub_(x).double().square_().mean().item()

    start = float(torch.log2(4.5 / stack.max_value))
    coarse = min((start - k / 16 for k in range(80)), key=error)
    return 2.0 ** min((coarse + k / 256 for k in range(-16, 17)), key=error)
