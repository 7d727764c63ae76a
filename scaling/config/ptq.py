"""What may be said of quantization after training."""

import dataclasses
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtMost, Count
from scaling.config.precision import Precision, keys_at, runs_along_tokens
from scaling.errors import InputError
from scaling.quantization.formats import UNQUANTIZED
from scaling.quantization.spec import QuantSpec

TRAINED = "trained"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PTQConfig(Settings):
    """Post-training quantization of the block weights of every snapshot and of the final model, in every combination of
    the lists. Not part of a run's identity: rows can be added to finished runs."""

    methods: tuple[Literal["rtn", "gptq", "awq"], ...]
    """rtn: round to nearest; gptq, awq: with calibration on the training stream; empty: no quantization."""
    formats: tuple[str, ...]
    """Formats of the weights."""
    granularities: tuple[str, ...]
    """One scale a `channel`, `tensor`, `block<k>` or `block<r>x<k>`; formats with blocks of their own keep those, or
    take blocks of two dimensions that are as wide."""
    scale_rules: tuple[str, ...]
    """How scales are chosen (`scaling.quantization.scale_rules`); auto: the format's own."""
    activations: tuple[str, ...]
    """Formats of the inputs of the block matmuls; trained: what the model was trained with."""
    kv: tuple[str, ...]
    """Formats of keys and values; trained: what the model was trained with."""
    granularity_activations: str | None
    """For `activations` that are not the trained ones; null: that of training."""
    granularity_kv: str | None
    calibration_tokens: Count
    """Tokens of the training stream, in whole windows, from which gptq and awq learn the inputs of each matrix."""
    act_order: bool
    """gptq: walk columns by falling size of their inputs instead of from left to right."""
    damping: Annotated[float, Above(0)]
    """gptq: share of the Hessian's mean diagonal that is added to it, tenfold as often as needed."""
    clip: bool
    """awq: whether weights may be clipped after scaling."""
    grid: Annotated[Count, AtMost(1000)]
    """awq: exponents tried for the scales."""
    sequential: bool = False
    """gptq, awq: calibrate each layer on what leaves the layers before it that are quantized already, instead of on
    what the unquantized model has there; every setting then needs calibration passes of its own."""
    scale_rule_activations: str | None = None
    """How scales of `activations` are chosen that are not the trained ones; null: as in training."""
    scale_rule_kv: str | None = None
    granularity_keys: str | None = None
    """Of the keys alone, for `kv` that are not the trained ones, as in training (`channel` and `channel_block<k>` run
    along the tokens); null: granularity_kv if that is given, else as in training."""
    embedding: tuple[str, ...] = (TRAINED,)
    """Formats of the token embedding where it is looked up, rounded to nearest with one scale a token by the format's
    own rule; trained: what the model was trained with."""
    head: tuple[str, ...] = (TRAINED,)
    """Formats of the matrix that gives the logits, likewise."""
    skip: tuple[str, ...] = ()
    """Names of block matrices, or patterns such as `layers.0.*` and `*.down`, that stay as they were trained, as do
    their inputs."""

    def __post_init__(self):
        super().__post_init__()
        for key, spec in self.weights():
            if "awq" in self.methods and spec.format.hadamard:
                raise InputError(f"{key}={spec.format.name}: not for awq, whose channels a rotation mixes")
        for part in ("activations", "kv"):
            granularity, rule = getattr(self, f"granularity_{part}"), getattr(self, f"scale_rule_{part}")
            for i, name in enumerate(getattr(self, part)):
                keys = (f"{part}[{i}]", f"granularity_{part}", f"scale_rule_{part}")
                fmt = UNQUANTIZED if name == TRAINED else name
                spec = QuantSpec.of(
                    fmt, granularity or "token", rule or "auto", rows=("token",), tiles=False, keys=keys
                )
                if part == "kv":
                    keys_at(spec, self.granularity_keys)
        for part in ("embedding", "head"):
            for _ in self.table(part):
                pass
        for field in ("granularities", "scale_rules", "activations", "kv", "embedding", "head"):
            if self.methods and self.formats and not getattr(self, field):
                raise InputError(f"{field}=[]: name at least one; methods or formats may be empty")

    def weights(self) -> Iterator[tuple[str, QuantSpec]]:
        """Every way in which the weights are to be quantized, with the key of its format. Formats vary fastest.

        Raises:
            InputError: no such format, granularity or rule, or a rule that is not for a format.
        """
        for indexed in product(*map(enumerate, (self.granularities, self.scale_rules, self.formats))):
            (g, granularity), (r, rule), (f, name) = indexed
            keys = (f"formats[{f}]", f"granularities[{g}]", f"scale_rules[{r}]")
            yield keys[0], QuantSpec.of(name, granularity, rule, rows=("channel",), keys=keys)

    def inputs(self, part: str, trained: Precision) -> Iterator[tuple[str, QuantSpec | None]]:
        """The same of `activations` or `kv` of a model; None: as they were in training.

        Raises:
            InputError: the scale rule of training is not for a format.
        """
        granularity, rule = getattr(self, f"granularity_{part}"), getattr(self, f"scale_rule_{part}")
        for i, name in enumerate(getattr(self, part)):
            spec = None if name == TRAINED else trained.spec_in(name, part, granularity, rule, "precision.")
            yield f"{part}[{i}]", spec

    def keys(self, kv: QuantSpec | None, trained: Precision) -> tuple[QuantSpec, bool] | None:
        """How keys of a model are to be quantized whose values are quantized by `kv`, and whether scales run along the
        tokens; None: as they were in training."""
        if kv is None:
            return None
        granularity = self.granularity_keys or (None if self.granularity_kv else trained.granularity_keys)
        return keys_at(kv, granularity), runs_along_tokens(granularity)

    def table(self, part: str) -> Iterator[tuple[str, QuantSpec | None]]:
        """How `embedding` or `head` is to be quantized; None: as it was in training.

        Raises:
            InputError: no such format.
        """
        for i, name in enumerate(getattr(self, part)):
            key = f"{part}[{i}]"
            yield key, None if name == TRAINED else QuantSpec.of(name, keys=(key, "", ""))

    @property
    def calibrates(self) -> bool:
        return bool({"gptq", "awq"} & set(self.methods))
