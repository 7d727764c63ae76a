"""Losses of a loaded model on held-out windows: in nats a token, one a window, as for models trained here."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scaling.config.precision import Precision
from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.data.corpus import Windows
from scaling.model.quantizers import StackPrecision
from scaling.pretrained.attention import quantized_cache
from scaling.pretrained.linears import Layout, Linear
from scaling.quantization.fake_quantize import Quantizer

Said = Callable[[int], None]
"""Takes tokens as they are done."""


def ignored(tokens: int) -> None:
    """Where nobody asks."""


@torch.no_grad()
def window_losses(
    layout: Layout, run: MeasuredRun, windows: Windows, precision: Precision, start: int | None, said: Said = ignored
) -> np.ndarray:
    """Mean loss of every window, (n,) float32, with activations and KV cache as `precision` says.

    Windows are taken as many at a time as `run` says: activations with one scale a tensor depend on it. `start` is a
    token to put in front of each window.
    """
    at_once = run.evaluated_at_once(precision)
    tokens_nT = torch.from_numpy(windows.tokens).to(layout.device)
    losses = []
    with computing_in(layout, precision):
        for first in range(0, len(tokens_nT), at_once):
            chunk = tokens_nT[first : first + at_once]
            logits = model_logits(layout.model, chunk[:, :-1], start)
            losses.append(_losses(logits, chunk[:, 1:]))
            said(chunk[:, 1:].numel())
    return torch.cat(losses).float().cpu().numpy()


def model_logits(model: nn.Module, tokens_BT: torch.Tensor, start: int | None) -> torch.Tensor:
    """(B, T, V); a token in front counts as context alone."""
    if start is None:
        return model(input_ids=tokens_BT, use_cache=False).logits
    first = torch.full_like(tokens_BT[:, :1], start)
    return model(input_ids=torch.cat([first, tokens_BT], dim=1), use_cache=False).logits[:, 1:]


def _losses(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    # One window after the other: float32 logits of a large vocabulary are the largest tensor there is.
    rows = [F.cross_entropy(logits.float(), t) for logits, t in zip(logits_BTV, targets_BT, strict=True)]
    return torch.stack(rows)


@contextlib.contextmanager
def computing_in(layout: Layout, precision: Precision) -> Iterator[None]:
    """While it lasts, what enters the matrices of the blocks, what the cache would hold, and the tables of tokens are
    quantized."""
    quantizers = StackPrecision.of([precision], layout.device)
    with contextlib.ExitStack() as stack:
        if quantizers.activations.formats.any_quantized:
            for linear in layout.linears:
                if precision.at(linear.name) is precision:  # not skipped
                    stack.enter_context(_hooked(linear, quantizers))
        for table, quantizer in ((layout.embedding, quantizers.embedding), (layout.head, quantizers.head)):
            if quantizer.formats.any_quantized:
                stack.enter_context(_quantized_table(table, quantizer))
        if quantizers.kv.formats.any_quantized or quantizers.keys.formats.any_quantized:
            stack.enter_context(quantized_cache(layout.model, quantizers))
        yield


@contextlib.contextmanager
def _hooked(linear: Linear, quantizers: StackPrecision) -> Iterator[None]:
    def quantize(module: nn.Module, inputs: tuple) -> tuple:
        x, *rest = inputs
        return (quantizers.activations.values(x.reshape(1, -1, x.shape[-1])).view(x.shape), *rest)

    handle = linear.module.register_forward_pre_hook(quantize)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _quantized_table(module: nn.Module, quantizer: Quantizer) -> Iterator[None]:
    """Only within the module's own forward pass: embedding and head may share their matrix."""
    own, rounded = module.weight.data, quantizer.values(module.weight.data[None])[0]

    def put(weight: torch.Tensor) -> None:
        module.weight.data = weight

    with contextlib.ExitStack() as stack:
        stack.callback(put, own)
        stack.callback(module.register_forward_pre_hook(lambda *_: put(rounded)).remove)
        stack.callback(module.register_forward_hook(lambda *_: put(own)).remove)
        yield
