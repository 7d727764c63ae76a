"""What the forward and backward passes of a model take, in bytes: measured on tensors without values
(`scaling.study.live_memory`), for one block and for the head with the loss, of which a step is put together
(`scaling.study.memory`).

What `torch.compile` saves cannot be seen in this way and is stated by hand (`_compiled_block`, `_compiled_head`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch

from scaling.config.data import vocab_size
from scaling.config.model import ModelConfig
from scaling.config.precision import FORWARD, PARTS, Precision
from scaling.config.run import Run
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, Program, in_chunks, recomputing
from scaling.quantization.autocast import autocast
from scaling.quantization.rounding import family
from scaling.study.live_memory import LiveBytes

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 value."""
BLOCK = ("qkv", "out", "gate_up", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """All that the passes of one model of a stack depend on."""

    model: ModelConfig
    precision: Precision
    vocabulary: int
    length: int
    """Positions of a sequence."""
    device: str
    dtype: str
    compiled: bool
    """With `runtime.compile=auto` a compiler may fail, and then eager mode has to fit."""
    recomputes: bool
    """Whether the backward pass computes blocks again."""
    loss_tokens: int | None
    """Tokens whose logits are there at once; None for all."""

    @classmethod
    def of(cls, stack: Sequence[Run], device: str) -> "Shapes":
        run = stack[0]
        return cls(
            model=run.model,
            precision=_most_quantized([member.precision for member in stack]),
            vocabulary=vocab_size(run.data),
            length=run.data.sequence_length,
            device=device,
            dtype=run.runtime.dtype,
            compiled=run.runtime.compile == "on",
            recomputes=run.runtime.checkpoint_activations,
            loss_tokens=run.runtime.loss_tokens,
        )

    @property
    def matrices(self) -> dict[str, int]:
        """Parameter -> its number of values."""
        return {name: rows * columns for name, (rows, columns) in self.model.shapes(self.vocabulary).items()}

    @property
    def block_matrices(self) -> dict[str, int]:
        """The same of one block."""
        matrices = self.matrices
        return {name: matrices[f"layers.0.{name}"] for name in BLOCK}

    @property
    def weights_bytes(self) -> int:
        return FLOAT * sum(self.matrices.values())


_likes: dict[tuple, str] = {}
"""What of a format memory depends on -> the name of one such format: stacks that differ in bits alone are measured
once."""


def _most_quantized(precisions: Sequence[Precision]) -> Precision:
    """A part is computed as quantized for all members where it is for one, and on a grid with a spacing of its own for
    each value where one member's format has such a grid."""
    quantized = {}
    for part in PARTS:
        formats = [fmt for fmt in (precision.format(part) for precision in precisions) if fmt.quantizes]
        if formats:
            fmt = min(formats, key=lambda fmt: fmt.is_integer)
            traits = (family(fmt), fmt.is_integer, fmt.full_range, fmt.block, fmt.scale_rule, fmt.hadamard)
            quantized[part] = _likes.setdefault(traits, fmt.name)
    return dataclasses.replace(precisions[0], **quantized)


class Pass(NamedTuple):
    """Bytes of one model. Weights do not count, nor gradients of theirs that were there before; tensors that come in
    and go out do."""

    saved: float
    """From the forward pass for the backward pass."""
    forward: float
    """The most in the forward pass."""
    backward: float
    """The most in the backward pass, with the gradients of weights that it makes."""


@cache
def block_pass(shapes: Shapes, tokens: int, accumulates: bool) -> Pass:
    """Of one block, for the tokens of one model in one pass; `accumulates` where its weights have gradients already."""
    if shapes.compiled:
        return _compiled_block(shapes, tokens, accumulates)
    program = recomputing(EAGER) if shapes.recomputes else EAGER
    return _measured(_block(shapes, tokens, program), accumulates)


@cache
def head_pass(shapes: Shapes, tokens: int) -> Pass:
    """Of the head and the loss, for the tokens of one model in one pass."""
    if shapes.compiled:
        return _compiled_head(shapes, tokens)
    program = in_chunks(EAGER, shapes.loss_tokens) if shapes.loss_tokens else EAGER
    return _measured(_head(shapes, tokens, program), accumulates=False)


@cache
def evaluation_pass(shapes: Shapes, tokens: int) -> float:
    """The most bytes in a forward pass that keeps nothing, which is always in eager mode."""
    peaks = []
    for part in (_block(shapes, tokens, EAGER), _head(shapes, tokens, EAGER)):
        with part.live as live, torch.no_grad(), autocast(live.device, live.dtype):
            before = live.now
            live.restart()
            part.compute(live.new(*part.stream), part.weights)
            peaks.append(live.highest - before)
    return max(peaks)


class _Part(NamedTuple):
    """A block or the head of one model, on tensors without values."""

    live: LiveBytes
    weights: dict[str, torch.Tensor]
    stream: tuple[int, int, int]
    """Shape of the residual stream that comes in."""
    compute: Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]
    """Residual stream and weights -> what comes out: the stream again, or losses."""


