"""The ways in which a trained model is quantized: what a config asks for, one setting a row of the table."""

import dataclasses
from itertools import product
from typing import Any

from scaling.config.precision import Precision
from scaling.config.run import Run
from scaling.quantization.formats import Format, parse
from scaling.quantization.scales import check_rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantize a trained model. What does not apply to its method is None."""

    method: str
    format: Format
    granularity: str
    scale_rule: str
    activations: str | None
    """Format of the inputs of the block matmuls; None: as in training."""
    kv: str | None
    """Format of keys and values; None: as in training."""
    granularity_activations: str | None
    """In effect; None where the part stays as in training."""
    granularity_kv: str | None
    calibration_tokens: int | None
    act_order: bool | None
    damping: float | None
    clip: bool | None
    grid: int | None

    @property
    def key(self) -> str:
        """Names the setting in a run's files; different for any two settings."""
        more = {
            "a": _with(self.activations, self.granularity_activations),
            "kv": _with(self.kv, self.granularity_kv),
            "n": self.calibration_tokens,
            "act_order": self.act_order,
            "damping": self.damping,
            "clip": self.clip,
            "grid": self.grid,
        }
        parts = [self.method, self.format.name, self.granularity, self.scale_rule]
        return "/".join([*parts, *(f"{name}={value}" for name, value in more.items() if value is not None)])

    def precision(self, trained: Precision) -> Precision:
        """What the quantized model computes in, its weights apart, which are plain numbers by then."""
        changes = {"weights": "bf16"}
        if self.activations is not None:
            changes |= {"activations": self.activations, "granularity_activations": self.granularity_activations}
        if self.kv is not None:
            changes |= {"kv": self.kv, "granularity_kv": self.granularity_kv}
        return dataclasses.replace(trained, **changes)

    def columns(self) -> dict[str, Any]:
        """The setting in the words of the table."""
        return {
            "ptq": self.method,
            "P_post": self.format.bits,
            "format_post": self.format.name,
            "granularity_post": self.granularity,
            "scale_rule": self.scale_rule,
            "P_post_a": parse(self.activations).bits if self.activations else None,
            "P_post_kv": parse(self.kv).bits if self.kv else None,
            "format_post_a": self.activations,
            "format_post_kv": self.kv,
            "granularity_post_a": self.granularity_activations,
            "granularity_post_kv": self.granularity_kv,
            "act_order": self.act_order,
            "clip": self.clip,
        }


def _with(name: str | None, granularity: str | None) -> str | None:
    return name if name is None or granularity is None else f"{name}:{granularity}"


def _granularity(name: str | None, asked: str) -> str | None:
    """The granularity in effect; None where a part stays as in training."""
    return None if name is None else parse(name).granularity(asked)


def settings_of(run: Run) -> list[Setting]:
    """Every combination that `run.ptq` asks for, each once: a format with own blocks has only one granularity."""
    config = run.ptq
    found: dict[str, Setting] = {}
    combinations = product(
        config.methods, config.granularities, config.scale_rules, config.activations, config.kv, config.formats
    )
    for method, granularity, rule, activations, kv, name in combinations:
        setting = _setting(run, method, granularity, rule, activations, kv, parse(name))
        found.setdefault(setting.key, setting)
    return list(found.values())


def _setting(run: Run, method: str, granularity: str, rule: str, activations: str, kv: str, fmt: Format) -> Setting:
    activations, kv = (None if name == "trained" else name for name in (activations, kv))
    config, trained = run.ptq, run.precision
    by_gptq, by_awq = method == "gptq", method == "awq"
    return Setting(
        method=method,
        format=fmt,
        granularity=fmt.granularity(granularity),
        scale_rule=check_rule(rule, fmt),
        activations=activations,
        kv=kv,
        granularity_activations=_granularity(
            activations, config.granularity_activations or trained.granularity_activations
        ),
        granularity_kv=_granularity(kv, config.granularity_kv or trained.granularity_kv),
        calibration_tokens=config.calibration_tokens if by_gptq or by_awq else None,
        act_order=config.act_order if by_gptq else None,
        damping=config.damping if by_gptq else None,
        clip=config.clip if by_awq else None,
        grid=config.grid if by_awq else None,
    )
