"""The ways in which a trained model is quantized: what a config asks for, one setting a row of the table."""

import dataclasses
from itertools import product
from typing import Any

from scaling.config.precision import Precision
from scaling.config.run import Run
from scaling.quantization.spec import QuantSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantize a trained model. What does not apply to its method is None."""

    method: str
    weights: QuantSpec
    activations: QuantSpec | None
    """Of the inputs of the block matmuls; None: as in training."""
    kv: QuantSpec | None
    """Of keys and values; None: as in training."""
    calibration_tokens: int | None
    act_order: bool | None
    damping: float | None
    clip: bool | None
    grid: int | None
    sequential: bool | None = None
    """Whether calibration sees what leaves the layers that were quantized before."""

    @property
    def key(self) -> str:
        """Names the setting in a run's files; different for any two settings."""
        more = {
            "a": self.activations and f"{self.activations.format.name}:{self.activations.granularity}",
            "kv": self.kv and f"{self.kv.format.name}:{self.kv.granularity}",
            "n": self.calibration_tokens,
            "act_order": self.act_order,
            "damping": self.damping,
            "clip": self.clip,
            "grid": self.grid,
            "sequential": self.sequential or None,  # keys of earlier versions say nothing of it
        }
        parts = [self.method, self.weights.format.name, self.weights.granularity, self.weights.scale_rule]
        return "/".join([*parts, *(f"{name}={value}" for name, value in more.items() if value is not None)])

    def precision(self, trained: Precision) -> Precision:
        """What the quantized model computes in, its weights apart, which are plain numbers by then."""
        changes = {"weights": "bf16"}
        if self.activations is not None:
            changes |= {"activations": self.activations.format.name}
            changes |= {"granularity_activations": self.activations.granularity}
        if self.kv is not None:
            changes |= {"kv": self.kv.format.name, "granularity_kv": self.kv.granularity}
        return dataclasses.replace(trained, **changes)

    def columns(self) -> dict[str, Any]:
        """The setting in the words of the table."""
        a, kv = self.activations, self.kv
        return {
            "ptq": self.method,
            "P_post": self.weights.format.bits,
            "format_post": self.weights.format.name,
            "granularity_post": self.weights.granularity,
            "scale_rule": self.weights.scale_rule,
            "P_post_a": a and a.format.bits,
            "P_post_kv": kv and kv.format.bits,
            "format_post_a": a and a.format.name,
            "format_post_kv": kv and kv.format.name,
            "granularity_post_a": a and a.granularity,
            "granularity_post_kv": kv and kv.granularity,
            "act_order": self.act_order,
            "clip": self.clip,
            "sequential": self.sequential,
        }


def settings_of(run: Run) -> list[Setting]:
    """Every combination that `run.ptq` asks for, each once: a format with own blocks has only one granularity."""
    config = run.ptq
    weights = [spec for _, spec in config.weights()]
    # Those of one granularity and scale rule go together: formats vary fastest.
    rows = [weights[start : start + len(config.formats)] for start in range(0, len(weights), len(config.formats) or 1)]
    inputs = ([spec for _, spec in config.inputs(part, run.precision)] for part in ("activations", "kv"))
    settings: dict[str, Setting] = {}
    for method, row, activations, kv in product(config.methods, rows, *inputs):
        for spec in row:
            setting = _setting(run, method, spec, activations, kv)
            settings.setdefault(setting.key, setting)
    return list(settings.values())


def _setting(run: Run, method: str, weights: QuantSpec, activations: QuantSpec | None, kv: QuantSpec | None) -> Setting:
    config, by_gptq, by_awq = run.ptq, method == "gptq", method == "awq"
    return Setting(
        method=method,
        weights=weights,
        activations=activations,
        kv=kv,
        calibration_tokens=config.calibration_tokens if by_gptq or by_awq else None,
        act_order=config.act_order if by_gptq else None,
        damping=config.damping if by_gptq else None,
        clip=config.clip if by_awq else None,
        grid=config.grid if by_awq else None,
        sequential=config.sequential if by_gptq or by_awq else None,
    )
