"""The jackknife that does not fit again, against one that does."""

import numpy as np

from analysis.fitting.jackknife import one_step_jackknife


def test_jackknife_is_leaving_clusters_out():
    """Of a straight line, for which one Newton step is the whole way."""
    draw = np.random.default_rng(0)
    x = np.column_stack([np.ones(20), draw.standard_normal(20)])
    y, label = draw.standard_normal(20), np.repeat(np.arange(5), 4)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = x @ best - y
    left = np.array([np.linalg.lstsq(x[label != c], y[label != c], rcond=None)[0] for c in range(5)])
    parts = [(x[label == c].T @ x[label == c], x[label == c].T @ residual[label == c]) for c in range(5)]
    found = one_step_jackknife(*(np.array(part) for part in zip(*parts, strict=True)))
    np.testing.assert_allclose(found, 4 * np.cov(left, rowvar=False, ddof=0), rtol=1e-10)


def test_what_the_other_clusters_do_not_tell_stays():
    """A second parameter that one cluster alone determines: without it there is nothing to move to."""
    draw = np.random.default_rng(1)
    x = np.column_stack([np.ones(12), np.repeat([0.0, 0.0, 1.0], 4)])
    y, label = draw.standard_normal(12), np.repeat(np.arange(3), 4)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = x @ best - y
    parts = [(x[label == c].T @ x[label == c], x[label == c].T @ residual[label == c]) for c in range(3)]
    found = one_step_jackknife(*(np.array(part) for part in zip(*parts, strict=True)))
    means = [y[label == c].mean() for c in range(3)]
    first = np.array([means[1], means[0], best[0]])  # the intercept without each cluster
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0, 0], 2 * np.var(first), rtol=1e-10)
