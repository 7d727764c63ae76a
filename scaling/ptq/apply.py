"""Quantizes the block weights of one trained model to many settings in one pass over its layers."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch

from scaling.config.model import is_block_weight, parts_of
from scaling.model.transformer import Weights
from scaling.ptq.awq import awq_layers
from scaling.ptq.calibration import Calibration
from scaling.ptq.gptq import gptq_layers
from scaling.ptq.layers import Statistics, checked
from scaling.ptq.rtn import rtn_layers
from scaling.ptq.settings import Setting
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.skip import is_skipped

VALUES = 2**24
"""Weights of all settings together that are worked on at once."""

Notes = dict[str, Any]
"""What had to be done for one setting: `damping`, the largest share of GPTQ's; `fallbacks`, matrices that were plainly
rounded instead."""


@torch.no_grad()
def quantized(
    weights: Weights, settings: Sequence[Setting], calibration: Callable[[], Calibration]
) -> tuple[Weights, list[Notes]]:
    """A stack of len(settings) models, each the one model of `weights` (1, out, in) quantized by one setting.

    The float32 master weights are quantized, also those of a model trained in low precision: rounding them to the
    training format gives exactly the weights that the training forward pass used, so the gap there is zero.

    Raises:
        InputError: a weight is not finite.
    """
    stack = {name: w.detach().expand(len(settings), -1, -1).clone() for name, w in weights.items()}
    notes: list[Notes] = [{} for _ in settings]
    for members in _batches(settings):
        chosen = [settings[i] for i in members]
        for names in _shapes(weights, len(chosen), chosen[0].skip):
            for tensors, note, i in zip(*_quantize(weights, names, chosen, calibration), members, strict=True):
                for name, w in zip(names, tensors, strict=True):
                    stack[name][i] = w
                merge_notes(notes[i], note)
    return stack, notes


def _batches(settings: Sequence[Setting]) -> list[list[int]]:
    """Settings that one pass serves: all formats of one family under the same method and options."""

    def program(i: int) -> str:
        s = settings[i]
        options = (s.calibration_tokens, s.act_order, s.damping, s.clip, s.grid, s.skip)
        return str((s.method, s.weights.program, options))

    return [list(group) for _, group in groupby(sorted(range(len(settings)), key=program), key=program)]


def _shapes(weights: Weights, count: int, skip: Sequence[str]) -> list[list[str]]:
    """Names of the block matrices of one kind, without those to `skip`, in batches that `count` copies of keep within
    `VALUES`."""
    kinds: dict[str, list[str]] = {}
    for name in weights:
        if is_block_weight(name) and not is_skipped(name, skip):
            checked(weights[name][0])
            kinds.setdefault(name.rpartition(".")[2], []).append(name)
    groups = []
    for names in kinds.values():
        size = max(1, VALUES // (count * weights[names[0]].numel()))
        groups += [names[start : start + size] for start in range(0, len(names), size)]
    return groups


def _quantize(
    weights: Weights, names: list[str], settings: Sequence[Setting], calibration: Callable[[], Calibration]
) -> tuple[torch.Tensor, list[Notes]]:
    """Matrices of one kind in all the settings of one program: (K, L, out, in), and notes on each setting."""
    w_Loi = torch.cat([weights[name].detach() for name in names])

    def inputs() -> Statistics:
        return _stacked([calibration().inputs[name] for name in names])

    return quantize_layers(w_Loi, parts_of(names[0]), settings, inputs)


def quantize_layers(
    w_Loi: torch.Tensor, parts: int, settings: Sequence[Setting], inputs: Callable[[], Statistics]
) -> tuple[torch.Tensor, list[Notes]]:
    """L layers of one shape, each of `parts` matrices, in all the settings of one program: (K, L, out, in), and notes
    on each setting. `inputs` is called where the method calibrates."""
    first = settings[0]
    quantizer = Quantizer([s.weights for s in settings], w_Loi.device)
    if first.method == "rtn":
        return rtn_layers(w_Loi, quantizer, parts), [{} for _ in settings]
    if first.method == "awq":
        values = awq_layers(w_Loi, inputs(), quantizer, parts, clip=first.clip, grid=first.grid)
        return values, [{} for _ in settings]
    hessian = inputs().hessian_Lii
    outcome = gptq_layers(w_Loi, hessian, quantizer, parts, act_order=first.act_order, damping=first.damping)
    finite = [d for d in outcome.damping if d != float("inf")]
    fallbacks = outcome.rounded.sum(1).tolist()
    return outcome.weights, [{"damping": max(finite, default=None), "fallbacks": count} for count in fallbacks]


def _stacked(statistics: list[Statistics]) -> Statistics:
    return Statistics(*(torch.cat(values) for values in zip(*statistics, strict=True)))


def merge_notes(notes: Notes, more: Notes) -> None:
    """Take into `notes` of a setting what had to be done for more of its matrices."""
    if "fallbacks" in more:
        known = [d for d in (notes.get("damping"), more["damping"]) if d is not None]
        notes["damping"] = max(known, default=None)
        notes["fallbacks"] = notes.get("fallbacks", 0) + more["fallbacks"]
