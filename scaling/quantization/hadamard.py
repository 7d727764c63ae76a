"""Rotation by a Hadamard matrix: spreads an outlier over its neighbours before rounding (QuEST, arXiv 2502.05003).

Along the last axis, in blocks of the largest power of two that divides it, at most `LARGEST`. The matrix H is scaled to
be orthogonal and is symmetric, so rotating twice gives the values back. Rotating both operands of a matmul along the
axis that is summed over leaves the product as it was; a quantized tensor is rotated back here, so that each operand can
be rotated by itself.

The randomized transform flips signs first, x D H with D = diag(+-1), which no structure of x can meet (QuaRot, arXiv
2404.00456; RHT in NVIDIA's recipe of training in NVFP4, 2509.25149). As in that recipe the signs are drawn once: they
are the same for all tensors, blocks and steps, so that operands of one matmul agree.
"""

import hashlib

import torch

from scaling.errors import InputError
from scaling.quantization.autocast import autocast, bmm

LARGEST = 128
SIGNS = tuple(
    1.0 - 2.0 * (byte >> bit & 1) for byte in hashlib.sha256(b"randomized Hadamard").digest()[:16] for bit in range(8)
)
"""The diagonal of D, for blocks of `LARGEST`; smaller blocks have the first of it."""


def rotate(x: torch.Tensor, factor: torch.Tensor | None = None, *, signs: bool = False) -> torch.Tensor:
    """x (M, R, C) times the orthogonal Hadamard matrix, block by block along the last axis; its own inverse.

    Computed in x's dtype, whatever autocast says. A `factor` (M, 1, 1), a power of two for each model, multiplies the
    result, without which it might leave the range of the dtype. With `signs` the randomized transform, whose inverse is
    `rotate_back`.

    Raises:
        InputError: C is odd.
    """
    return _turned(x, _matrix_for(x, signs), factor)


def rotate_back(x: torch.Tensor, *, signs: bool = False) -> torch.Tensor:
    """The inverse of `rotate`."""
    return _turned(x, _matrix_for(x, signs, back=True), None)


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


def _turned(x: torch.Tensor, matrix: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
    size = len(matrix)
    matrix = matrix.expand(len(x), size, size)
    if factor is not None:
        matrix = matrix * factor
    with autocast(x.device, torch.float32):
        # Contiguous: what a matmul rounds may depend on the order of values in memory.
        return bmm(x.reshape(len(x), -1, size).contiguous(), matrix).view(x.shape)


_matrices: dict[str, torch.Tensor] = {}
"""By size, signs, direction, dtype and device. A plain dictionary, which torch.compile can look into."""


def _matrix_for(x: torch.Tensor, signs: bool, back: bool = False) -> torch.Tensor:
    size, back = rotation_size(x.shape[-1]), back and signs  # H itself is symmetric
    key = f"{size} {signs} {back} {x.dtype} {x.device}"
    if key not in _matrices:
        matrix = _matrix(size, signs, x)
        _matrices[key] = matrix.T.contiguous() if back else matrix
    return _matrices[key]


def _matrix(size: int, signs: bool, x: torch.Tensor) -> torch.Tensor:
    """H, or D H, in x's dtype and where x is: float64 is not on every device, and a copy from the CPU would make a GPU
    wait."""
    h = torch.full((1, 1), 1 / size**0.5, dtype=x.dtype, device=x.device)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    if signs:
        h = torch.cat([row if sign > 0 else -row for row, sign in zip(h.split(1), SIGNS, strict=False)])
    return h
