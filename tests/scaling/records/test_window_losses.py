import numpy as np
import pytest

from scaling.records.window_losses import clustered_mean


def test_one_window_a_document_is_the_ordinary_error():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    mean, error = clustered_mean(values, np.arange(4))
    assert mean == 3.5
    assert error == pytest.approx(values.std(ddof=1) / 2)


def test_equal_windows_of_a_document_count_once():
    values, documents = np.array([1.0, 2.0, 4.0, 7.0]), np.arange(4)
    doubled = clustered_mean(np.repeat(values, 2), np.repeat(documents, 2))
    assert doubled == pytest.approx(clustered_mean(values, documents))


def test_covers_the_spread_of_correlated_samples():
    """Standard errors against the actual spread of the mean over many draws with a strong document effect."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(60), 2)
    draws = rng.normal(size=(2000, 60)).repeat(2, axis=1) + 0.3 * rng.normal(size=(2000, 120))
    errors = [clustered_mean(draw, documents)[1] for draw in draws]
    assert np.mean(errors) == pytest.approx(draws.mean(axis=1).std(), rel=0.05)


def test_one_document_has_no_error_estimate():
    assert clustered_mean(np.array([1.0, 2.0]), np.array([3, 3]))[1] == np.inf
