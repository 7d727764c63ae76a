"""What the methods share: checks of a plain layer, its objective, and the statistics that calibration gives.

Shape suffixes: K settings, L layers of one shape, o output channels, i inputs.
"""

from typing import NamedTuple

import torch

from scaling.errors import InputError
from scaling.quantization.dtypes import FLOAT32_MAX, unit_of


class Statistics(NamedTuple):
    """What calibration says about the inputs of L layers."""

    hessian_Lii: torch.Tensor
    """Mean of x x^T in float64: half the Hessian of the squared error of a layer's outputs in one row of its weight."""
    magnitude_Li: torch.Tensor
    """Mean of abs(x)."""


def statistics(inputs_Lni: torch.Tensor) -> Statistics:
    """Statistics of n input rows for each layer."""
    x = inputs_Lni.to(working_dtype(inputs_Lni.device))
    return Statistics(x.transpose(1, 2) @ x / x.shape[1], x.abs().mean(1))


def working_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def row_errors(q_KLoi: torch.Tensor, w_Loi: torch.Tensor, hessian_Lii: torch.Tensor) -> torch.Tensor:
    """The layer objective of each output channel, (K, L, o): the mean over inputs x of the squared error of q x as w x,
    in the Hessian's dtype. What is returned in the weight's dtype has to be given in it."""
    e = q_KLoi.to(hessian_Lii.dtype) - w_Loi.to(hessian_Lii.dtype)
    return ((e @ hessian_Lii) * e).sum(-1)


MOST_INPUT = 1e100
"""Squares of inputs, times squares of weights, have to stay within float64."""


def checked(weight: torch.Tensor) -> torch.Tensor:
    """`weight`, if it is a finite matrix of floating-point numbers. It may be empty.

    Raises:
        InputError: it is not.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise InputError(f"weight: shape {tuple(weight.shape)}, {weight.dtype}; expected (out, in), floating point")
    if count := int((~torch.isfinite(weight)).sum()):
        raise InputError(
            f"weight: {count} of {weight.numel()} values are not finite; quantize a model that trained well"
        )
    return weight.detach()


def in_float32(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight in units of a power of two, 1 unless values lie beyond float32, and that unit."""
    unit = unit_of(weight[None], FLOAT32_MAX)[0]
    return weight / unit, unit


def checked_inputs(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`inputs` (samples, in) that fit `weight`.

    Raises:
        InputError: another width, no sample, or values that are not finite.
    """
    if inputs.dim() != 2 or inputs.shape[1] != weight.shape[1]:
        raise InputError(f"inputs: shape {tuple(inputs.shape)}; expected (samples, {weight.shape[1]}) for this weight")
    if not len(inputs):
        raise InputError(
            "inputs: no sample; calibration needs at least one, and better as many as the layer has inputs"
        )
    if count := int((~torch.isfinite(inputs)).sum()):
        raise InputError(f"inputs: {count} of {inputs.numel()} values are not finite")
    if inputs.numel() and (largest := inputs.abs().max().item()) > MOST_INPUT:
        raise InputError(
            f"inputs: hold {largest:.3g}; nothing can be chosen by squares of values beyond {MOST_INPUT:g}"
        )
    return inputs.detach()
