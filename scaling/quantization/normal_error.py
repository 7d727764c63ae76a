"""How much a format errs on normally distributed values: what a law can know of a format before anything is trained.

sigma2 is the mean squared error over the mean square of standard normal values that are quantized in groups of n, as
weights are at the start of training (the GMSE of Panferov et al., arXiv 2506.01863). It grows with n under absmax: the
largest of more values is larger.
"""

from collections.abc import Iterable
from functools import cache

import torch

from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec

VALUES = 2**18
LARGEST = 2**14
"""Groups beyond this many values are taken as having so many: their largest grows only with sqrt(2 ln n)."""


def over_matrices(matrices: Iterable[tuple[int, int, int]], spec: QuantSpec) -> tuple[float, float]:
    """sigma2 of a model, rounded to nearest, and the values that share a scale in it, both averages over its weights.

    Args:
        matrices: (rows, columns, matrices stored in it) of each.
    """
    errors = groups = weights = 0.0
    in_rows = QuantSpec.of(spec.format, "channel", spec.scale_rule)
    for rows, columns, parts in matrices:
        group = spec.block or (rows * columns // parts if spec.granularity == "tensor" else columns)
        if spec.block_rows > 1:
            group *= spec.block_rows
            error = sigma2(spec, columns)
        else:
            # Blocks that a format brings along lie in rows as wide as the matrix, whose last block may be short.
            error = sigma2(in_rows, columns if spec.format.block else group)
        errors, groups, weights = (
            total + rows * columns * value for total, value in ((errors, error), (groups, group), (weights, 1))
        )
    return errors / weights, groups / weights


@cache
def sigma2(spec: QuantSpec, width: int) -> float:
    """Relative squared error of rows of `width` values; 0 where nothing is quantized.

    From 2^18 pseudo-random values, always the same; good to about 1%.
    """
    n = min(width, LARGEST)
    # Rows of an even number of blocks, so that formats with blocks of their own and rotations find what they need.
    generator = torch.Generator().manual_seed(n)
    rows = max(4, VALUES // n)
    x = torch.randn(-(-rows // spec.block_rows) * spec.block_rows, n, generator=generator)
    error = Quantizer([spec]).values(x[None])[0] - x
    return float(error.double().square().mean() / x.double().square().mean())
