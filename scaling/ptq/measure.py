"""What is recorded of a trained model: its loss, the loss after each quantization, and the paired gaps."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from scaling.config.precision import Precision
from scaling.config.run import Run
from scaling.data.corpus import Corpus, Windows
from scaling.model.quantizers import StackPrecision
from scaling.model.stack_size import best_size
from scaling.model.transformer import Weights
from scaling.ptq.apply import Notes
from scaling.ptq.calibration import Calibration, calibrate
from scaling.ptq.evaluate import evaluate
from scaling.ptq.sequential import quantized_each
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A model to be measured."""

    run: Run
    weights: Weights
    """(1, out, in)."""
    tokens_seen: int
    settings: Sequence[Setting]
    """To quantize it to."""


def models_at_once(settings: int, run: Run, weights: Weights) -> int:
    """How many models of a stack like this are measured together: as many as are evaluated together in so many
    settings each."""
    device = next(iter(weights.values())).device
    evaluated = best_size(run, device.type, torch.get_num_threads())
    return max(1, min(evaluated, _held_at_once(weights)) // max(1, settings))


def measure(models: Sequence[Trained], corpus: Corpus, windows: Windows) -> list[Measurement]:
    """Evaluate models of one stack as trained and under their settings, on the same windows. What is found of a model
    does not depend on the others."""
    stack = {name: torch.cat([model.weights[name] for model in models]) for name in models[0].weights}
    runs = [model.run for model in models]
    bases = _stack_losses(runs, stack, [run.precision for run in runs], windows)
    measurements = measure_quantized(models, corpus, windows, bases)
    return [
        dataclasses.replace(
            measured,
            windows={"documents": windows.documents, evaluation_name(model.tokens_seen): base} | measured.windows,
        )
        for model, base, measured in zip(models, bases, measurements, strict=True)
    ]


def is_measured(folder: RunFolder, tokens_seen: int) -> bool:
    """Whether a run folder has all that `measure` finds of the model at so many tokens."""
    losses, rows = folder.windows(), {(row["tokens_seen"], row["setting"]) for row in folder.ptq()}
    keys = [setting.key for setting in settings_of(folder.run)]
    names = {"documents", *(evaluation_name(tokens_seen, key) for key in ("", *keys))}
    return names <= losses.keys() and {(tokens_seen, key) for key in keys} <= rows


def measure_quantized(
    models: Sequence[Trained], corpus: Corpus, windows: Windows, bases: Sequence[np.ndarray]
) -> list[Measurement]:
    """Evaluate models of one stack under their settings. `bases` are the losses of the models as trained, each (n,).

    Unless the setting says otherwise a quantized model keeps its training formats for activations and KV cache; its
    block weights are the quantized ones. `gap` is the mean over windows of the paired difference to the model as
    trained (delta_PTQ of arXiv 2411.04330, Eq. 2).
    """
    calibrations = [cache(partial(calibrate, model.run, model.weights, corpus)) for model in models]
    measurements = [Measurement(clustered_mean(base, windows.documents)[0], [], {}) for base in bases]
    asked = [(m, setting) for m, model in enumerate(models) for setting in model.settings]
    at_once = _held_at_once(models[0].weights)
    for start in range(0, len(asked), at_once):
        chosen = asked[start : start + at_once]
        stack, notes = _quantized(models, chosen, calibrations, corpus)
        runs = [models[m].run for m, _ in chosen]
        precisions = [setting.precision(run.precision) for run, (_, setting) in zip(runs, chosen, strict=True)]
        losses = _stack_losses(runs, stack, precisions, windows)
        for (m, setting), values, note in zip(chosen, losses, notes, strict=True):
            tokens_seen = models[m].tokens_seen
            measurements[m].windows[evaluation_name(tokens_seen, setting.key)] = values
            measurements[m].rows.append(row_of(tokens_seen, setting, values, bases[m], windows, note, calibrations[m]))
    return measurements


def _held_at_once(weights: Weights) -> int:
    """How many quantized models there may be at once."""
    return max(1, STACK_PARAMETERS // sum(w[0].numel() for w in weights.values()))


def _quantized(
    models: Sequence[Trained],
    asked: Sequence[tuple[int, Setting]],
    calibrations: Sequence[Callable[[], Calibration]],
    corpus: Corpus,
) -> tuple[Weights, list[Notes]]:
    """Model m quantized to a setting, for each pair of these, in order."""
    stacks, notes = [], []
    for m, group in groupby(asked, key=lambda pair: pair[0]):
        model, settings = models[m], [setting for _, setting in group]
        stack, its_notes = quantized_each(model.run, model.weights, settings, calibrations[m], corpus)
        stacks.append(stack)
        notes += its_notes
    if len(stacks) == 1:
        return stacks[0], notes
    return {name: torch.cat([stack[name] for stack in stacks]) for name in stacks[0]}, notes


def row_of(
    tokens_seen: int,
    setting: Setting,
    values: np.ndarray,
    base: np.ndarray,
    windows: Windows,
    notes: Notes,
    calibration: Callable[[], Calibration],
) -> Row:
    """What is recorded of one quantization of a model, whose windows have the losses `values` (n,), and `base` (n,)
    without it."""
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


def _stack_losses(
    runs: Sequence[Run], stack: Weights, precisions: Sequence[Precision], windows: Windows
) -> list[np.ndarray]:
    """Losses of every model of a stack, taken as many at a time as are fastest, and together only where they compute
    with one program. `runs`: the run of each."""
    device = next(iter(stack.values())).device
    together = best_size(runs[0], device.type, torch.get_num_threads())
    programs = [str(precision.program()) for precision in precisions]
    # Of a run's models those of one program have forward passes of one size, whoever else is there.
    sequences: dict[tuple[int, str], int] = {}
    for run, precision, program in zip(runs, precisions, programs, strict=True):
        key = (id(run), program)
        sequences[key] = max(sequences.get(key, 0), run.evaluated_at_once(precision))
    groups: dict[tuple[str, int], list[int]] = {}
    for i, (run, program) in enumerate(zip(runs, programs, strict=True)):
        groups.setdefault((program, sequences[id(run), program]), []).append(i)
    losses: list[np.ndarray] = [np.empty(0)] * len(runs)
    for (_, at_once), members in groups.items():
        for start in range(0, len(members), together):
            chosen = members[start : start + together]
            weights = {name: w[chosen] for name, w in stack.items()}
            precision = StackPrecision.of([precisions[i] for i in chosen], device)
            dtype = getattr(torch, runs[0].runtime.dtype)
            evaluated = evaluate(weights, windows, runs[0].model, precision, at_once, dtype)
            for i, values in zip(chosen, evaluated, strict=True):
                losses[i] = values
    return losses
