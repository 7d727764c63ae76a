import numpy as np
import pytest

from scaling.quantization.normal_error import over_matrices, sigma2
from scaling.quantization.spec import QuantSpec


def brute(n, largest):
    x = np.random.default_rng(0).standard_normal((200_000 * 16 // n, n))
    step = np.abs(x).max(1, keepdims=True) / largest
    return np.square(np.round(x / step) * step - x).mean()


@pytest.mark.parametrize("n", [16, 64, 256])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_against_another_sample(bits, n):
    assert sigma2(QuantSpec.of(f"int{bits}"), n) == pytest.approx(brute(n, 2 ** (bits - 1) - 1), rel=0.02)


def test_known_optimal_quantizers():
    """Max 1960: least mean squared error of uniform quantizers with 3 levels of a normal value is 0.1902."""
    assert sigma2(QuantSpec.of("int2", scale_rule="gaussian"), 4096) == pytest.approx(0.1902, rel=0.02)
    assert sigma2(QuantSpec.of("binary"), 4096) == pytest.approx(1 - 2 / np.pi, rel=0.02)
    assert sigma2(QuantSpec.of("bf16"), 64) == 0


def test_larger_groups_err_more_and_blocks_do_not_care():
    errors = [sigma2(QuantSpec.of("int4"), n) for n in (8, 32, 128, 512)]
    assert errors == sorted(errors)
    assert sigma2(QuantSpec.of("mxfp4"), 64) == pytest.approx(sigma2(QuantSpec.of("mxfp4"), 256), rel=0.02)


def test_average_over_a_model():
    matrices = [(96, 32, 3), (32, 80, 1)]
    error, group = over_matrices(matrices, QuantSpec.of("int4", "channel"))
    weights = np.array([96 * 32, 32 * 80])
    assert group == pytest.approx(np.average([32, 80], weights=weights))
    assert error == pytest.approx(
        np.average([sigma2(QuantSpec.of("int4"), 32), sigma2(QuantSpec.of("int4"), 80)], weights=weights)
    )
    assert over_matrices(matrices, QuantSpec.of("int4", "block16")) == (sigma2(QuantSpec.of("int4"), 16), 16)
    assert over_matrices(matrices, QuantSpec.of("int4", "tensor"))[1] == pytest.approx(
        np.average([32 * 32, 32 * 80], weights=weights)
    )
