"""Fake quantization for a stack of models: scales per granularity, rounding, straight-through estimator.

Values are scaled so that the largest magnitude of each scale group meets the format's `max_value` (symmetric absmax,
arXiv 2411.04330, Appendix D), rounded to nearest with ties to even, and scaled back. Scales are dynamic: they come
from the tensor at hand, in training and in evaluation alike.

Two details make the rounding exact and cheap. floor(log2 |x|) is read off the exponent bits: float32 viewed as int32
and masked with 0x7F800000 *is* 2^floor(log2 |x|) when viewed back, where `log2` would be off near powers of two and
costs three times as much. And the spacing of the grid is a power of two, so dividing by it and multiplying back is
exact: the only rounding is the one that is meant.

Shape suffixes: M models of a stack, R rows (output channels of a weight, tokens of an activation), C columns (the axis
that the matmul sums over).
"""

import dataclasses
import re
from typing import Literal

import torch

from scaling.errors import InputError
from scaling.formats import UNQUANTIZED, Format, parse

EXPONENT_BITS = 0x7F800000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """Which part of the model is quantized during training, and how. The forward pass only, as in the paper."""

    weights: str
    """Format of the block weights (attention and feed-forward matrices)."""
    activations: str
    """Format of the inputs of the block matmuls."""
    kv: str
    """Format of keys (after the rotary embedding) and values: what a KV cache would hold."""
    queries: str
    """Format of the queries (after the rotary embedding)."""
    granularity_weights: str
    """One scale for each: `channel` (output channel), `tensor`, or `block<k>` (k inputs of one output channel)."""
    granularity_activations: str
    """One scale for each: `tensor` (of one batch), `token`, or `block<k>`."""
    granularity_kv: str
    """One scale for each: `tensor` (of one batch), `token` (and head), or `block<k>`. Also for the queries."""
    estimator: Literal["straight_through"]
    """How gradients pass the rounding: straight_through treats it as the identity."""
    rounding: Literal["nearest_even"]

    def __post_init__(self):
        for part in ("weights", "activations", "kv", "queries"):
            try:
                parse(getattr(self, part))
            except InputError as fault:
                raise InputError(f"{part}={fault}") from None
        for part, first in (("weights", "channel"), ("activations", "token"), ("kv", "token")):
            name = f"granularity_{part}"
            value = getattr(self, name)
            if value not in ("tensor", first) and not re.fullmatch(r"block[1-9]\d*", value):
                raise InputError(f"{name}={value}: use one of tensor, {first}, block<k> such as block16")

    def identity(self) -> dict[str, str]:
        """The settings that have an effect: those of a part that is not quantized have none."""
        parts = {"weights": self.weights, "activations": self.activations, "kv": self.kv, "queries": self.queries}
        found = {part: name for part, name in parts.items() if name != UNQUANTIZED}
        for part, of in (("weights", {"weights"}), ("activations", {"activations"}), ("kv", {"kv", "queries"})):
            if of & found.keys():
                found[f"granularity_{part}"] = getattr(self, f"granularity_{part}")
        if found:
            found |= {"estimator": self.estimator, "rounding": self.rounding}
        return found

    def unquantized(self) -> "Precision":
        """The same settings with every part in 16 bits: the run that a quantized run is compared with."""
        return dataclasses.replace(
            self, weights=UNQUANTIZED, activations=UNQUANTIZED, kv=UNQUANTIZED, queries=UNQUANTIZED
        )


class FormatStack:
    """The formats of one part (weights, say) for the M models of a stack, as tensors of shape (M, 1, 1)."""

    def __init__(self, formats: list[Format], device: torch.device | str = "cpu"):
        self.formats = list(formats)

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)

        # An unquantized member is computed like int16 and then replaced by its input, so that no infinity enters.
        stand_in = [f if f.quantizes else parse("int16") for f in self.formats]
        self.max_value = column([f.max_value for f in stand_in])
        self.min_power = column([2.0**f.min_exponent for f in stand_in])
        self.fraction = column([2.0**-f.mantissa_bits for f in stand_in])
        self.passes = torch.tensor([not f.quantizes for f in self.formats], device=device).view(-1, 1, 1)
        # Known when the stack is made, these skip work that would not change a bit of the result.
        self.any_quantized = any(f.quantizes for f in self.formats)
        self.any_passes = any(not f.quantizes for f in self.formats)
        self.all_integer = all(f.is_integer for f in stand_in)

    def take(self, members: list[int]) -> "FormatStack":
        """The formats of the named members, in that order; a member may be named twice."""
        return FormatStack([self.formats[m] for m in members], self.max_value.device)


class _StraightThrough(torch.autograd.Function):
    """round_to_grid forward, identity backward."""

    @staticmethod
    def forward(ctx, x_MRC, formats, granularity):
        return round_to_grid(x_MRC, formats, granularity)

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


def quantize_stack(x_MRC: torch.Tensor, formats: FormatStack, granularity: str) -> torch.Tensor:
    """Fake-quantize x (M, R, C), each model in its own format, with gradients passed straight through.

    The scale of model m never depends on another model. All-zero groups stay zero; a group that holds a NaN or an
    infinity becomes NaN. Computes in float32 and returns x's dtype.
    """
    if not formats.any_quantized:
        return x_MRC
    return _StraightThrough.apply(x_MRC, formats, granularity)


def round_to_grid(x_MRC: torch.Tensor, formats: FormatStack, granularity: str) -> torch.Tensor:
    """The values that `quantize_stack` gives, without a gradient rule."""
    if granularity.startswith("block"):
        blocks = split_blocks(x_MRC, int(granularity.removeprefix("block")))
        return round_to_grid(blocks, formats, "channel").view_as(x_MRC)
    x = x_MRC.float()
    groups = tuple(range(1, x.dim())) if granularity == "tensor" else (-1,)
    shape = (-1,) + (1,) * (x.dim() - 1)
    largest = formats.max_value.view(shape)
    scale = x.abs().amax(dim=groups, keepdim=True) / largest
    y = x / torch.where(scale == 0, 1.0, scale)
    if formats.all_integer:
        # |y| stays below 2^(min_exponent + 1), where the spacing is 1: the general rule gives the same.
        y.round_()
    else:
        power = (y.view(torch.int32) & EXPONENT_BITS).view(torch.float32)
        step = torch.maximum(power, formats.min_power.view(shape)) * formats.fraction.view(shape)
        y.div_(step).round_().mul_(step)
    q = y.clamp_(-largest, largest).mul_(scale)
    if formats.any_passes:
        q = torch.where(formats.passes.view(shape), x, q)
    return q.to(x_MRC.dtype)


def split_blocks(x_MRC: torch.Tensor, size: int) -> torch.Tensor:
    """View the last axis as blocks: (M, R, C) -> (M, R, C / size, size).

    Raises:
        InputError: the block does not divide the width.
    """
    width = x_MRC.shape[-1]
    if width % size:
        raise InputError(f"block{size}: does not divide a width of {width}")
    return x_MRC.reshape(*x_MRC.shape[:-1], width // size, size)
