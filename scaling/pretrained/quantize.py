"""Quantized matrices put in the place of a model's own, one after the other: the model is there once, its original
matrices lie in files."""

from collections.abc import Callable, Mapping

import torch

from scaling.errors import InputError, named
from scaling.pretrained.calibration import Group, Statistician, groups_of
from scaling.pretrained.inference import Said, ignored
from scaling.pretrained.linears import Layout
from scaling.pretrained.scratch import Scratch
from scaling.ptq.apply import Notes, merge_notes, quantize_layers
from scaling.ptq.layers import Statistics, checked
from scaling.ptq.settings import Setting
from scaling.quantization.skip import is_skipped


def check_fit(layout: Layout, setting: Setting) -> None:
    """Raise InputError where a setting cannot be had of a model: blocks or rotations that do not fit its matrices, or
    no blocks one after the other."""
    for i, pattern in enumerate(setting.skip):
        if not any(is_skipped(linear.name, [pattern]) for linear in layout.linears):
            first, last = layout.linears[0].name, layout.linears[-1].name
            raise InputError(f"ptq.skip[{i}]={pattern}: matches none of {first} to {last}")
    specs = {"formats": setting.weights, "activations": setting.activations and setting.activations.spec}
    for linear in layout.linears:
        rows, width = linear.weight.shape
        for key, spec in specs.items():
            if spec is not None and spec.format.quantizes and not is_skipped(linear.name, setting.skip):
                named(f"ptq.{key}", spec.padding, width)
                named(f"ptq.{key}", spec.row_padding, rows)
    for part, table in (("embedding", layout.embedding), ("head", layout.head)):
        if (spec := getattr(setting, part)) is not None and spec.format.quantizes:
            named(f"ptq.{part}", spec.padding, table.weight.shape[1])
    if setting.sequential and not layout.blocks:
        raise InputError("ptq.sequential=true: no list of blocks was found in this model; use false")


class InPlace:
    """A model whose matrices can be those of any setting, or its own."""

    def __init__(self, layout: Layout, scratch: Scratch, statistician: Callable[[], Statistician]):
        """`statistician` is called where a setting calibrates.

        Raises:
            InputError: a matrix is not finite.
        """
        self.layout, self.scratch, self._statistician = layout, scratch, statistician
        self.groups = groups_of(layout)
        self.originals: dict[str, torch.Tensor] = {}
        for linear in layout.linears:
            try:
                checked(linear.weight)
            except InputError as fault:
                raise InputError(f"{linear.name}: {fault}") from None
            self.originals[linear.name] = scratch.copy(linear.weight)
        self.statistics: dict[Group, Statistics] = {}

    def restore(self) -> None:
        """The model's own matrices."""
        for linear in self.layout.linears:
            linear.put(self.originals[linear.name])

    @torch.no_grad()
    def apply(self, setting: Setting, said: Said = ignored) -> Notes:
        """Put the matrices of a setting in place; says tokens of calibration passes as they are done."""
        if setting.sequential:
            return self._apply_sequentially(setting, said)
        if setting.calibration_tokens and not self.statistics:
            self.restore()
            self.statistics = self._statistician().of(self.groups, said)
        notes: Notes = {}
        for group in self.groups:
            merge_notes(notes, self._quantize(group, setting, self.statistics))
        return notes

    def _quantize(self, group: Group, setting: Setting, statistics: Mapping[Group, Statistics]) -> Notes:
        """Put the quantized matrices of a group in place."""
        together = setting.method == "awq"  # one exponent for all that have the same inputs
        notes: Notes = {}
        left = [linear for linear in group.linears if not is_skipped(linear.name, setting.skip)]
        for linear in set(group.linears) - set(left):
            linear.put(self.originals[linear.name])
        for linears in [left] if together and left else [[linear] for linear in left]:
            rows = [len(self.originals[linear.name]) for linear in linears]
            parts = len(rows) if len(set(rows)) == 1 else 1
            w_oi = torch.cat([self.originals[linear.name] for linear in linears]).to(self.layout.device).float()
            values, more = quantize_layers(w_oi[None], parts, [setting], lambda: statistics[group])
            for linear, value in zip(linears, values[0, 0].split(rows), strict=True):
                linear.put(value)
            merge_notes(notes, more[0])
        return notes

    def _apply_sequentially(self, setting: Setting, said: Said) -> Notes:
        """Block after block, each calibrated behind those that are quantized already."""
        blocks = self.layout.blocks
        self.restore()
        statistician = self._statistician()
        notes: Notes = {}
        for i in range(len(blocks)):
            inside = {id(linear.module) for linear in self.layout.in_block(i)}
            groups = [group for group in self.groups if id(group.linears[0].module) in inside]
            with self.scratch.part():
                statistics = statistician.of(groups, said)
                for group in groups:
                    merge_notes(notes, self._quantize(group, setting, statistics))
                del statistics
        return notes
