"""Round to nearest: every weight to the closest value of the format, with the absmax scale of its group."""

import torch

from scaling.formats import parse
from scaling.quantize import FormatStack, round_to_grid


def rtn(weight: torch.Tensor, fmt: str, granularity: str = "channel") -> torch.Tensor:
    """Dequantized `weight` (out, in), same dtype, in the named format.

    `granularity` is `tensor`, `channel` (one scale an output channel) or `block<k>`.

    Raises:
        InputError: unknown format, or a block that does not divide `in`.
    """
    return round_to_grid(weight[None], FormatStack([parse(fmt)], weight.device), granularity)[0]
