"""What may be said of quantization after training."""

import dataclasses
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtMost, Count
from scaling.config.precision import Precision
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
    """One scale a `channel`, `tensor` or `block<k>`; formats with blocks of their own keep those."""
    scale_rules: tuple[str, ...]
    """How scales are chosen (`scaling.quantization.scales`); auto: the format's own."""
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

    def __post_init__(self):
        super().__post_init__()
        for key, spec in self.weights():
            if "awq" in self.methods and spec.format.hadamard:
                raise InputError(f"{key}={spec.format.name}: not for awq, whose channels a rotation mixes")
        for part, granularity in (("activations", self.granularity_activations), ("kv", self.granularity_kv)):
            for i, name in enumerate(getattr(self, part)):
                keys = (f"{part}[{i}]", f"granularity_{part}", "")
                QuantSpec.of(
                    UNQUANTIZED if name == TRAINED else name, granularity or "token", rows=("token",), keys=keys
                )
        for field in ("granularities", "scale_rules", "activations", "kv"):
            if self.methods and self.formats and not getattr(self, field):
                raise InputError(f"{field}=[]: name at least one; methods or formats may be empty")

    def weights(self) -> Iterator[tuple[str, QuantSpec]]:
        """Every way in which the weights are to be quantized, with the key of its format. Formats vary fastest.

        Raises:
            InputError: no such format, granularity or rule, or a rule that is not for a format.
        """
        for asked in product(*map(enumerate, (self.granularities, self.scale_rules, self.formats))):
            (g, granularity), (r, rule), (f, name) = asked
            keys = (f"formats[{f}]", f"granularities[{g}]", f"scale_rules[{r}]")
            yield keys[0], QuantSpec.of(name, granularity, rule, rows=("channel",), keys=keys)

    def inputs(self, part: str, trained: Precision) -> Iterator[tuple[str, QuantSpec | None]]:
        """The same of `activations` or `kv` of a model; None: as they were in training.

        Raises:
            InputError: the scale rule of training is not for a format.
        """
        granularity = self.granularity_activations if part == "activations" else self.granularity_kv
        for i, name in enumerate(getattr(self, part)):
            spec = None if name == TRAINED else trained.spec_in(name, part, granularity, "precision.")
            yield f"{part}[{i}]", spec

    @property
    def calibrates(self) -> bool:
        return bool({"gptq", "awq"} & set(self.methods))
