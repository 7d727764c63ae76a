"""Round to nearest: every weight to the closest value of the format, with the scale of its group."""

import torch

from scaling.ptq.layers import checked
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec


def rtn(weight: torch.Tensor, fmt: str, granularity: str = "channel", *, scale_rule: str = "auto") -> torch.Tensor:
    """Dequantized `weight` (out, in), same dtype, in the named format.

    `granularity` is `tensor`, `channel` (one scale an output channel), `block<k>` or `block<r>x<k>` (k inputs of r
    output channels); `scale_rule` is one of `scaling.quantization.scale_rules`.

    Raises:
        InputError: unknown format, granularity or rule; a block that does not divide `in`; a weight that is not finite.
    """
    quantizer = Quantizer([QuantSpec.of(fmt, granularity, scale_rule)], weight.device)
    w = checked(weight)
    return quantizer.values(w[None])[0] if w.numel() else w


def rtn_layers(w_Loi: torch.Tensor, quantizer: Quantizer, parts: int) -> torch.Tensor:
    """Each of K formats for each of L layers: (L, out, in) -> (K, L, out, in). A layer holds `parts` matrices."""
    layers, rows, columns = w_Loi.shape
    count = len(quantizer.formats.formats)
    stacked = w_Loi.reshape(1, layers * rows, columns).expand(count, -1, -1)
    return quantizer.values(stacked, layers * parts).view(count, layers, rows, columns)
