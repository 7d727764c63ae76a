"""The quantizers of a stack of models, for every part of it that is quantized while it trains."""

import dataclasses
from collections.abc import Sequence

import torch

from scaling.config.precision import PARTS, Precision
from scaling.quantization.fake_quantize import Quantizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackPrecision:
    """The quantizers of a stack, part by part. `dx_weights` and `dw_activations` are None where the backward pass takes
    the tensors of the forward pass."""

    weights: Quantizer
    activations: Quantizer
    kv: Quantizer
    queries: Quantizer
    embedding: Quantizer
    head: Quantizer
    dx_gradients: Quantizer
    dx_weights: Quantizer | None
    dw_gradients: Quantizer
    dw_activations: Quantizer | None
    custom_backward: bool
    """Whether a backward matmul has an operand of its own."""

    @classmethod
    def of(cls, members: Sequence[Precision], device: torch.device | str) -> "StackPrecision":
        """For members whose `program` is the same."""
        first = members[0]
        assert all(member.program() == first.program() for member in members)
        parts = {
            part: None if first.takes_forward(part) else Quantizer([member.spec(part) for member in members], device)
            for part in PARTS
        }
        return cls(**parts, custom_backward=bool(first.quantized_backward()))
