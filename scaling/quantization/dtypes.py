"""Values of any floating dtype as float32, in which all is computed, and back: what is finite stays finite.

Where values lie beyond float32 (float64 has such), or where their rotation would, all is computed in units of a power
of two, one for each model. Results beyond the largest value of their dtype take that value.
"""

import math

import torch

FLOAT32_MAX = torch.finfo(torch.float32).max
ROTATED_MAX = 2.0**120
"""Sums of 128 values stay within float32 up to here."""
IN_UNITS = 100
"""Values in units lie below this power of two."""


def unit_of(x_MRC: torch.Tensor, limit: float) -> torch.Tensor:
    """The power of two in units of which the values of each model are computed, (M, 1, 1): 1 unless they exceed `limit`
    and are finite."""
    peak = x_MRC.abs().amax(dim=(1, 2), keepdim=True)
    exponent = peak.frexp().exponent - IN_UNITS
    beyond = (peak > limit) & peak.isfinite()
    return torch.ldexp(torch.ones_like(peak), torch.where(beyond, exponent, torch.zeros_like(exponent)))


def saturated(q_MRC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Results in `dtype`; may work in place. Infinities count as results beyond the largest value, NaN stay."""
    limit = min(torch.finfo(dtype).max, torch.finfo(q_MRC.dtype).max)
    q_MRC = q_MRC.clamp_(-limit, limit)
    return q_MRC if q_MRC.dtype == dtype else q_MRC.to(dtype)


def largest_before(dtype: torch.dtype) -> float:
    """The largest float32 that is finite in `dtype`, which may lie half a unit in the last place beyond the dtype's own
    largest value."""
    info = torch.finfo(dtype)
    if info.bits >= 32:
        return FLOAT32_MAX
    exponent = math.frexp(info.max)[1] - 1
    return (2 - info.eps / 2) * 2.0**exponent - 2.0 ** (exponent - 23)
