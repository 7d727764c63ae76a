"""The shape of a model: its settings, its matrices by name, and how many parameters they have."""

import dataclasses
from typing import Annotated

from scaling.config.from_dict import Settings
from scaling.config.limits import AtLeast, AtMost, Count
from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The shape of one model and how it is initialized."""

    n_layers: Annotated[Count, AtMost(10_000)]
    """L, number of blocks."""
    d_model: Annotated[Count, AtMost(1_000_000)]
    """d, width of the residual stream."""
    head_dim: Count
    """k, width of one attention head; d_model / head_dim heads."""
    d_ff: Annotated[Count, AtMost(10_000_000)] | None
    """f, width of the feed-forward layer; null: 8 d / 3 to the nearest multiple of 16."""
    tied_head: bool
    """Whether the head shares its matrix with the embedding."""
    extra_norm: bool
    """Norm before the output and down projections too, as in the paper."""
    rope_base: Annotated[float, AtLeast(1)]
    """Base of the rotary embedding's wavelengths."""

    def __post_init__(self):
        super().__post_init__()
        if self.head_dim % 2:
            raise InputError(f"head_dim={self.head_dim}: must be even (rotary embeddings turn pairs)")
        if self.d_model % self.head_dim:
            raise InputError(f"d_model={self.d_model}: must be a multiple of head_dim={self.head_dim}")

    @property
    def n_heads(self) -> int:
        return self.d_model // self.head_dim

    @property
    def width_ff(self) -> int:
        return self.d_ff or max(16, round(8 * self.d_model / 3 / 16) * 16)

    def shapes(self, vocab_size: int) -> dict[str, tuple[int, int]]:
        """Name -> (out, in) of every parameter of one model."""
        d, f = self.d_model, self.width_ff
        shapes = {"embedding": (vocab_size, d)}
        for i in range(self.n_layers):
            shapes[f"layers.{i}.qkv"] = (3 * d, d)
            shapes[f"layers.{i}.out"] = (d, d)
            shapes[f"layers.{i}.gate_up"] = (2 * f, d)
            shapes[f"layers.{i}.down"] = (d, f)
        if not self.tied_head:
            shapes["head"] = (vocab_size, d)
        return shapes

    @property
    def block_names(self) -> list[str]:
        """Names of the matrices of the blocks, from the first layer to the last."""
        return [name for name in self.shapes(1) if is_block_weight(name)]

    def count(self, vocab_size: int) -> dict[str, int]:
        """Parameters by group: attention, feed_forward, embedding, head; N (without embedding and head), N_total."""
        groups = {"attention": 0, "feed_forward": 0, "embedding": 0, "head": 0}
        for name, (rows, columns) in self.shapes(vocab_size).items():
            groups[group_of(name)] += rows * columns
        n = groups["attention"] + groups["feed_forward"]
        return {**groups, "N": n, "N_total": n + groups["embedding"] + groups["head"]}

    def n_nonembedding(self) -> int:
        """N of the scaling laws: parameters without embedding and head."""
        return self.count(1)["N"]


def group_of(name: str) -> str:
    """Which group of parameters `name` belongs to: attention, feed_forward, embedding or head."""
    kind = name.rpartition(".")[2]
    return {"qkv": "attention", "out": "attention", "gate_up": "feed_forward", "down": "feed_forward"}.get(kind, kind)


def is_block_weight(name: str) -> bool:
    """True for the matrices of the blocks, which N counts and which are quantized."""
    return name.startswith("layers.")


def parts_of(name: str) -> int:
    """How many matrices of the usual description are stored in one: qkv holds 3, gate_up 2."""
    return {"qkv": 3, "gate_up": 2}.get(name.rpartition(".")[2], 1)
