"""What a run quantizes while it trains.

Parts of the forward pass are the weights and inputs of the block matmuls, keys and values, queries, the embedding and
the head. The backward pass of a matmul y = x W^T is two matmuls more, and each of their operands is a part as well,
named as in the Quartet scheme (arXiv 2505.14669):

    dx = dy W      `dx_gradients` is dy there, `dx_weights` is W
    dw = dy^T x    `dw_gradients` is dy there, `dw_activations` is x

An operand's scales run along the axis that its own matmul sums over. By default, as in the paper, no gradient is
quantized and the backward matmuls see the tensors that the forward pass saw.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from scaling.errors import InputError, named
from scaling.quantization.fake_quantize import Estimator, Rounding, check_granularity, check_width
from scaling.quantization.formats import UNQUANTIZED, Format, parse
from scaling.quantization.rounding import family
from scaling.quantization.scales import check_rule

FORWARD = "forward"
GROUPS = {
    "weights": ("weights", "embedding", "head"),
    "activations": ("activations",),
    "kv": ("kv", "queries"),
    "backward": ("dx_gradients", "dx_weights", "dw_gradients", "dw_activations"),
}
"""Parts that share a granularity and a scale rule."""
PARTS = {part: group for group, parts in GROUPS.items() for part in parts}
DEFAULTS = {part: FORWARD if part in ("dx_weights", "dw_activations") else UNQUANTIZED for part in PARTS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """Which part of the model is quantized during training, and how."""

    weights: str
    """Format of the block weights (attention and feed-forward matrices)."""
    activations: str
    """Format of the inputs of the block matmuls."""
    kv: str
    """Format of keys (after the rotary embedding) and values: what a KV cache would hold."""
    queries: str
    """Format of the queries (after the rotary embedding)."""
    embedding: str
    """Format of the token embedding where it is looked up."""
    head: str
    """Format of the matrix that gives the logits, which may be the embedding's own (`tied_head`)."""
    dx_gradients: str
    """Backward, dx = dy W: format of dy, scaled along the output channels."""
    dx_weights: str
    """Backward, dx = dy W: format of W, scaled along the output channels; `forward`: as the forward pass saw it."""
    dw_gradients: str
    """Backward, dw = dy^T x: format of dy, scaled along the tokens."""
    dw_activations: str
    """Backward, dw = dy^T x: format of x, scaled along the tokens; `forward`: as the forward pass saw it."""
    granularity_weights: str
    """One scale for each: `channel` (output channel), `tensor`, or `block<k>` (k inputs of one output channel). Also
    for embedding and head, whose channels are tokens."""
    granularity_activations: str
    """One scale for each: `tensor` (of one batch), `token`, or `block<k>`."""
    granularity_kv: str
    """One scale for each: `tensor` (of one batch), `token` (and head), or `block<k>`. Also for the queries."""
    granularity_backward: str
    """One scale for each: `tensor`, `channel` (a row along the axis that is summed over), or `block<k>` of it."""
    scale_rule_weights: str
    """How scales are chosen (`scaling.quantization.scales`); auto: the format's own, absmax for most. Also
    embedding and head."""
    scale_rule_activations: str
    scale_rule_kv: str
    """Also for the queries."""
    scale_rule_backward: str
    estimator: Estimator
    """How gradients pass the rounding: `straight_through` takes it for the identity, `clipped` also stops those of
    values beyond the largest."""
    rounding: Rounding
    """Of the forward parts: `nearest_even`, or `stochastic`."""
    rounding_backward: Rounding

    def __post_init__(self):
        for group, parts in GROUPS.items():
            granularity, rule = f"granularity_{group}", f"scale_rule_{group}"
            rows = "channel" if group in ("weights", "backward") else "token"
            named(granularity, check_granularity, getattr(self, granularity), rows)
            formats = []
            for part in parts:
                if getattr(self, part) != DEFAULTS[part]:
                    formats.append(named(part, _operand if DEFAULTS[part] == FORWARD else parse, getattr(self, part)))
            for fmt in formats or [parse(UNQUANTIZED)]:
                named(rule, check_rule, getattr(self, rule), fmt)

    def format(self, part: str) -> Format:
        """The format of a part; unquantized where the backward pass takes what the forward pass had."""
        name = getattr(self, part)
        return parse(UNQUANTIZED if name == FORWARD else name)

    def name(self, part: str) -> str:
        """The name of a part's format, however it was spelled, or `forward`."""
        name = getattr(self, part)
        return name if name == FORWARD else parse(name).name

    def check_widths(self, widths: Mapping[str, Iterable[int]]) -> None:
        """Raise InputError where blocks or rotations do not fit the rows of a part: part -> widths of its rows."""
        for part, group in PARTS.items():
            granularity, rule = (getattr(self, f"{kind}_{group}") for kind in ("granularity", "scale_rule"))
            for width in widths[part]:
                try:
                    check_width(width, self.format(part), granularity, rule)
                except InputError as fault:
                    raise InputError(f"{part}={getattr(self, part)}: {fault}") from None

    def identity(self) -> dict[str, str]:
        """The settings that have an effect: those of a part that is not quantized have none, nor has saying what the
        format says by itself."""
        found = {part: self.name(part) for part in PARTS if self.name(part) != DEFAULTS[part]}
        if not found:
            return {}
        quantized = {part for part in PARTS if self.format(part).quantizes}
        for group, parts in GROUPS.items():
            formats = [self.format(part) for part in parts if part in quantized]
            if any(f.block is None for f in formats):
                found[f"granularity_{group}"] = getattr(self, f"granularity_{group}")
            rule = getattr(self, f"scale_rule_{group}")
            if any(check_rule(rule, f) != f.scale_rule for f in formats):
                found[f"scale_rule_{group}"] = rule
        backward = quantized & set(GROUPS["backward"])
        if quantized - backward:
            found |= {"estimator": self.estimator, "rounding": self.rounding}
        if backward:
            found["rounding_backward"] = self.rounding_backward
        return found

    def unquantized(self) -> "Precision":
        """The same settings with every part in 16 bits: the run that a quantized run is compared with."""
        return dataclasses.replace(self, **DEFAULTS)

    def quantized_backward(self) -> dict[str, str]:
        """The operands of the backward pass that differ from the default, by name."""
        return {p: self.name(p) for p in GROUPS["backward"] if self.name(p) != DEFAULTS[p]}

    def program(self) -> dict[str, Any]:
        """What runs have to share to be trained as one stack: everything but the element formats of one family."""
        found: dict[str, Any] = {"estimator": self.estimator, "rounding": self.rounding}
        found["rounding_backward"] = self.rounding_backward if self.quantized_backward() else None
        for part, group in PARTS.items():
            fmt = self.format(part)
            granularity = fmt.granularity(getattr(self, f"granularity_{group}"))
            rule = check_rule(getattr(self, f"scale_rule_{group}"), fmt)
            found[part] = [family(fmt), granularity, rule, fmt.hadamard]
        # Operands of the backward pass that are or are not those of the forward pass make different programs.
        found["backward"] = [getattr(self, p) == FORWARD for p in ("dx_weights", "dw_activations")]
        found["custom_backward"] = bool(self.quantized_backward())
        return found


def _operand(name: str) -> Format:
    try:
        return parse(name)
    except InputError as fault:
        raise InputError(str(fault).replace("; use ", f"; use {FORWARD}, ", 1)) from None
