"""GPTQ (Frantar et al., arXiv 2210.17323), for many settings and many layers in one pass.

Columns of a weight are rounded one after the other, and the error of each is made up for by the columns that are still
to come, in the way that changes the layer's outputs least: with the upper Cholesky factor U of the inverse Hessian,
column j passes error (w_j - q_j) / U_jj on to the others along U_j. Rows never meet: the Hessian is that of the inputs
and the same for all rows, and so for all settings as well. That is why every format and bit width of a layer shares one
factorization and one walk through its columns, and so do layers of one shape.

As in the authors' program: lazy updates in batches of columns; scales of blocks are taken from the weights as they
stand when the walk comes to the block, but from the original weights under act-order (columns by descending diagonal of
the Hessian), where a block's columns are not walked in one go. Inputs that are always zero leave their column to plain
rounding. Unlike there, the inputs are those of the unquantized model in all layers; `scaling.ptq.sequential` has those
behind layers that are quantized already.

The Hessian is damped by a share of its mean diagonal, which grows by powers of ten until it can be factorized.
"""

from typing import NamedTuple

import torch

from scaling.errors import InputError
from scaling.ptq.layers import checked, checked_inputs, in_float32, row_errors, statistics
from scaling.ptq.rtn import rtn_layers
from scaling.quantization.dtypes import saturated
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.hadamard import rotate, rotate_back
from scaling.quantization.scales import Scale
from scaling.quantization.spec import QuantSpec

LAZY = 128
"""Columns after which the rest of the weight is updated."""
MOST_DAMPING = 1e3


class Outcome(NamedTuple):
    """Dequantized weights (K, L, out, in) in the dtype of the weights, and what had to be done to get them."""

    weights: torch.Tensor
    damping: list[float]
    """Of each layer, as a share of the mean diagonal; infinite where none helped and weights are plainly rounded."""
    rounded: torch.Tensor
    """(K, L): where plain rounding was no worse, and was kept."""


def gptq(
    weight: torch.Tensor,
    inputs: torch.Tensor,
    fmt: str,
    granularity: str = "channel",
    *,
    scale_rule: str = "auto",
    act_order: bool = False,
    damping: float = 0.01,
) -> torch.Tensor:
    """Dequantized `weight` (out, in), same dtype, with errors made up for on `inputs` (samples, in).

    Never worse than `rtn` on mean |(w - q) x|^2 over the inputs: where it would be, the result is that of `rtn`. Fewer
    samples than inputs leave the Hessian singular, which the damping cures.

    Args:
        fmt, granularity, scale_rule: as for `rtn`.
        act_order: walk the columns in the order of falling mean squares of their inputs.
        damping: share of the Hessian's mean diagonal that is added to it, ten times as much as often as needed.

    Raises:
        InputError: as for `rtn`; inputs that do not fit, are not finite or all zero; damping not above 0.
    """
    quantizer = Quantizer([QuantSpec.of(fmt, granularity, scale_rule)], weight.device)
    w = checked(weight)
    hessian, _ = statistics(checked_inputs(inputs, w)[None])
    if not isinstance(damping, int | float) or not damping > 0:
        raise InputError(f"damping={damping}: must be above 0")
    if not w.numel() or not quantizer.formats.any_quantized:
        return w
    if not hessian.any():
        raise InputError("inputs: all zero; there is nothing to calibrate on")
    w, unit = in_float32(w)
    quantized = gptq_layers(w[None], hessian, quantizer, 1, act_order=act_order, damping=damping)
    return saturated(quantized.weights[0, 0] * unit, w.dtype)


def gptq_layers(
    w_Loi: torch.Tensor,
    hessian_Lii: torch.Tensor,
    quantizer: Quantizer,
    parts: int,
    *,
    act_order: bool,
    damping: float,
) -> Outcome:
    """Each of the quantizer's K formats for each of L layers of one shape, which hold `parts` matrices each."""
    plain = rtn_layers(w_Loi, quantizer, parts)
    w, hessian = w_Loi.float(), hessian_Lii
    if quantizer.hadamard:
        w = rotate(w, signs=quantizer.signs)
        hessian = rotate(rotate(hessian, signs=quantizer.signs).transpose(1, 2), signs=quantizer.signs)
    factor, dampings = _factors(hessian, damping, act_order)
    order = _order(hessian, act_order)
    q = _walk(w, factor, order, quantizer, parts, act_order)
    if quantizer.hadamard:
        q = rotate_back(q.flatten(0, 1), signs=quantizer.signs).view_as(q)
    q = saturated(q, w_Loi.dtype)
    error, plain_error = (row_errors(v, w_Loi, hessian_Lii).sum(-1) for v in (q, plain))
    worse = ~(error < plain_error)  # also where no factor was found
    return Outcome(torch.where(worse[..., None, None], plain, q), dampings, worse)


def _order(hessian_Lii: torch.Tensor, act_order: bool) -> torch.Tensor:
    diagonal = hessian_Lii.diagonal(dim1=1, dim2=2)
    if act_order:
        return diagonal.argsort(dim=1, descending=True, stable=True)
    return torch.arange(diagonal.shape[1], device=diagonal.device).expand_as(diagonal)


