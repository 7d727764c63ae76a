"""The quantized matmul y = x W^T of every model of a stack, and its two backward matmuls.

Where the backward pass has no operand of its own, autograd does it: the quantizers hand the gradient on, and the
backward matmuls take the quantized tensors that the forward pass had. Otherwise each of the four backward operands is
quantized by itself, along the axis that its matmul sums over (see `scaling.config.precision`).

Shape suffixes: M models, S tokens, i inputs, o outputs.
"""

import torch

from scaling.model.quantizers import StackPrecision
from scaling.quantization.autocast import bmm, matmul_dtype
from scaling.quantization.fake_quantize import Quantizer


def project(x_MSi: torch.Tensor, w_Moi: torch.Tensor, parts: int, precision: StackPrecision) -> torch.Tensor:
    """x W^T with both operands fake-quantized: (M, S, in) -> (M, S, out). W holds `parts` matrices."""
    if precision.custom_backward:
        return _Project.apply(x_MSi, w_Moi, parts, precision)
    x = precision.activations(x_MSi)
    w = precision.weights(w_Moi, parts)
    return bmm(x, w.transpose(1, 2))


class _Project(torch.autograd.Function):
    """`project` with its backward matmuls written out. Autocast does not reach into a backward pass, so operands are
    cast here."""

    @staticmethod
    def forward(ctx, x, w, parts, precision):
        x_q, x_mask = precision.activations.rounded(x)
        w_q, w_mask = precision.weights.rounded(w, parts)
        ctx.dtype = matmul_dtype(x)
        ctx.precision, ctx.dtypes = precision, (x.dtype, w.dtype)
        x_dw = x_q if precision.dw_activations is None else x
        w_dx = w_q if precision.dx_weights is None else w
        ctx.save_for_backward(x_dw, w_dx, x_mask, w_mask)
        return bmm(x_q.to(ctx.dtype), w_q.to(ctx.dtype).transpose(1, 2))

    @staticmethod
    def backward(ctx, dy):
        p = ctx.precision
        x, w, x_mask, w_mask = ctx.saved_tensors
        if p.dx_weights is not None:
            w = _down(w, p.dx_weights)
        if p.dw_activations is not None:
            x = _down(x, p.dw_activations)
        dx = bmm(p.dx_gradients.values(dy).to(ctx.dtype), w.to(ctx.dtype))
        dw = bmm(p.dw_gradients.values(dy.transpose(1, 2)).to(ctx.dtype), x.to(ctx.dtype))
        x_dtype, w_dtype = ctx.dtypes
        dx = p.activations.backward(dx.to(x_dtype), x_mask)
        return dx, p.weights.backward(dw.to(w_dtype), w_mask), None, None


def _down(matrix_MRC: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """Quantized with scales that run down the columns, along R."""
    return quantizer.values(matrix_MRC.transpose(1, 2)).transpose(1, 2)
