"""AWQ (Lin et al., arXiv 2306.00978), for many settings and many layers in one pass.

Channels of a layer's input that are large on average matter most. Before rounding, their weights are scaled up by
s = (mean abs(x))^alpha, and the inputs down by as much, which a kernel folds into the norm in front; here the weights
are scaled down again after rounding, so that the result is a plain weight. alpha comes from a grid in [0, 1); the
least error of the layer's outputs wins. Then, as a switch, weights are clipped to a share of the largest of their
group, again by least error, with one share a row (or for the rows that share scales).

alpha = 0 without clipping is round to nearest, so the result is never worse. The authors measure errors behind the
whole attention or feed-forward block and clip group by group; here both are those of the layer itself, so that the
Hessian is all that is needed.
"""

import torch
import torch.nn.functional as F

from scaling.errors import InputError
from scaling.ptq.layers import Statistics, checked, checked_inputs, in_float32, row_errors, statistics
from scaling.ptq.rtn import rtn_layers
from scaling.quantization.dtypes import saturated
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec

SHARES = tuple(1 - k / 20 for k in range(11))
"""Of the largest weight, to clip to: 1, 0.95, ..., 0.5, as the authors' program has them."""


def awq(
    weight: torch.Tensor,
    inputs: torch.Tensor,
    fmt: str,
    granularity: str = "channel",
    *,
    scale_rule: str = "auto",
    clip: bool = True,
    grid: int = 20,
) -> torch.Tensor:
    """Dequantized `weight` (out, in), same dtype, scaled and clipped for least error on `inputs` (samples, in).

    Never worse than `rtn` on mean |(w - q) x|^2 over the inputs; that of `rtn` where all inputs are zero.

    Args:
        fmt, granularity, scale_rule: as for `rtn`, `-hadamard` formats apart.
        clip: whether weights may be clipped.
        grid: values of alpha: 0, 1 / grid, ..., (grid - 1) / grid.

    Raises:
        InputError: as for `rtn`; inputs that do not fit or are not finite; a format that rotates.
    """
    spec = QuantSpec.of(fmt, granularity, scale_rule)
    if spec.format.hadamard:
        raise InputError(f"{spec.format.name}: awq scales channels, which a rotation mixes; use rtn or gptq")
    if not isinstance(grid, int) or grid < 1:
        raise InputError(f"grid={grid}: must be a whole number, at least 1")
    quantizer = Quantizer([spec], weight.device)
    w = checked(weight)
    calibration = statistics(checked_inputs(inputs, w)[None])
    if not w.numel() or not quantizer.formats.any_quantized:
        return w
    w, unit = in_float32(w)
    return saturated(awq_layers(w[None], calibration, quantizer, 1, clip=clip, grid=grid)[0, 0] * unit, w.dtype)


def awq_layers(
    w_Loi: torch.Tensor, calibration: Statistics, quantizer: Quantizer, parts: int, *, clip: bool, grid: int
) -> torch.Tensor:
    """Each of the quantizer's K formats for each of L layers of one shape: (K, L, out, in) in the dtype of w."""
    hessian, dtype = calibration.hessian_Lii, w_Loi.dtype
    w = w_Loi.float()
    plain = rtn_layers(w_Loi, quantizer, parts)
    plain_error = row_errors(plain, w_Loi, hessian).sum(-1)
    best, error = plain, plain_error
    factors = torch.ones(plain.shape[:2] + w.shape[-1:], device=w.device)
    for k in range(1, grid):
        s = _factors(calibration.magnitude_Li, k / grid)
        q = saturated(rtn_layers(w * s[:, None], quantizer, parts) / s[:, None], dtype)
        candidate_error = row_errors(q, w_Loi, hessian).sum(-1)
        better = candidate_error < error
        error = torch.where(better, candidate_error, error)
        best = torch.where(better[..., None, None], q, best)
        factors = torch.where(better[..., None], s, factors)
    if clip:
        best = _clipped(w_Loi, factors, best, hessian, quantizer, parts)
        # Scales that are rounded to a format depend on all rows: rows that were best apart need not be so together.
        worse = row_errors(best, w_Loi, hessian).sum(-1) > plain_error
        best = torch.where(worse[..., None, None], plain, best)
    return best


def _factors(magnitude_Li: torch.Tensor, alpha: float) -> torch.Tensor:
    """s of each input, as float32, normalized so that the largest and the smallest are each other's inverse."""
    s = magnitude_Li.pow(alpha).clamp_min(1e-4)
    return (s / (s.amax(1, keepdim=True) * s.amin(1, keepdim=True)).sqrt()).float()


def _clipped(
    w_Loi: torch.Tensor,
    factors_KLi: torch.Tensor,
    q_KLoi: torch.Tensor,
    hessian: torch.Tensor,
    quantizer: Quantizer,
    parts: int,
) -> torch.Tensor:
    """The best clipping of each row, starting from none, which gave `q`."""
    count, layers, rows, columns = q_KLoi.shape
    scaled = (w_Loi.float() * factors_KLi[:, :, None]).view(count, layers * rows, columns)
    grouped, whole = quantizer.groups(scaled, layers * parts)
    largest = grouped.abs().amax(dim=(1, 2) if whole else -1, keepdim=True)
    best, error = q_KLoi, _together(row_errors(q_KLoi, w_Loi, hessian), quantizer, parts)
    for share in SHARES[1:]:
        bound = largest * share
        inside = torch.maximum(torch.minimum(grouped, bound), -bound)
        inside = quantizer.ungroup(inside, scaled.shape, layers * parts)
        q = quantizer.values(inside, layers * parts).view_as(q_KLoi) / factors_KLi[:, :, None]
        q = saturated(q, w_Loi.dtype)
        candidate_error = _together(row_errors(q, w_Loi, hessian), quantizer, parts)
        better = candidate_error < error
        error = torch.where(better, candidate_error, error)
        best = torch.where(better[..., None], q, best)
    return best


def _together(error_KLo: torch.Tensor, quantizer: Quantizer, parts: int) -> torch.Tensor:
    """Errors of rows; where some of them share scales, the sum over these at each of them."""
    by_matrix = error_KLo.unflatten(2, (parts, -1))
    rows = by_matrix.shape[-1]
    tall = rows if quantizer.spec.granularity == "tensor" else quantizer.spec.block_rows
    if tall == 1:
        return error_KLo
    bands = F.pad(by_matrix, (0, -rows % tall)).unflatten(3, (-1, tall)).sum(-1, keepdim=True).expand(*[-1] * 4, tall)
    return bands.flatten(3)[..., :rows].flatten(2)
