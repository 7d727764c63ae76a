"""What a study will take: arithmetic, memory and time, before anything is spent."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scaling.config import Run, resolve_device
from scaling.data import DataConfig
from scaling.data.config import BpeTokenizer, HfTokenizer, SyntheticCorpus
from scaling.model import losses
from scaling.ptq.settings import settings_of
from scaling.stack import Stack

UNKNOWN_VOCABULARY = 2**16
"""Assumed where only the tokenizer itself knows: reading it may need the network."""

CALIBRATION_SECONDS = 10.0
CALIBRATION_MEMBERS = 4


def vocab_size(data: DataConfig) -> int:
    if isinstance(data.corpus, SyntheticCorpus):
        return data.corpus.alphabet + 1
    if isinstance(data.tokenizer, BpeTokenizer):
        return data.tokenizer.vocab_size
    return UNKNOWN_VOCABULARY if isinstance(data.tokenizer, HfTokenizer) else 256


def cost(run: Run) -> float:
    """FLOPs of a run with its evaluations: what jobs are balanced by."""
    return training_cost(run) + evaluation_cost(run)


def training_cost(run: Run) -> float:
    """FLOPs of the run's updates: three forward passes' worth a token. More than 6 N D by the head and the attention,
    which weigh much in small models."""
    return 3 * _forward(run) * (run.steps - run.first_step) * run.data.batch_tokens


def evaluation_cost(run: Run) -> float:
    """FLOPs of measuring the final model and each snapshot, as trained and under each quantization."""
    models = (1 + len(settings_of(run))) * len({run.steps, *map(run.step_at, run.snapshots)})
    return models * _forward(run) * run.data.eval_windows * run.data.sequence_length


def _forward(run: Run) -> float:
    """FLOPs of a forward pass, a token: two for each weight that it meets, four for each position that it attends to
    and each layer and channel."""
    model, t = run.model, run.data.sequence_length
    head = vocab_size(run.data) * model.d_model
    return 2.0 * (run.N + head) + 4.0 * model.n_layers * t * model.d_model


def memory(stack: Sequence[Run]) -> float:
    """Bytes that training a stack takes: parameters and what the backward pass needs, the framework itself left out.

    16 bytes a parameter: weight, gradient and two moments in float32. In float32 values a token: 9 d + 3 f a layer
    (outputs of norms, inputs of matmuls and products), a row of attention weights for each head and layer, and the
    logits twice.
    """
    run = stack[0]
    model, vocabulary, t = run.model, vocab_size(run.data), run.data.sequence_length
    parameters = model.count(vocabulary)["N_total"]
    layer = 9 * model.d_model + 3 * model.width_ff + model.n_heads * t
    activations = run.data.batch_tokens * (model.n_layers * layer + 2 * vocabulary)
    return len(stack) * (16.0 * parameters + 4.0 * activations)


def recorded_rates(finished: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[int, float]:
    """N -> training FLOPs a second, from runs and their results. A run's seconds are its share of its stack's."""
    spent: dict[int, list[float]] = {}
    for run, result in finished:
        total = spent.setdefault(run.N, [0.0, 0.0])
        total[0] += training_cost(run)
        total[1] += result["seconds"]
    return {n: flops / seconds for n, (flops, seconds) in spent.items() if seconds > 0}


def measured_rates(runs: Sequence[Run], threads: int) -> dict[int, float]:
    """N -> training FLOPs a second, from about a second of eager forward and backward passes with random tokens on this
    machine; small models first, until `CALIBRATION_SECONDS` are over."""
    began, found = time.monotonic(), {}
    for n in sorted({run.N for run in runs}):
        if time.monotonic() - began > CALIBRATION_SECONDS:
            break
        group = [run for run in runs if n == run.N]
        same = [run for run in group if run.stack_key == group[0].stack_key]
        found[n] = _measured_rate(same[:CALIBRATION_MEMBERS], threads)
    return found


def _measured_rate(runs: list[Run], threads: int) -> float:
    torch.set_num_threads(threads)
    run, vocabulary = runs[0], vocab_size(runs[0].data)
    device = torch.device(resolve_device(run.runtime.device))
    stack = Stack.start(runs, vocabulary, [None] * len(runs), device)
    shape = (len(runs), run.batch_size, run.data.sequence_length + 1)
    tokens = torch.randint(vocabulary, shape, device=device)
    dtype = getattr(torch, run.runtime.dtype)

    def step():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = losses(stack.weights, tokens[..., :-1], tokens[..., 1:], run.model, stack.precision).sum()
        loss.backward()
        loss.item()  # waits for a GPU

    step()  # warms up
    steps, began = 0, time.monotonic()
    while steps == 0 or time.monotonic() - began < 1.0:
        step()
        steps += 1
    tokens_a_second = steps * tokens[..., 1:].numel() / (time.monotonic() - began)
    return 3 * _forward(run) * tokens_a_second


def seconds(stack: Sequence[Run], rates: Mapping[int, float]) -> float:
    """Time to train and measure a stack at the rate of the nearest N that is known."""
    nearest = min(rates, key=lambda n: abs(n - stack[0].N))
    return sum(map(cost, stack)) / rates[nearest]
