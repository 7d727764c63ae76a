"""Fake quantization: values are scaled group by group, rounded to a format, and scaled back.

`fake_quantize` does it to any tensor. `Quantizer` does it to one part (the weights, say) of the M models of a stack,
each in its own format, and says what the gradient is. Scales are dynamic: they come from the tensor at hand, in
training and in evaluation alike, and there is no difference between the two.

Shape suffixes: M models of a stack, R rows (output channels of a weight, tokens of an activation), C columns (the axis
that a matmul sums over), G groups of n values that share a scale.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from scaling.errors import InputError
from scaling.quantization.dtypes import FLOAT32_MAX, ROTATED_MAX, saturated, unit_of
from scaling.quantization.hadamard import rotate, rotate_back
from scaling.quantization.rounding import FormatStack, noise_of
from scaling.quantization.scales import Scaler
from scaling.quantization.spec import Estimator, QuantSpec, Rounding

EDGE = 1 + 2.0**-20
"""Values this close beyond the largest count as within it: dividing by the scale rounds."""


def fake_quantize(
    x: torch.Tensor,
    fmt: str,
    granularity: str = "channel",
    *,
    scale_rule: str = "auto",
    rounding: Rounding = "nearest_even",
    estimator: Estimator = "straight_through",
) -> torch.Tensor:
    """x rounded to the values of a format: same shape, dtype and device, computed in float32.

    Args:
        x: any shape and floating dtype; need not be contiguous.
        fmt: a name of `scaling.quantization.formats`; `bf16` returns x itself.
        granularity: values that share a scale: all (`tensor`), a row along the last axis (`channel`, or `token`),
            k neighbours along it (`block<k>`), or those in r rows (`block<r>x<k>`; rows of all axes but the last are
            one below the other). A format with blocks of its own, such as mxfp4, keeps those, or takes ones of two
            dimensions that are as wide, and fills up rows that they do not divide with zeros.
        scale_rule: see `scaling.quantization.scale_rules`; `auto` is the format's own, absmax for most.
        rounding: `nearest_even` or `stochastic` (unbiased; a pure function of x).
        estimator: gradient of the result: that of x unchanged (`straight_through`), or zero where x lies beyond the
            largest value (`clipped`; the same under absmax, which clips nothing).

    A group of zeros stays zero, except in `binary`, which has none. A group that holds a NaN or an infinity becomes
    NaN.

    Raises:
        InputError: no such format, granularity, rule, rounding or estimator; a block that does not divide the last
            axis; x is not floating point.
    """
    if not isinstance(x, torch.Tensor):
        raise InputError(f"fake_quantize: x is a {type(x).__name__}; it has to be a torch.Tensor")
    if not x.is_floating_point():
        raise InputError(f"fake_quantize: x has dtype {x.dtype}; it has to be floating point")
    quantizer = Quantizer([QuantSpec.of(fmt, granularity, scale_rule, rounding, estimator)], x.device)
    if x.numel() == 0:
        return x
    return quantizer(x.reshape(1, -1, x.shape[-1] if x.dim() else 1)).reshape(x.shape)


@torch.library.custom_op("scaling::cut", mutates_args=())
def _cut(x: torch.Tensor, width: int) -> torch.Tensor:
    """The first `width` columns. An operation of its own: merged with those before it, torch 2.13 compiles it wrongly
    for CPUs, and the loop ends where the last whole block does (pytorch issue 195582)."""
    return x[..., :width].clone(memory_format=torch.contiguous_format)


@_cut.register_fake
def _(x: torch.Tensor, width: int) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], width)


class Quantizer:
    """Fake quantization of one part of M models, each in its own format. The rest of the specifications of those that
    are quantized is the same, and is that of `spec`."""

    def __init__(self, specs: Sequence[QuantSpec], device: torch.device | str = "cpu"):
        quantized = [s for s in specs if s.format.quantizes] or specs[:1]
        self.spec = quantized[0]
        assert len({(s.program, s.rounding, s.estimator) for s in quantized}) == 1, quantized
        self.formats = FormatStack([s.format for s in specs], device)
        self.scaler = Scaler(self.spec.scale_rule, self.formats)
        self.block, self.hadamard = self.spec.block, self.spec.format.hadamard
        self.signs = self.spec.format.random_signs
        self.stochastic = self.spec.rounding == "stochastic"

    def __call__(self, x_MRC: torch.Tensor, parts: int = 1) -> torch.Tensor:
        """Quantized x (M, R, C) in x's dtype, with the estimator's gradient. No model's result depends on another.

        `parts` matrices are stored in x one below the other; granularity `tensor` gives each a scale of its own.
        """
        if not self.formats.any_quantized:
            return x_MRC
        return _FakeQuantize.apply(x_MRC, self, parts)

    def values(self, x_MRC: torch.Tensor, parts: int = 1) -> torch.Tensor:
        """The same without a gradient."""
        with torch.no_grad():
            return self.rounded(x_MRC, parts)[0]

    def groups(self, x_MRC: torch.Tensor, parts: int = 1) -> tuple[torch.Tensor, bool]:
        """x as (M, G, n), values that share a scale in a row; or x itself and True, where a whole tensor shares one.

        Where a format's own blocks do not divide the width, rows are filled up with zeros, as kernels do, and where
        blocks of several rows do not divide the height of a part, rows of zeros are added; `ungroup` takes those out
        again.

        Raises:
            InputError: see `QuantSpec.padding` and `QuantSpec.row_padding`.
        """
        if self.spec.granularity == "tensor":
            return (x_MRC, True) if parts == 1 else (x_MRC.reshape(len(x_MRC), parts, -1), False)
        if self.block is None:
            return x_MRC, False
        if missing := self.spec.padding(x_MRC.shape[-1]):
            x_MRC = F.pad(x_MRC, (0, missing))
        m, rows, tall = len(x_MRC), x_MRC.shape[1] // parts, self.spec.block_rows
        if tall == 1:
            return x_MRC.reshape(m, -1, self.block), False
        if missing := self.spec.row_padding(rows):
            x_MRC = F.pad(x_MRC.reshape(m * parts, rows, -1), (0, 0, 0, missing)).view(m, -1, x_MRC.shape[-1])
        tiles = x_MRC.reshape(m, -1, tall, x_MRC.shape[-1] // self.block, self.block).transpose(2, 3)
        return tiles.reshape(m, -1, tall * self.block), False

    def ungroup(self, y_MGn: torch.Tensor, shape: torch.Size, parts: int = 1) -> torch.Tensor:
        """The inverse of `groups`: values (M, R, C) as `shape` has it."""
        if self.block is None:
            return y_MGn.view(shape)
        m, rows, tall = shape[0], shape[1] // parts, self.spec.block_rows
        if tall > 1:
            across = -(-shape[-1] // self.block)
            y_MGn = y_MGn.view(m, -1, across, tall, self.block).transpose(2, 3).reshape(m * parts, -1)
            if rows % tall:
                y_MGn = _cut(y_MGn, rows * across * self.block)
        if shape[-1] % self.block == 0:
            return y_MGn.view(shape)
        return _cut(y_MGn.view(*shape[:-1], -1), shape[-1])

    def rounded(self, x_MRC: torch.Tensor, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Quantized x, and which values the estimator lets a gradient pass to (None: all)."""
        if not self.formats.any_quantized:
            return x_MRC, None
        dtype, unit = x_MRC.dtype, None
        if dtype == torch.float64:
            unit = unit_of(x_MRC, FLOAT32_MAX)
            x = (x_MRC / unit).float()
        else:
            x = x_MRC.float()
        turned = unit_of(x, ROTATED_MAX) if self.hadamard else None
        grouped, whole = self.groups(rotate(x, 1 / turned, signs=self.signs) if self.hadamard else x, parts)
        scale = self.scaler(grouped, whole, parts)
        if self.stochastic:
            # Dividing by the scale may carry the largest value an ulp beyond it, from where it could be rounded up.
            scale = self.scaler.bounded(scale)
        y = grouped / scale.step
        mask = None
        if self.spec.estimator == "clipped" and self.spec.scale_rule != "absmax":
            mask = self.ungroup((y <= scale.high * EDGE) & (y >= scale.low * EDGE), x.shape, parts)
        scale.clamp_(y)
        q = self.formats.stochastic_(y, noise_of(grouped)) if self.stochastic else self.formats.nearest_(y)
        q = self.ungroup(q.mul_(scale.step), x.shape, parts)
        if self.hadamard:
            q = rotate_back(q, signs=self.signs).mul_(turned)
        if unit is not None:
            q = q.to(dtype).mul_(unit)
        if self.hadamard or unit is not None or self.scaler.may_exceed(dtype):
            q = saturated(q, dtype)
        q = self.formats.with_passing(q, x_MRC)
        if mask is not None and self.formats.passing:
            mask = self.formats.with_passing(mask, torch.ones_like(mask))
        # Without a `to` that changes nothing: see `scaling.model.transformer._Norm`.
        return (q if q.dtype == dtype else q.to(dtype)), mask

    def backward(self, grad: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The gradient of x from that of the quantized x. The mask of `rounded` lives where the rounding was done."""
        if mask is None:
            return grad
        if not self.hadamard:
            return grad * mask
        turned = rotate_back(rotate(grad, signs=self.signs) * mask, signs=self.signs)
        return self.formats.with_passing(turned, grad)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_MRC, quantizer, parts):
        q, mask = quantizer.rounded(x_MRC, parts)
        ctx.quantizer = quantizer
        ctx.save_for_backward(mask)
        return q

    @staticmethod
    def backward(ctx, grad):
        return ctx.quantizer.backward(grad, *ctx.saved_tensors), None, None
