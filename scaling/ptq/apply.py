"""Quantizes the block weights of one trained model to many settings in one pass over its layers."""

import dataclasses

import torch

from scaling.config import PTQConfig
from scaling.formats import Format, parse
from scaling.model import Weights, is_block_weight, parts_of, quantize_weight
from scaling.quantize import FormatStack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantize a trained model."""

    method: str
    format: Format
    granularity: str
    scale_rule: str = "absmax"

    @property
    def key(self) -> str:
        """Names the setting in a run's files; unique within one evaluated model."""
        return f"{self.method}/{self.format.name}/{self.granularity}/{self.scale_rule}"


def settings_of(config: PTQConfig) -> list[Setting]:
    """Every format with every granularity."""
    if config.method == "none":
        return []
    return [
        Setting(method=config.method, format=parse(name), granularity=granularity)
        for granularity in config.granularities
        for name in config.formats
    ]


@torch.no_grad()
def quantized(weights: Weights, settings: list[Setting]) -> Weights:
    """A stack of len(settings) models, each the one model of `weights` (1, out, in) quantized by one setting.

    The float32 master weights are quantized, also those of a model trained in low precision: quantizing them to the
    training format gives exactly the weights that the training forward pass used, so the gap there is zero.
    """
    count = len(settings)
    stack = {name: w.detach().expand(count, -1, -1) for name, w in weights.items()}
    by_granularity: dict[str, list[int]] = {}
    for i, setting in enumerate(settings):
        by_granularity.setdefault(setting.granularity, []).append(i)
    for name, w in weights.items():
        if not is_block_weight(name):
            continue
        stack[name] = stack[name].clone()
        for granularity, members in by_granularity.items():
            formats = FormatStack([settings[i].format for i in members], w.device)
            copies = w.detach().expand(len(members), -1, -1)
            stack[name][members] = quantize_weight(copies, parts_of(name), formats, granularity)
    return stack
