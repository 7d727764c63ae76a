"""Autocast on every device that the harness computes on, and on `meta`, which has shapes but no numbers and no autocast
of its own: a CPU's stands for it, which plain tensors of `meta` do not notice."""

import contextlib

import torch


def _kind(device: torch.device) -> str:
    return "cpu" if device.type == "meta" else device.type


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matmuls take inputs in `dtype`; float32 switches an outer autocast off."""
    return torch.autocast(_kind(device), dtype, enabled=dtype != torch.float32)


def matmul_dtype(x: torch.Tensor) -> torch.dtype:
    """What a matmul of x computes in here."""
    kind = _kind(x.device)
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