def _block(shapes: Shapes, tokens: int, program: Program) -> _Part:
    live, precision, stream = _beginning(shapes, tokens)
    sizes = shapes.model.shapes(shapes.vocabulary)
    weights = {name: live.new(1, *sizes[f"layers.0.{name}"]) for name in BLOCK}
    rotation = live.new(2, shapes.length, shapes.model.head_dim // 2)
    batch = (tokens // shapes.length, shapes.length)

    def compute(h, layer):
        return program.block(layer, h, batch, rotation, shapes.model, precision)

    return _Part(live, weights, stream, compute)


def _head(shapes: Shapes, tokens: int, program: Program) -> _Part:
    live, precision, stream = _beginning(shapes, tokens)
    weights = {"head": live.new(1, shapes.vocabulary, shapes.model.d_model)}
    targets = live.new(1, tokens // shapes.length, shapes.length, dtype=torch.int64)

    def compute(h, weights):
        return program.head_loss(precision.head(weights["head"]), h, targets)

    return _Part(live, weights, stream, compute)


def _beginning(shapes: Shapes, tokens: int) -> tuple[LiveBytes, StackPrecision, tuple[int, int, int]]:
    live = LiveBytes(shapes.device, getattr(torch, shapes.dtype))
    return live, StackPrecision.of([shapes.precision], live.device), (1, tokens, shapes.model.d_model)


def _measured(part: _Part, accumulates: bool) -> Pass:
    live = part.live
    for weight in part.weights.values():
        weight.requires_grad_()
        weight.grad = live.new(*weight.shape) if accumulates else None
    source = live.new(*part.stream).requires_grad_()
    before = live.now
    live.restart()
    with live:
        with autocast(live.device, live.dtype):
            h = source.clone()  # not `source`, which autograd holds
            loss = _Loss.apply(part.compute(h, part.weights))
            del h
        saved, forward = live.now - before, live.highest - before
        live.restart()
        torch.autograd.backward(loss)
    return Pass(saved=saved, forward=forward, backward=live.highest - before)


class _Loss(torch.autograd.Function):
    """Stands for all that follows: lets go of what comes in, and sends back a gradient of its shape."""

    @staticmethod
    def forward(ctx, x):
        ctx.shape, ctx.live = x.shape, x.live
        return torch.zeros(())

    @staticmethod
    def backward(ctx, grad):
        return ctx.live.new(*ctx.shape)


def _compiled_block(shapes: Shapes, tokens: int, accumulates: bool) -> Pass:
    """As Inductor's partitioner chooses (torch 2.13): operands of matmuls, what they give, and otherwise little."""
    model, precision = shapes.model, shapes.precision
    d, f, heads = model.d_model, model.width_ff, model.n_heads
    half, on_cpu = shapes.dtype == "bfloat16", shapes.device == "cpu"
    c = HALF if half else FLOAT  # bytes of what matmuls take and give
    # What goes into a norm is saved beside what comes out where that is no operand as it is.
    beside = half or precision.format("activations").quantizes
    attended = c * heads * shapes.length if on_cpu else c * d + FLOAT * heads
    attention = 2 * FLOAT + (FLOAT + c) * d * beside + 5 * c * d + attended
    feed_forward = 2 * FLOAT + c * d * beside + c * d + 3 * c * f
    quantized = precision.format("weights").quantizes
    if precision.quantized_backward():
        operand = FLOAT * (quantized and precision.dx_weights == FORWARD)
    else:
        operand = HALF if half else FLOAT * quantized
    matrices = shapes.block_matrices
    saved = tokens * (attention + feed_forward) + operand * sum(matrices.values())
    here = saved + FLOAT * tokens * d  # with the gradient that comes in
    # Behind `down`; then with all of the feed-forward layer through, at the gradients of probabilities and scores.
    in_feed_forward = here + tokens * 2 * c * f
    work = 2 * c * (d + heads * shapes.length) if on_cpu else 2 * (c + FLOAT) * d
    in_attention = here + tokens * (work - feed_forward)
    if not accumulates:
        in_attention += FLOAT * (matrices["gate_up"] + matrices["down"])
    backward = max(in_feed_forward, in_attention)
    stream = FLOAT * tokens * d  # what it is computed again from
    return (
        Pass(saved=stream, forward=0.0, backward=backward + stream) if shapes.recomputes else Pass(saved, 0.0, backward)
    )


def _compiled_head(shapes: Shapes, tokens: int) -> Pass:
    """The backward pass writes the gradient of the logits over the logits, which are saved."""
    d, half = shapes.model.d_model, shapes.dtype == "bfloat16"
    size = shapes.matrices["embedding"]
    saved = size * (HALF if half else FLOAT * shapes.precision.format("head").quantizes)
    if shapes.loss_tokens:
        # In chunks of whole sequences: the stream is saved, and the head's gradient is summed over them.
        saved += FLOAT * (tokens * d + size)
        tokens = min(tokens, max(1, shapes.loss_tokens // shapes.length) * shapes.length)
    saved += tokens * (FLOAT * (d + 1) + HALF * d * half + (HALF if half else FLOAT) * shapes.vocabulary)
    return Pass(saved=saved, forward=0.0, backward=saved)
