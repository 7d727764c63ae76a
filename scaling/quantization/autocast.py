"""Autocast on every device that the harness computes on, and on `meta`, which has shapes but no numbers and no
autocast either."""

import contextlib

import torch


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matmuls take inputs in `dtype`; float32 switches an outer autocast off. Without an effect on `meta`."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def matmul_dtype(x: torch.Tensor) -> torch.dtype:
    """What a matmul of x computes in here."""
    kind = x.device.type
    casts = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else x.dtype
