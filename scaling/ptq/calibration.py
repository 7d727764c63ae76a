"""What enters each matmul of a trained model on windows of its own training stream.

The windows are the first of an order of their own, the same for every model of a study, and are taken as many at a time
as in training, so that activations with one scale a batch see what they saw there. Inputs are as the matmul gets them:
quantized, where the model was trained so.
"""

import dataclasses
import hashlib

import numpy as np
import torch

from scaling.config.run import Run
from scaling.data.batches import Batches
from scaling.data.corpus import Corpus
from scaling.errors import InputError
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, Weights, hidden
from scaling.ptq.layers import Statistics, working_dtype
from scaling.quantization.autocast import autocast

ORDER = 2**31 - 1
"""Seed of the order of the windows; no run's own seed is likely to be the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Statistics of the inputs of each block matrix, by name, each with a layer axis of 1."""

    inputs: dict[str, Statistics]
    tokens: int
    sha: str
    """sha256 of the tokens."""


def windows_of(run: Run, corpus: Corpus) -> np.ndarray:
    """The calibration windows of a run, (n, T + 1) int64.

    Raises:
        InputError: the corpus has fewer tokens.
    """
    unique = corpus.unique_tokens(run.data.sequence_length)
    if run.ptq.calibration_tokens > unique:
        raise InputError(
            f"ptq.calibration_tokens={run.ptq.calibration_tokens}: {corpus.name} has {unique} unique training tokens; "
            "use at most that"
        )
    count = -(-run.ptq.calibration_tokens // run.data.sequence_length)
    return Batches(corpus, run.data.sequence_length, count).at(0, ORDER)


@torch.no_grad()
def calibrate(run: Run, weights: Weights, corpus: Corpus) -> Calibration:
    """Run one model (1, out, in) over its calibration windows."""
    windows = windows_of(run, corpus)
    device = next(iter(weights.values())).device
    precision = StackPrecision.of([run.precision], device)
    dtype = getattr(torch, run.runtime.dtype)
    hessians: dict[str, torch.Tensor] = {}
    magnitudes: dict[str, torch.Tensor] = {}

    def tap(name: str, x_1Si: torch.Tensor) -> None:
        x = x_1Si[0].float()
        # Products in float32 over one batch, sums over batches in float64.
        square, magnitude = (v.to(working_dtype(device)) for v in (x.T @ x, x.abs().sum(0)))
        hessians[name] = hessians[name] + square if name in hessians else square
        magnitudes[name] = magnitudes[name] + magnitude if name in magnitudes else magnitude

    at_once = run.evaluated_at_once(run.precision)
    for start in range(0, len(windows), at_once):
        tokens = torch.from_numpy(windows[start : start + at_once]).to(device)[None]
        with autocast(device, dtype):
            hidden(weights, tokens[..., :-1], run.model, precision, EAGER, tap)
    count = windows[:, 1:].size
    statistics = {name: Statistics(h[None] / count, magnitudes[name][None] / count) for name, h in hessians.items()}
    return Calibration(inputs=statistics, tokens=count, sha=hashlib.sha256(windows.tobytes()).hexdigest())
