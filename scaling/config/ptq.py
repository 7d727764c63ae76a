"""What may be said of quantization after training."""

import dataclasses
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtMost, Count
from scaling.errors import InputError, named
from scaling.quantization.fake_quantize import check_granularity
from scaling.quantization.formats import parse
from scaling.quantization.scales import check_rule


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

    def __post_init__(self):
        super().__post_init__()
        formats = [named(f"formats[{i}]", parse, name) for i, name in enumerate(self.formats)]
        for i, name in enumerate(self.granularities):
            named(f"granularities[{i}]", check_granularity, name, "channel")
        for i, rule in enumerate(self.scale_rules):
            for fmt in formats:
                named(f"scale_rules[{i}]", check_rule, rule, fmt)
        for field in ("activations", "kv"):
            for i, name in enumerate(getattr(self, field)):
                if name != "trained":
                    named(f"{field}[{i}]", parse, name)
            if getattr(self, f"granularity_{field}") is not None:
                named(f"granularity_{field}", check_granularity, getattr(self, f"granularity_{field}"), "token")
        if "awq" in self.methods:
            for i, fmt in enumerate(formats):
                if fmt.hadamard:
                    raise InputError(f"formats[{i}]={fmt.name}: not for awq, whose channels a rotation mixes")
        for field in ("granularities", "scale_rules", "activations", "kv"):
            if self.methods and self.formats and not getattr(self, field):
                raise InputError(f"{field}=[]: name at least one; methods or formats may be empty")

    @property
    def calibrates(self) -> bool:
        return bool({"gptq", "awq"} & set(self.methods))
