"""What is recorded of a trained model: its loss, the loss after each quantization, and the paired gaps."""

import dataclasses
from typing import Any

import numpy as np
import torch

from scaling.config import Run
from scaling.data import Windows
from scaling.evaluate import clustered_mean, evaluate
from scaling.formats import UNQUANTIZED, parse
from scaling.model import StackPrecision, Weights
from scaling.ptq import Setting, quantized, settings_of
from scaling.stack import best_size

# Models evaluated at once hold at most this many parameters together.
STACK_PARAMETERS = 50_000_000


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Losses of one model at one token count. `windows` maps the name of an evaluation to its losses (n,)."""

    loss: float
    rows: list[dict[str, Any]]
    windows: dict[str, np.ndarray]


def evaluation_name(tokens_seen: int, setting: str = "") -> str:
    """Name of an evaluation's per-window losses in a run folder."""
    return f"{tokens_seen}/{setting}" if setting else str(tokens_seen)


def measure(run: Run, weights: Weights, windows: Windows, tokens_seen: int) -> Measurement:
    """Evaluate one model (1, out, in) as trained and under every setting of `run.ptq`, on the same windows.

    A quantized model keeps its training formats for activations and KV cache; its weights are the quantized ones.
    `gap` is the mean over windows of the paired difference to the model as trained (delta_PTQ of arXiv 2411.04330,
    Eq. 2).
    """
    settings = settings_of(run.ptq)
    device = next(iter(weights.values())).device
    precision = StackPrecision.of([run.precision], device)
    base = _losses(run, weights, precision, windows)[0]
    after = _quantized_losses(run, weights, settings, windows)
    loss, _ = clustered_mean(base, windows.documents)
    rows, kept = [], {"documents": windows.documents, evaluation_name(tokens_seen): base}
    for setting, values in zip(settings, after, strict=True):
        quantized_loss, quantized_se = clustered_mean(values, windows.documents)
        gap, gap_se = clustered_mean(values - base, windows.documents)
        kept[evaluation_name(tokens_seen, setting.key)] = values
        rows.append(
            {
                "tokens_seen": tokens_seen,
                "setting": setting.key,
                "ptq": setting.method,
                "P_post": setting.format.bits,
                "format_post": setting.format.name,
                "granularity_post": setting.granularity,
                "scale_rule": setting.scale_rule,
                "loss": quantized_loss,
                "loss_se": quantized_se,
                "gap": gap,
                "gap_se": gap_se,
            }
        )
    return Measurement(loss, rows, kept)


def _losses(run: Run, weights: Weights, precision: StackPrecision, windows: Windows) -> np.ndarray:
    return evaluate(weights, windows, run.model, precision, run.batch_size, getattr(torch, run.runtime.dtype))


def _quantized_losses(run: Run, weights: Weights, settings: list[Setting], windows: Windows) -> list[np.ndarray]:
    device = next(iter(weights.values())).device
    fitting = STACK_PARAMETERS // sum(w.numel() for w in weights.values())
    at_once = max(1, min(fitting, best_size(run, device.type, torch.get_num_threads())))
    found: list[np.ndarray] = []
    for start in range(0, len(settings), at_once):
        chosen = settings[start : start + at_once]
        precision = StackPrecision.of([run.precision] * len(chosen), device)
        precision = precision.with_weights([parse(UNQUANTIZED)] * len(chosen))
        found.extend(_losses(run, quantized(weights, chosen), precision, windows))
    return found
