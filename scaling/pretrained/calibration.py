"""What enters the matrices of a loaded model on calibration windows, which are training text that nobody evaluates on.

Matrices that take the same tensor (query, key and value; gate and up) are one group: they share its statistics, and
AWQ scales their inputs together, as it has to where the scales are folded into the norm in front.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.pretrained.inference import Said, ignored, model_logits
from scaling.pretrained.linears import Layout, Linear
from scaling.pretrained.scratch import Scratch
from scaling.ptq.calibration import Calibration
from scaling.ptq.layers import Statistics, working_dtype


@dataclasses.dataclass(frozen=True)
class Group:
    """Matrices with the same inputs."""

    linears: tuple[Linear, ...]

    @property
    def width(self) -> int:
        """Inputs."""
        return self.linears[0].weight.shape[1]


class _Enough(Exception):
    """All that was to be seen of a forward pass."""


@torch.no_grad()
def groups_of(layout: Layout) -> list[Group]:
    """The groups, in the order in which a forward pass meets them; matrices that it does not meet (of experts that no
    token was sent to) stand alone behind them."""
    seen: list[tuple[torch.Tensor, list[Linear]]] = []

    def see(linear: Linear, x: torch.Tensor) -> None:
        if seen and seen[-1][0] is x and seen[-1][1][0].weight.shape[1] == linear.weight.shape[1]:
            seen[-1][1].append(linear)
        else:
            seen.append((x, [linear]))

    with _watched(layout.linears, see):
        model_logits(layout.model, torch.arange(8, device=layout.device)[None], None)
    met: dict[int, Group] = {}
    for _, linears in seen:  # a module that is called several times belongs where it was first
        if not any(id(linear.module) in met for linear in linears):
            met |= dict.fromkeys((id(linear.module) for linear in linears), Group(tuple(linears)))
    rest = [Group((linear,)) for linear in layout.linears if id(linear.module) not in met]
    return [*dict.fromkeys(met.values()), *rest]


class Statistician:
    """Takes statistics of the inputs of groups, from one forward pass over the calibration windows at a time."""

    def __init__(self, layout: Layout, run: MeasuredRun, windows_nT: np.ndarray, start: int | None, scratch: Scratch):
        """`windows_nT` (n, T + 1), as `scaling.ptq.calibration.windows_of` gives them."""
        self.layout, self.start, self.scratch = layout, start, scratch
        self.at_once = run.evaluated_at_once(run.precision)
        self.inputs_nT = torch.from_numpy(windows_nT[:, :-1].copy())
        sha = hashlib.sha256(windows_nT.tobytes()).hexdigest()
        self.calibration = Calibration(inputs={}, tokens=self.inputs_nT.numel(), sha=sha)

    @torch.no_grad()
    def of(self, groups: Sequence[Group], said: Said = ignored) -> dict[Group, Statistics]:
        """Statistics of each group in the model as it is now."""
        dtype = working_dtype(self.layout.device)
        sums = {group: self._zeros(group, dtype) for group in groups}
        first = {id(group.linears[0].module): group for group in groups}
        counts = dict.fromkeys(groups, 0)

        def see(linear: Linear, x: torch.Tensor) -> None:
            group = first[id(linear.module)]
            rows = x.reshape(-1, x.shape[-1]).float()
            # As for models trained here: products in float32 over one batch, sums over batches in float64.
            hessian, magnitude = sums[group]
            hessian += (rows.T @ rows).to(hessian)
            magnitude += rows.abs().sum(0).to(magnitude)
            counts[group] += len(rows)

        with _watched([group.linears[0] for group in groups], see), _ending(self._last(groups)):
            for begin in range(0, len(self.inputs_nT), self.at_once):
                tokens = self.inputs_nT[begin : begin + self.at_once].to(self.layout.device)
                with contextlib.suppress(_Enough):
                    model_logits(self.layout.model, tokens, self.start)
                said(tokens.numel())
        statistics = {}
        for group, (hessian, magnitude) in sums.items():
            count = max(1, counts[group])
            statistics[group] = Statistics(hessian.div_(count)[None], magnitude.div_(count)[None])
        return statistics

    def _zeros(self, group: Group, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.layout.device
        if device.type == "cpu":
            hessian = self.scratch.zeros((group.width, group.width), dtype)
        else:
            hessian = torch.zeros(group.width, group.width, dtype=dtype, device=device)
        return hessian, torch.zeros(group.width, dtype=dtype, device=device)

    def _last(self, groups: Sequence[Group]) -> nn.Module | None:
        """The block behind which nothing is to be seen of these groups."""
        modules = {id(linear.module) for group in groups for linear in group.linears}
        last = None
        for block in self.layout.blocks:
            if modules & set(map(id, block.modules())):
                last = block
        return last


@contextlib.contextmanager
def _watched(linears: Sequence[Linear], see) -> Iterator[None]:
    """Call `see(linear, x)` with what enters each of the matrices."""
    with contextlib.ExitStack() as stack:
        for linear in linears:
            hook = linear.module.register_forward_pre_hook(lambda _, inputs, linear=linear: see(linear, inputs[0]))
            stack.callback(hook.remove)
        yield


@contextlib.contextmanager
def _ending(block: nn.Module | None) -> Iterator[None]:
    """End forward passes behind a block, by `_Enough`."""

    def stop(*_) -> None:
        raise _Enough

    hook = None if block is None else block.register_forward_hook(stop)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
