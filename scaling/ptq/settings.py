"""The ways in which a trained model is quantized: what a config asks for, one setting a row of the table."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Any

from scaling.config.precision import KEYS, PARTS, Precision
from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.run import Run
from scaling.errors import InputError
from scaling.quantization.formats import UNQUANTIZED
from scaling.quantization.skip import BETWEEN, is_skipped, one_way
from scaling.quantization.spec import QuantSpec
from scaling.records.run_folder import RunFolder

TABLES = ("embedding", "head")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """How the inputs of the block matmuls, or keys and values, are quantized after training."""

    spec: QuantSpec
    keys: QuantSpec | None
    """Of keys and values: how keys are quantized."""
    keys_by_channel: bool
    rule: str | None
    """The scale rule; None where it is that of training."""

    @property
    def own_granularity_keys(self) -> str | None:
        """That of the keys; None where it is that of the values."""
        if self.keys is None or (self.keys == self.spec and not self.keys_by_channel):
            return None
        across = self.keys_by_channel and self.keys.block is not None
        return f"channel_{self.keys.granularity}" if across else self.keys.granularity

    @property
    def word(self) -> str:
        """Different for any two."""
        names = (self.spec.format.name, self.spec.granularity, self.rule, self.own_granularity_keys)
        return ":".join(filter(None, (*names[:3], names[3] and f"keys={names[3]}")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantize a trained model. What does not apply to its method is None."""

    method: str
    weights: QuantSpec
    activations: Inputs | None
    """Of the inputs of the block matmuls; None: as in training."""
    kv: Inputs | None
    """Of keys and values; None: as in training."""
    embedding: QuantSpec | None
    """Where it is looked up; None: as in training."""
    head: QuantSpec | None
    skip: tuple[str, ...]
    """Block matrices that stay as they were trained, in the one way to say it."""
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
            "a": self.activations and self.activations.word,
            "kv": self.kv and self.kv.word,
            "emb": self.embedding and self.embedding.format.name,
            "head": self.head and self.head.format.name,
            "skip": BETWEEN.join(self.skip) or None,
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
        changed = {"weights": QuantSpec.of(UNQUANTIZED)}
        if self.activations is not None:
            changed["activations"] = self.activations.spec
        if self.kv is not None:
            changed |= {"kv": self.kv.spec, KEYS: self.kv.keys}
        changed |= {part: spec for part in TABLES if (spec := getattr(self, part)) is not None}
        fields = {field.name: getattr(trained, field.name) for field in dataclasses.fields(Precision)}
        by_channel = trained.keys_by_channel if self.kv is None else self.kv.keys_by_channel
        return _AfterTraining(**fields, trained=trained, changed=changed, left_out=self.skip, by_channel=by_channel)

    def columns(self) -> dict[str, Any]:
        """The setting in the words of the table."""
        a, kv, tables = self.activations, self.kv, {"emb": self.embedding, "head": self.head}
        return {
            "ptq": self.method,
            "P_post": self.weights.format.bits,
            "format_post": self.weights.format.name,
            "granularity_post": self.weights.granularity,
            "scale_rule": self.weights.scale_rule,
            "P_post_a": a and a.spec.format.bits,
            "P_post_kv": kv and kv.spec.format.bits,
            "format_post_a": a and a.spec.format.name,
            "format_post_kv": kv and kv.spec.format.name,
            "granularity_post_a": a and a.spec.granularity,
            "granularity_post_kv": kv and kv.spec.granularity,
            "granularity_post_keys": kv and kv.own_granularity_keys,
            "scale_rule_post_a": a and a.rule,
            "scale_rule_post_kv": kv and kv.rule,
            **{f"P_post_{part}": spec and spec.format.bits for part, spec in tables.items()},
            **{f"format_post_{part}": spec and spec.format.name for part, spec in tables.items()},
            "skip_post": BETWEEN.join(self.skip) or None,
            "act_order": self.act_order,
            "clip": self.clip,
            "sequential": self.sequential,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AfterTraining(Precision):
    """That of training, some parts of which are quantized otherwise."""

    trained: Precision
    changed: Mapping[str, QuantSpec]
    left_out: tuple[str, ...]
    """Block matrices whose matmuls are as they were in training."""
    by_channel: bool

    @cached_property
    def _specs(self) -> dict[str, QuantSpec]:
        return {part: self.changed.get(part, self.trained.spec(part)) for part in (*PARTS, KEYS)}

    @property
    def keys_by_channel(self) -> bool:
        return self.by_channel

    def program(self) -> dict[str, Any]:
        # Tables are rounded to nearest, whatever training did.
        return super().program() | {part: (*self.spec(part).program, self.spec(part).rounding) for part in TABLES}

    def at(self, name: str) -> Precision:
        trained = self.trained.at(name)
        if is_skipped(name, self.left_out):
            return trained
        return self if trained is self.trained else dataclasses.replace(self, trained=trained)


def settings_of(run: Run | MeasuredRun) -> list[Setting]:
    """Every combination that `run.ptq` asks for, each once: a format with own blocks has only one granularity."""
    config = run.ptq
    weights = [spec for _, spec in config.weights()]
    # Those of one granularity and scale rule go together: formats vary fastest.
    rows = [weights[start : start + len(config.formats)] for start in range(0, len(weights), len(config.formats) or 1)]
    inputs = [_inputs(run, part) for part in ("activations", "kv")]
    tables = [
        [None if spec is None or _is_trained(spec, part, run.precision) else spec for _, spec in config.table(part)]
        for part in TABLES
    ]
    # The names in models of others are known only when they are loaded: patterns stay as they were given.
    names = run.model.block_names if isinstance(run, Run) else None
    skip = tuple(dict.fromkeys(config.skip)) if names is None else one_way(config.skip, names, "ptq.skip")
    settings: dict[str, Setting] = {}
    for method, row, activations, kv, embedding, head in product(config.methods, rows, *inputs, *tables):
        for spec in row:
            parts = {"activations": activations, "kv": kv, "embedding": embedding, "head": head, "skip": skip}
            setting = _setting(run, method, spec, parts)
            settings.setdefault(setting.key, setting)
    return list(settings.values())


def lacking(folder: RunFolder) -> list[Setting]:
    """Settings of a run of which its folder has no row, of a model that others trained: these have one evaluation.

    Raises:
        InputError: the rows are damaged.
    """
    there = {row["setting"] for row in folder.ptq()}
    return [setting for setting in settings_of(folder.run) if setting.key not in there]


def _inputs(run: Run | MeasuredRun, part: str) -> list[Inputs | None]:
    """How a config asks for activations, or keys and values, to be quantized; None: as in training."""
    config, trained = run.ptq, run.precision
    ways: list[Inputs | None] = []
    for _, spec in config.inputs(part, trained):
        if spec is None:
            ways.append(None)
            continue
        keys, by_channel = config.keys(spec, trained) if part == "kv" else (None, False)
        same_keys = keys is None or (keys == trained.spec(KEYS) and by_channel == trained.keys_by_channel)
        if _is_trained(spec, part, trained, same_keys):
            ways.append(None)
            continue
        rule = None if not spec.format.quantizes or _is_trained_rule(spec, part, trained) else spec.scale_rule
        ways.append(Inputs(spec=spec, keys=keys, keys_by_channel=by_channel, rule=rule))
    return ways


def _is_trained(spec: QuantSpec, part: str, trained: Precision, same_keys: bool = True) -> bool:
    """Whether a part is to be what it was in training, said in other words."""
    if not spec.format.quantizes:
        return not trained.format(part).quantizes
    return spec == trained.spec(part) and same_keys


def _is_trained_rule(spec: QuantSpec, part: str, trained: Precision) -> bool:
    """Whether the model's own settings would have chosen scales by the same rule."""
    try:
        return trained.spec_in(spec.format.name, part).scale_rule == spec.scale_rule
    except InputError:
        return False


def _setting(run: Run | MeasuredRun, method: str, weights: QuantSpec, parts: dict[str, Any]) -> Setting:
    if not weights.format.quantizes:
        # However weights are not quantized, it is one setting.
        method, weights = "rtn", QuantSpec.of(weights.format)
    config, by_gptq, by_awq = run.ptq, method == "gptq", method == "awq"
    return Setting(
        method=method,
        weights=weights,
        **parts,
        calibration_tokens=config.calibration_tokens if by_gptq or by_awq else None,
        act_order=config.act_order if by_gptq else None,
        damping=config.damping if by_gptq else None,
        clip=config.clip if by_awq else None,
        grid=config.grid if by_awq else None,
        sequential=config.sequential if by_gptq or by_awq else None,
    )
