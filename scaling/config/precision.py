"""What a run quantizes while it trains.

Parts of the forward pass are the weights and inputs of the block matmuls, keys and values, queries, the embedding and
the head. The backward pass of a matmul y = x W^T is two matmuls more, and each of their operands is a part as well,
named as in the Quartet scheme (arXiv 2505.14669):

    dx = dy W      `dx_gradients` is dy there, `dx_weights` is W
    dw = dy^T x    `dw_gradients` is dy there, `dw_activations` is x

An operand's scales run along the axis that its own matmul sums over. By default, as in the paper, no gradient is
quantized and the backward matmuls see the tensors that the forward pass saw.

Keys have the format of `kv`, and may have a granularity of their own: KIVI (arXiv 2402.02750) found that scales of keys
should run along the tokens of a channel, and those of values along the channels of a token.
"""

import dataclasses
import re
from functools import cached_property
from typing import Any

from scaling.errors import InputError, named, nearest_names
from scaling.quantization.formats import UNQUANTIZED, Format, parse
from scaling.quantization.skip import is_skipped
from scaling.quantization.spec import Estimator, QuantSpec, Rounding

FORWARD = "forward"
GROUPS = {
    "weights": ("weights", "embedding", "head"),
    "activations": ("activations",),
    "kv": ("kv", "queries"),
    "backward": ("dx_gradients", "dx_weights", "dw_gradients", "dw_activations"),
}
"""Parts that share a granularity and a scale rule."""
PARTS = {part: group for group, parts in GROUPS.items() for part in parts}
KEYS = "keys"
"""A part with the format and scale rule of `kv`."""
BY_CHANNEL = re.compile(r"channel(?:_(block[1-9]\d*))?")
"""Granularities of keys whose scales run along the tokens."""
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
    """One scale for each: `channel` (output channel), `tensor`, `block<k>` (k inputs of one output channel), or
    `block<r>x<k>` (of r output channels). Also for embedding and head, whose channels are tokens."""
    granularity_activations: str
    """One scale for each: `tensor` (of one batch), `token`, or `block<k>`."""
    granularity_kv: str
    """One scale for each: `tensor` (of one batch), `token` (and head), or `block<k>`. Also for the queries."""
    granularity_backward: str
    """One scale for each: `tensor`, `channel` (a row along the axis that is summed over), or `block<k>` of it."""
    scale_rule_weights: str
    """How scales are chosen (`scaling.quantization.scale_rules`); auto: the format's own, absmax for most. Also
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
    granularity_keys: str | None = None
    """Of the keys alone: as granularity_kv, or `channel` (a channel of a head, over the tokens of a sequence) or
    `channel_block<k>` (k tokens of a channel); null: that of granularity_kv."""
    skip: tuple[str, ...] = ()
    """Names of block matrices, or patterns such as `layers.0.*` and `*.down`, whose matmuls are not quantized."""

    def __post_init__(self):
        _ = self._specs  # resolving checks

    @cached_property
    def _specs(self) -> dict[str, QuantSpec]:
        specs = {part: self.spec_in(getattr(self, part), part) for part in PARTS}
        return specs | {KEYS: keys_at(specs["kv"], self.granularity_keys)}

    def spec(self, part: str) -> QuantSpec:
        """How a part is quantized: not at all where the backward pass takes what the forward pass had."""
        return self._specs[part]

    def spec_in(
        self, name: str, part: str, granularity: str | None = None, rule: str | None = None, place: str = ""
    ) -> QuantSpec:
        """How a part would be quantized in another format, and at another granularity and by another scale rule where
        these are given. `place` stands in messages in front of the field's name.

        Raises:
            InputError: no such format, granularity or rule, or a rule that is not for the format.
        """
        group = PARTS[part]
        grain, chosen = f"granularity_{group}", f"scale_rule_{group}"
        others = (FORWARD,) if DEFAULTS[part] == FORWARD else ()
        return QuantSpec.of(
            parse(UNQUANTIZED) if name in others else named(place + part, parse, name, *others),
            granularity or getattr(self, grain),
            rule or getattr(self, chosen),
            self.rounding_backward if group == "backward" else self.rounding,
            self.estimator,
            rows=("channel",) if group in ("weights", "backward") else ("token",),
            tiles=group == "weights",
            keys=(place + part, place + grain, place + chosen),
        )

    @property
    def keys_by_channel(self) -> bool:
        """Whether scales of keys run along the tokens."""
        return runs_along_tokens(self.granularity_keys)

    @property
    def own_granularity_keys(self) -> str | None:
        """That of the keys as it came into effect; None where it is that of kv."""
        spec = self._specs[KEYS]
        if not self.keys_by_channel:
            return None if spec == self._specs["kv"] else spec.granularity
        return spec.granularity if spec.block is None else f"channel_{spec.granularity}"

    def at(self, name: str) -> "Precision":
        """That of the matmul with the block matrix of that name."""
        return self.unquantized() if is_skipped(name, self.skip) else self

    def takes_forward(self, part: str) -> bool:
        """Whether a part is that of the forward pass, as it was quantized there."""
        return getattr(self, part) == FORWARD

    def format(self, part: str) -> Format:
        """The format of a part; unquantized where the backward pass takes what the forward pass had."""
        return self.spec(part).format

    def name(self, part: str) -> str:
        """The name of a part's format, however it was spelled, or `forward`."""
        return FORWARD if self.takes_forward(part) else self.format(part).name

    def identity(self) -> dict[str, str]:
        """The settings that have an effect: those of a part that is not quantized have none, nor has saying what the
        format says by itself."""
        settings = {part: self.name(part) for part in PARTS if self.name(part) != DEFAULTS[part]}
        if not settings:
            return {}
        quantized = {part: spec for part, spec in self._specs.items() if spec.format.quantizes}
        for part, spec in quantized.items():
            if part == KEYS:
                continue
            if spec.granularity != spec.format.granularity("channel") or spec.format.block is None:
                settings[f"granularity_{PARTS[part]}"] = spec.granularity
            if spec.scale_rule != spec.format.scale_rule:
                settings[f"scale_rule_{PARTS[part]}"] = spec.scale_rule
        if KEYS in quantized and self.own_granularity_keys:
            settings["granularity_keys"] = self.own_granularity_keys
        backward = quantized.keys() & set(GROUPS["backward"])
        if quantized.keys() - backward:
            settings |= {"estimator": self.estimator, "rounding": self.rounding}
        if backward:
            settings["rounding_backward"] = self.rounding_backward
        return settings

    def unquantized(self) -> "Precision":
        """The same settings with every part in 16 bits: the run that a quantized run is compared with."""
        return dataclasses.replace(self, **DEFAULTS)

    def quantized_backward(self) -> dict[str, str]:
        """The operands of the backward pass that differ from the default, by name."""
        return {p: self.name(p) for p in GROUPS["backward"] if self.name(p) != DEFAULTS[p]}

    def program(self) -> dict[str, Any]:
        """What runs have to share to be trained as one stack: everything but the element formats of one family."""
        settings: dict[str, Any] = {"estimator": self.estimator, "rounding": self.rounding}
        settings["rounding_backward"] = self.rounding_backward if self.quantized_backward() else None
        settings |= {part: self._specs[part].program for part in PARTS}
        if self.own_granularity_keys:
            settings[KEYS] = self._specs[KEYS].program, self.keys_by_channel
        if self.skip:
            settings["skip"] = list(self.skip)
        # Operands of the backward pass that are or are not those of the forward pass make different programs.
        settings["backward"] = [self.takes_forward(part) for part in ("dx_weights", "dw_activations")]
        settings["custom_backward"] = bool(self.quantized_backward())
        return settings


def runs_along_tokens(granularity_keys: str | None) -> bool:
    """Whether scales of keys run along the tokens at such a granularity."""
    return granularity_keys is not None and bool(BY_CHANNEL.fullmatch(granularity_keys))


def keys_at(kv: QuantSpec, granularity: str | None) -> QuantSpec:
    """How keys are quantized where `kv` says the rest, at a granularity of their own (None: that of kv).

    Raises:
        InputError: no such granularity.
    """
    if granularity is None:
        return kv
    if not re.fullmatch(r"tensor|token|block[1-9]\d*", granularity) and not runs_along_tokens(granularity):
        raise InputError(
            f"granularity_keys={granularity}: no such granularity; use tensor, token, block<k>, channel, or "
            f"channel_block<k> such as channel_block32{nearest_names(granularity, ('channel', 'token', 'block32'), 1)}"
        )
    along = granularity.removeprefix("channel_")
    return QuantSpec.of(kv.format, along, kv.scale_rule, kv.rounding, kv.estimator, tiles=False)