def _factors(hessian_Lii: torch.Tensor, damping: float, act_order: bool) -> tuple[torch.Tensor, list[float]]:
    """Upper Cholesky factors (L, i, i) of the inverses of the damped Hessians, columns in the order of the walk, and
    the damping of each. NaN and infinite where there is none."""
    order = _order(hessian_Lii, act_order)
    h = hessian_Lii.gather(1, order[..., None].expand_as(hessian_Lii))
    h = h.gather(2, order[:, None].expand_as(h))
    diagonal = h.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    # A column whose input is always zero stands alone: its error matters to nobody.
    dead = torch.diag_embed(torch.where(diagonal == 0, torch.where(mean == 0, 1.0, mean), 0.0))
    factors = torch.full_like(h, float("nan"))
    dampings = torch.full((len(h),), float("inf"), dtype=torch.float64)
    share = damping
    while share <= MOST_DAMPING and (open_ := [i for i, d in enumerate(dampings.tolist()) if d == float("inf")]):
        lower, failed = torch.linalg.cholesky_ex(
            h[open_] + dead[open_] + torch.diag_embed(share * mean[open_] + 0 * diagonal[open_])
        )
        upper, failed_again = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        for place, i in enumerate(open_):
            if not failed[place] and not failed_again[place] and torch.isfinite(upper[place]).all():
                factors[i], dampings[i] = upper[place], share
        share *= 10
    return factors, dampings.tolist()


def _walk(
    w_Loi: torch.Tensor,
    factor_Lii: torch.Tensor,
    order_Li: torch.Tensor,
    quantizer: Quantizer,
    parts: int,
    act_order: bool,
) -> torch.Tensor:
    """Round column after column; (K, L, out, in) float32."""
    formats, count = quantizer.formats, len(quantizer.formats.formats)
    layers, rows, columns = w_Loi.shape
    scale_of = _Scales(w_Loi, quantizer, parts, order_Li if act_order else None)
    index = order_Li[:, None].expand(layers, rows, columns)
    w = w_Loi.gather(2, index).to(factor_Lii.dtype).expand(count, -1, -1, -1).clone()
    q = torch.empty(count, layers, rows, columns, device=w.device)
    batch = LAZY if quantizer.block is None else max(1, LAZY // quantizer.block) * quantizer.block
    for start in range(0, columns, batch):
        end = min(start + batch, columns)
        here = w[..., start:end].clone()
        errors = torch.empty_like(here)
        for j in range(start, end):
            column = here[..., j - start]
            scale = scale_of(j, here[..., j - start :])
            y = (column.reshape(count, layers * rows, 1) / scale.step).float()
            rounded = formats.nearest_(scale.clamp_(y)).mul_(scale.step).view(count, layers, rows)
            q[..., j] = rounded
            error = (column - rounded) / factor_Lii[:, j, j].view(layers, 1)
            here[..., j - start + 1 :] -= error[..., None] * factor_Lii[:, None, j, j + 1 : end]
            errors[..., j - start] = error
        w[..., end:] -= errors @ factor_Lii[:, start:end, end:]
    return torch.empty_like(q).scatter_(3, index.expand_as(q), q)


class _Scales:
    """The scale of each column of the walk, (K, L * out, 1), bounded, since corrections may carry a weight beyond the
    largest that its scale was made for."""

    def __init__(self, w_Loi: torch.Tensor, quantizer: Quantizer, parts: int, order_Li: torch.Tensor | None):
        layers, rows, columns = w_Loi.shape
        count = len(quantizer.formats.formats)
        stacked = w_Loi.reshape(1, layers * rows, columns).expand(count, -1, -1)
        self.quantizer, self.order, self.shape = quantizer, order_Li, (count, layers, rows)
        self.parts = layers * parts
        grouped, whole = quantizer.groups(stacked, self.parts)
        if quantizer.block is None:
            # One scale a row or a matrix, for all columns.
            scale = quantizer.scaler.bounded(quantizer.scaler(grouped, whole))
            self.fixed = self._rows(scale)
        elif order_Li is not None:
            scale = quantizer.scaler.bounded(quantizer.scaler(grouped, parts=self.parts))
            blocks = -(-columns // quantizer.block)
            self.blocks = Scale(*(self._by_block(v, blocks) for v in scale))
        else:
            self.unit = quantizer.scaler.unit(grouped, self.parts)

    def _rows(self, scale: Scale) -> Scale:
        """One entry a row, (K, L * out, 1); bounds that are the same for all rows stay as they are."""
        return Scale(*(v if v.shape[1] == 1 else self._by_row(v, 1).flatten(1, 2) for v in scale))

    def _by_row(self, value: torch.Tensor, blocks: int) -> torch.Tensor:
        """Of so many blocks across each row or band of rows: (K, parts, rows of a part, blocks)."""
        count, layers, rows = self.shape
        each = layers * rows // self.parts
        bands = value.reshape(count, self.parts, -1, blocks)
        tall = self.quantizer.spec.block_rows if self.quantizer.block else each // bands.shape[2]
        return bands.repeat_interleave(tall, dim=2)[:, :, :each]

    def _by_block(self, value: torch.Tensor, blocks: int) -> torch.Tensor:
        count, layers, rows = self.shape
        return value if value.shape[1] == 1 else self._by_row(value, blocks).reshape(count, layers, rows, blocks)

    def __call__(self, j: int, rest: torch.Tensor) -> Scale:
        """Of column j of the walk; `rest` (K, L, out, n) are the weights from there on, as they stand."""
        count, layers, rows = self.shape
        block = self.quantizer.block
        if block is None:
            return self.fixed
        if self.order is not None:
            at = (self.order[:, j] // block).view(1, layers, 1, 1).expand(count, layers, rows, 1)
            return Scale(*(v if v.dim() == 3 else v.gather(3, at).view(count, -1, 1) for v in self.blocks))
        if j % block == 0:
            values = rest[..., :block].float().reshape(count, layers * rows, -1)
            if self.quantizer.spec.block_rows > 1:
                values, _ = self.quantizer.groups(values, self.parts)
            scale = self.quantizer.scaler(values, parts=self.parts, unit=self.unit)
            self.current = self._rows(self.quantizer.scaler.bounded(scale))
        return self.current
