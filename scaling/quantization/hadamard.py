"""Rotation by a Hadamard matrix: spreads an outlier over its neighbours before rounding (QuEST, arXiv 2502.05003).

Along the last axis, in blocks of the largest power of two that divides it, at most `LARGEST`. The matrix is scaled to
be orthogonal and is symmetric, so rotating twice gives the values back. Rotating both operands of a matmul along the
axis that is summed over leaves the product as it was; a quantized tensor is rotated back here, so that each operand can
be rotated by itself.
"""

import torch

from scaling.errors import InputError
from scaling.quantization.autocast import autocast

LARGEST = 128


def rotate(x: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
    """x (M, R, C) times the orthogonal Hadamard matrix, block by block along the last axis; its own inverse.

    Computed in x's dtype, whatever autocast says. A `factor` (M, 1, 1), a power of two for each model, multiplies the
    result, without which it might leave the range of the dtype.

    Raises:
        InputError: C is odd.
    """
    size = rotation_size(x.shape[-1])
    key = f"{size} {x.dtype} {x.device}"
    if key not in _matrices:
        _matrices[key] = _matrix(size, x)
    matrix = _matrices[key].expand(len(x), size, size)
    if factor is not None:
        matrix = matrix * factor
    with autocast(x.device, torch.float32):
        # Contiguous: what a matmul rounds may depend on the order of values in memory.
        return torch.bmm(x.reshape(len(x), -1, size).contiguous(), matrix).view(x.shape)


def rotation_size(width: int) -> int:
    """Values that are rotated together in rows of `width`.

    Raises:
        InputError: the width is odd.
    """
    size = min(width & -width, LARGEST)
    if size < 2:
        raise InputError(
            f"hadamard: a width of {width} is odd; it needs an even one to rotate in blocks of 2, 4, 8, ..."
        )
    return size


_matrices: dict[str, torch.Tensor] = {}
"""By size, dtype and device. A plain dictionary, which torch.compile can look into."""


def _matrix(size: int, x: torch.Tensor) -> torch.Tensor:
    """In x's dtype and where x is: float64 is not on every device, and a copy from the CPU would make a GPU wait."""
    h = torch.full((1, 1), 1 / size**0.5, dtype=x.dtype, device=x.device)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h
