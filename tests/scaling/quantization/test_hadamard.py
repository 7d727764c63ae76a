import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, hadamard

from scaling.errors import InputError
from scaling.quantization.fake_quantize import fake_quantize
from scaling.quantization.hadamard import LARGEST, rotate, rotation_size

# width, values rotated together: the largest power of two that divides it, up to 128.
SIZES = [
    (2, 2),
    (4, 4),
    (6, 2),
    (12, 4),
    (16, 16),
    (48, 16),
    (80, 16),
    (96, 32),
    (128, 128),
    (192, 64),
    (256, 128),
    (384, 128),
]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width, size", SIZES)
def test_rotation_is_a_block_diagonal_hadamard_matrix(width, size):
    """Sylvester's matrix in blocks, by scipy: orthogonal, symmetric, its own inverse."""
    assert rotation_size(width) == size <= LARGEST == 128
    matrix = rotate(torch.eye(width, dtype=torch.float64)[None])[0]
    expected = block_diag(*[hadamard(size) / size**0.5] * (width // size))
    np.testing.assert_allclose(matrix.numpy(), expected, rtol=1e-15)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64))
    assert torch.equal(matrix, matrix.T)


@pytest.mark.parametrize("width", [2, 24, 160])
def test_rotating_twice_changes_nothing(width):
    x = randn(3, 5, width)
    torch.testing.assert_close(rotate(rotate(x)), x, rtol=0, atol=2e-6)
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))


def test_a_product_of_two_rotated_operands_is_what_it_was():
    x, w = randn(2, 7, 96).double(), randn(2, 11, 96, seed=1).double()
    product = torch.bmm(x, w.transpose(1, 2))
    torch.testing.assert_close(torch.bmm(rotate(x), rotate(w).transpose(1, 2)), product)


@pytest.mark.parametrize("width", [1, 3, 129])
def test_an_odd_width_is_one_line(width):
    with pytest.raises(InputError, match=f"hadamard: a width of {width} is odd") as caught:
        fake_quantize(torch.ones(2, width), "int4-hadamard")
    assert "\n" not in str(caught.value)


def test_any_strides_and_dtype():
    x = randn(2, 32, 12)
    assert torch.equal(rotate(x.transpose(1, 2)), rotate(x.transpose(1, 2).contiguous()))
    for dtype in (torch.bfloat16, torch.float64):
        assert rotate(x.to(dtype)).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rotate(x), rotate(x.clone())) and rotate(x).dtype == torch.float32
        inside = rotate(x)
    assert torch.equal(inside, rotate(x))


def test_a_model_is_rotated_as_if_alone():
    x = randn(5, 9, 64)
    assert all(torch.equal(rotate(x)[m], rotate(x[m : m + 1])[0]) for m in range(5))


@pytest.mark.parametrize("name", ["int4", "e2m1", "mxfp4", "nvfp4"])
def test_quantizing_rotated_values_and_rotating_back(name):
    x = randn(6, 64, seed=2)
    expected = rotate(fake_quantize(rotate(x[None])[0], name)[None])[0]
    assert torch.equal(fake_quantize(x, f"{name}-hadamard"), expected)


@pytest.mark.parametrize("name", ["int3", "int4", "e2m1", "nf4"])
def test_rotation_spreads_an_outlier(name):
    x = randn(32, 128, seed=3)
    plain = (fake_quantize(x, name) - x).square().mean()
    x[:, 17] = 30
    with_outlier, rotated = ((fake_quantize(x, f) - x).square().mean() for f in (name, f"{name}-hadamard"))
    assert rotated < with_outlier / 3 and rotated < plain * 20
