"""What is recorded of a trained model: its loss, the loss after each quantization, and the paired gaps."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from scaling.config.precision import Precision
from scaling.config.run import Run
from scaling.data.corpus import Corpus, Windows
from scaling.model.quantizers import StackPrecision
from scaling.model.stack_size import best_size
from scaling.model.transformer import Weights
from scaling.ptq.apply import Notes, quantized
from scaling.ptq.calibration import Calibration, calibrate
from scaling.ptq.evaluate import evaluate
from scaling.ptq.settings import Setting, settings_of
from scaling.records.columns import declared
from scaling.records.run_folder import RunFolder
from scaling.records.window_losses import clustered_mean, evaluation_name

# Models quantized and evaluated at once hold at most this many parameters together.
STACK_PARAMETERS = 50_000_000

Row = dict[str, Any]
"""What `ptq.jsonl` holds of one quantization of one model."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Losses of one model at one token count. `windows` maps the name of an evaluation to its losses (n,)."""

    loss: float
    rows: list[Row]
    windows: dict[str, np.ndarray]


def measure(run: Run, weights: Weights, corpus: Corpus, windows: Windows, tokens_seen: int) -> Measurement:
    """Evaluate one model (1, out, in) as trained and under every setting of `run.ptq`, on the same windows."""
    base = _losses(run, weights, [run.precision], windows)[0]
    measurement = measure_quantized(run, weights, settings_of(run), corpus, windows, tokens_seen, base)
    as_trained = {"documents": windows.documents, evaluation_name(tokens_seen): base}
    return dataclasses.replace(measurement, windows=as_trained | measurement.windows)


def is_measured(folder: RunFolder, tokens_seen: int) -> bool:
    """Whether a run folder has all that `measure` finds of the model at so many tokens."""
    losses, rows = folder.windows(), {(row["tokens_seen"], row["setting"]) for row in folder.ptq()}
    keys = [setting.key for setting in settings_of(folder.run)]
    names = {"documents", *(evaluation_name(tokens_seen, key) for key in ("", *keys))}
    return names <= losses.keys() and {(tokens_seen, key) for key in keys} <= rows


def measure_quantized(
    run: Run,
    weights: Weights,
    settings: Sequence[Setting],
    corpus: Corpus,
    windows: Windows,
    tokens_seen: int,
    base: np.ndarray,
) -> Measurement:
    """Evaluate one model (1, out, in) under each setting. `base` are the losses of the model as trained (n,).

    Unless the setting says otherwise a quantized model keeps its training formats for activations and KV cache; its
    block weights are the quantized ones. `gap` is the mean over windows of the paired difference to the model as
    trained (delta_PTQ of arXiv 2411.04330, Eq. 2).
    """
    calibration = cache(lambda: calibrate(run, weights, corpus))
    rows: list[Row] = []
    by_window: dict[str, np.ndarray] = {}
    at_once = max(1, STACK_PARAMETERS // sum(w.numel() for w in weights.values()))
    for start in range(0, len(settings), at_once):
        chosen = settings[start : start + at_once]
        stack, notes = quantized(weights, chosen, calibration)
        losses = _stack_losses(run, stack, [s.precision(run.precision) for s in chosen], windows)
        for setting, values, note in zip(chosen, losses, notes, strict=True):
            by_window[evaluation_name(tokens_seen, setting.key)] = values
            rows.append(_row(tokens_seen, setting, values, base, windows, note, calibration))
    loss, _ = clustered_mean(base, windows.documents)
    return Measurement(loss, rows, by_window)


def _row(
    tokens_seen: int,
    setting: Setting,
    values: np.ndarray,
    base: np.ndarray,
    windows: Windows,
    notes: Notes,
    calibration: Callable[[], Calibration],
) -> Row:
    loss, loss_se = clustered_mean(values, windows.documents)
    gap, gap_se = clustered_mean(values - base, windows.documents)
    row = {
        "tokens_seen": tokens_seen,
        "setting": setting.key,
        **setting.columns(),
        "calib_tokens": calibration().tokens if setting.calibration_tokens else None,
        "calib_sha": calibration().sha[:16] if setting.calibration_tokens else None,
        "damping": notes.get("damping"),
        "fallbacks": notes.get("fallbacks"),
        "loss": loss,
        "loss_se": loss_se,
        "gap": gap,
        "gap_se": gap_se,
    }
    return declared("ptq", row)


def _losses(run: Run, weights: Weights, precisions: Sequence[Precision], windows: Windows) -> np.ndarray:
    device = next(iter(weights.values())).device
    precision = StackPrecision.of(precisions, device)
    at_once = max(map(run.evaluated_at_once, precisions))
    return evaluate(weights, windows, run.model, precision, at_once, getattr(torch, run.runtime.dtype))


def _stack_losses(run: Run, stack: Weights, precisions: Sequence[Precision], windows: Windows) -> list[np.ndarray]:
    """Losses of every model of a stack, taken as many at a time as are fastest, and together only where they compute
    with one program."""
    device = next(iter(stack.values())).device
    at_once = best_size(run, device.type, torch.get_num_threads())
    programs: dict[str, list[int]] = {}
    for i, precision in enumerate(precisions):
        programs.setdefault(str(precision.program()), []).append(i)
    by_precision: list[np.ndarray] = [np.empty(0)] * len(precisions)
    for members in programs.values():
        for start in range(0, len(members), at_once):
            chosen = members[start : start + at_once]
            weights = {name: w[chosen] for name, w in stack.items()}
            for i, values in zip(chosen, _losses(run, weights, [precisions[i] for i in chosen], windows), strict=True):
                by_precision[i] = values
    return by_precision
