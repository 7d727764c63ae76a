"""The quantizers of a stack of models, for every part of it that is quantized while it trains."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from scaling.config.precision import KEYS, PARTS, Precision
from scaling.quantization.fake_quantize import Quantizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackPrecision:
    """The quantizers of a stack, part by part. `dx_weights` and `dw_activations` are None where the backward pass takes
    the tensors of the forward pass."""

    weights: Quantizer
    activations: Quantizer
    kv: Quantizer
    keys: Quantizer
    queries: Quantizer
    embedding: Quantizer
    head: Quantizer
    dx_gradients: Quantizer
    dx_weights: Quantizer | None
    dw_gradients: Quantizer
    dw_activations: Quantizer | None
    custom_backward: bool
    """Whether a backward matmul has an operand of its own."""
    keys_by_channel: bool
    """Whether scales of keys run along the tokens."""
    members: tuple[Precision, ...]
    others: Mapping[str, "StackPrecision"] = dataclasses.field(default_factory=dict)
    """Within one layer, by the kind of matrix: those of matmuls that are quantized otherwise, or not at all."""
    layers: dict[int, "StackPrecision"] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Those of layers that were asked for."""

    @classmethod
    def of(cls, members: Sequence[Precision], device: torch.device | str) -> "StackPrecision":
        """For members whose `program` is the same."""
        first = members[0]
        assert all(member.program() == first.program() for member in members)
        parts = {
            part: None if first.takes_forward(part) else Quantizer([member.spec(part) for member in members], device)
            for part in PARTS
        }
        return cls(
            **parts,
            keys=Quantizer([member.spec(KEYS) for member in members], device),
            custom_backward=bool(first.quantized_backward()),
            keys_by_channel=first.keys_by_channel,
            members=tuple(members),
        )

    def in_layer(self, i: int, names: Sequence[str]) -> "StackPrecision":
        """That of layer i, given the kinds of its matrices."""
        if i not in self.layers:
            device = self.weights.formats.device
            of_members = {name: tuple(member.at(f"layers.{i}.{name}") for member in self.members) for name in names}
            others = {name: StackPrecision.of(m, device) for name, m in of_members.items() if m != self.members}
            self.layers[i] = dataclasses.replace(self, others=others) if others else self
        return self.layers[i]

    def of_matmul(self, name: str) -> "StackPrecision":
        """That of the matmul with a matrix of this layer."""
        return self.others.get(name, self)
