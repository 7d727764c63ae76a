"""What the forward pass of a stack keeps for its backward pass: a list of tensors, each with what it is kept for, after
`scaling.model.transformer`. `scaling.study.memory` counts with it.

Eager mode and compiled, CPU and GPU keep different tensors. On a CPU attention is written out and keeps its
probabilities, T x T a head; a GPU's fused kernel keeps its output instead. A CPU's norm keeps what it returns, which is
mostly the input of the next matmul, and a GPU's what it was given. Under autocast matmuls take bfloat16 copies, and
those are kept beside the float32 values that norms keep.

Everything is of one model, in bytes. Letters as in `scaling.model.transformer`: d width, f width of the feed-forward
layer, H heads, T positions, V vocabulary.
"""

from collections.abc import Sequence

from scaling.config.data import vocab_size
from scaling.config.precision import PARTS
from scaling.config.run import Run
from scaling.quantization.rounding import family
from scaling.quantization.spec import QuantSpec

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 value."""


class Sizes:
    """The sizes of one model of a stack, and what its passes quantize: a part is computed as quantized for all members
    where it is for one."""

    def __init__(self, stack: Sequence[Run], device: str):
        run = stack[0]
        self.run, self.on_cpu = run, device == "cpu"
        # With `auto` a compiler may fail, and then eager mode has to fit.
        self.compiled = run.runtime.compile == "on"
        self.extra = run.model.extra_norm
        self.d, self.f, self.heads = run.model.d_model, run.model.width_ff, run.model.n_heads
        self.layers, self.length = run.model.n_layers, run.data.sequence_length
        self.vocabulary = vocab_size(run.data)
        self.matrices = {name: o * i for name, (o, i) in run.model.shapes(self.vocabulary).items()}
        self.block = {name: size for name, size in self.matrices.items() if name.startswith("layers.0.")}
        self.block_weights = sum(self.block.values())
        self.head_weights = self.vocabulary * self.d
        self.weights_bytes = FLOAT * sum(self.matrices.values())
        self.half = run.runtime.dtype == "bfloat16"
        self.c = HALF if self.half else FLOAT  # bytes of what matmuls take and give
        self.custom = any(member.precision.quantized_backward() for member in stack)
        self.quantized = {part: _quantized(stack, part) for part in PARTS}

    def quantizes(self, part: str) -> bool:
        return bool(self.quantized[part])

    def masks(self, part: str) -> bool:
        """Whether the estimator keeps a mask, of one byte a value."""
        return any(spec.estimator == "clipped" and spec.scale_rule != "absmax" for spec in self.quantized[part])

    def copies(self, part: str, width: int) -> int:
        """Float32 tensors of the size of what is quantized, rows of a `width`, that are there at once while it is: the
        result included and what comes in not (`Quantizer.rounded`)."""
        if not self.quantizes(part):
            return 0
        spec = self.quantized[part][0]
        found = 1 + self.half  # scaled values; a float32 copy of what comes in
        if family(spec.format) == "levels":
            found += 3  # an index of twice the size and what it points to
        elif not all(other.format.is_integer for other in self.quantized[part]):
            found += 1  # the spacing of the grid around each value
        if spec.format.block and width % spec.format.block:
            found += 2  # rows that are filled up, and cut again
        # Rotated there and back; the steps of a hash; a candidate and its error.
        stochastic = spec.rounding == "stochastic"
        return found + 2 * spec.format.hadamard + 3 * stochastic + 2 * (spec.scale_rule == "mse")

    def takes_forward(self, part: str) -> bool:
        """Whether a backward matmul takes the operand of the forward pass."""
        return self.run.precision.takes_forward(part)


def _quantized(stack: Sequence[Run], part: str) -> list[QuantSpec]:
    return [spec for spec in (member.precision.spec(part) for member in stack) if spec.format.quantizes]


def by_attention(s: Sizes) -> dict[str, float]:
    """Bytes a token of one block."""
    if s.compiled:
        return _compiled_attention(s)
    kept = {
        "norm": FLOAT * (s.d + 1),  # y on a CPU (`_Norm`), x on a GPU (rms_norm), with the scale of the token
        "input of qkv": _operand(s, s.d, FLOAT),
        "queries, keys, values": 3 * s.c * s.d,  # operands of the two matmuls of attention; qkv itself is not kept
        "probabilities": _attended(s),
        "input of out": _operand(s, s.d, s.c if s.on_cpu else FLOAT, normed=s.extra),
        "masks": 2 * s.d * (s.masks("activations") + s.masks("kv")) + s.d * s.masks("queries"),
    }
    return kept | ({"extra norm": FLOAT * (s.d + 1)} if s.extra else {})


def by_feed_forward(s: Sizes) -> dict[str, float]:
    """Bytes a token of one block."""
    if s.compiled:
        return _compiled_feed_forward(s)
    kept = {
        "norm": FLOAT * (s.d + 1),
        "input of gate_up": _operand(s, s.d, FLOAT),
        "gate_up": 2 * s.c * s.f,  # gate for the silu, up for the product
        "silu": s.c * s.f,  # for the product
        "input of down": _operand(s, s.f, s.c if s.on_cpu else FLOAT, normed=s.extra),
        "masks": (s.d + s.f) * s.masks("activations"),
    }
    return kept | ({"extra norm": FLOAT * (s.f + 1)} if s.extra else {})


def _attended(s: Sizes) -> float:
    """The result of the softmax, an operand of the second matmul; of a fused kernel its output and a sum a head."""
    return s.c * s.heads * s.length if s.on_cpu else s.c * s.d + FLOAT * s.heads


def _operand(s: Sizes, width: int, handed: int, normed: bool = True) -> float:
    """The input of a matmul as far as it is not kept already; `handed` bytes a value leave the norm in front of it."""
    if not normed:
        return s.c * width
    own = s.quantizes("activations")
    shared = s.on_cpu and handed == FLOAT  # what comes in is the y that the norm keeps
    if s.custom:
        # `_Project` keeps what comes in, or its quantized values, and casts in the backward pass.
        return 0 if shared and not (own and s.takes_forward("dw_activations")) else handed * width
    return HALF * width if s.half else 0 if shared and not own else FLOAT * width


def _compiled_attention(s: Sizes) -> dict[str, float]:
    """As Inductor's partitioner chooses (torch 2.13): operands of matmuls, what they give, and otherwise little."""
    return {
        "norms": 2 * FLOAT,
        "residual stream": FLOAT * s.d * _beside(s),
        "inputs of qkv and out": 2 * s.c * s.d,
        "queries, keys, values": 3 * s.c * s.d,
        "probabilities": _attended(s),
        "mixed values": s.c * s.d * _beside(s),
    }


def _compiled_feed_forward(s: Sizes) -> dict[str, float]:
    return {
        "norms": 2 * FLOAT,
        "residual stream": s.c * s.d * _beside(s),
        "input of gate_up": s.c * s.d,
        "gate_up": 2 * s.c * s.f,
        "input of down": s.c * s.f,
    }


def _beside(s: Sizes) -> bool:
    """Whether what goes into a norm is kept beside what comes out: not where the latter is an operand as it is."""
    return s.half or s.quantizes("activations")


def by_weights(s: Sizes, part: str, count: int) -> float:
    """Bytes of `count` weights that their matmul takes: quantized values or casts, or none beside the weights."""
    masks = count * s.masks(part)
    if s.custom and part == "weights":
        return FLOAT * count * (s.quantizes(part) and s.takes_forward("dx_weights")) + masks
    return count * (HALF if s.half else FLOAT * s.quantizes(part)) + masks


def by_head(s: Sizes) -> float:
    """Bytes a token in front of the logits."""
    return FLOAT * (s.d + 1) + (HALF * s.d if s.half else 0 if s.on_cpu or s.compiled else FLOAT * s.d)
