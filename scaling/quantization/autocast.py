"""Autocast on every device that the harness computes on, and on `meta`, which has shapes but no numbers and no autocast
of its own: a CPU's stands for it, which plain tensors of `meta` do not notice."""

import contextlib

import torch

_supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
BFLOAT16 = _supported is None or _supported()
"""Whether this CPU has instructions that multiply in bfloat16, or torch cannot say."""


def _kind(device: torch.device) -> str:
    return "cpu" if device.type == "meta" else device.type


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matmuls take inputs in `dtype`; float32 switches an outer autocast off."""
    return torch.autocast(_kind(device), dtype, enabled=dtype != torch.float32)


def matmul_dtype(x: torch.Tensor) -> torch.dtype:
    """What a matmul of x computes in here."""
    kind = _kind(x.device)
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def without_instructions(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether matmuls in `dtype` are computed in float32 there, as the CPU has no instructions for them."""
    return dtype == torch.bfloat16 and device.type == "cpu" and not BFLOAT16


def bmm(a: torch.Tensor, b: torch.Tensor, *, plus: torch.Tensor | None = None, alpha: float = 1.0) -> torch.Tensor:
    """a b, or plus + alpha a b, batched, as autocast has it: (B, m, k), (B, k, n) -> (B, m, n).

    Args:
        plus: a constant (B, m, n), which gets no gradient. `alpha` is 1 without it.
    """
    dtype = matmul_dtype(a)
    if without_instructions(a.device, dtype):
        return _InFloat32.apply(a.to(dtype), b.to(dtype), plus, alpha)
    return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b, alpha=alpha)


class _InFloat32(torch.autograd.Function):
    """`bmm` of bfloat16 operands on a CPU without instructions for them, which takes 7 to 50 times as long over it as
    over float32: products are summed in float32 and rounded to bfloat16, as the instructions do it up to the order of
    the sum, here and in both backward matmuls."""

    @staticmethod
    def forward(ctx, a, b, plus, alpha):
        ctx.save_for_backward(a, b)
        ctx.alpha = alpha
        with autocast(a.device, torch.float32):
            if plus is None:
                return torch.bmm(a.float(), b.float()).to(a.dtype)
            return torch.baddbmm(plus.float(), a.float(), b.float(), alpha=alpha).to(a.dtype)

    @staticmethod
    def backward(ctx, dy):
        a, b = ctx.saved_tensors
        da = db = None
        if ctx.needs_input_grad[0]:
            da = torch.bmm(dy.float(), b.float().transpose(1, 2)).to(a.dtype) * ctx.alpha
        if ctx.needs_input_grad[1]:
            db = torch.bmm(a.float().transpose(1, 2), dy.float()).to(b.dtype) * ctx.alpha
        return da, db, None, None
