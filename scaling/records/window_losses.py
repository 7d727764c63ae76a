"""The losses on held-out windows as a run folder keeps them: their names, their means and standard errors."""

import numpy as np


def clustered_mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Mean of `values` (n,) and its standard error when values of one cluster are correlated.

    The usual sandwich with the small-sample factor G / (G - 1) over G clusters: windows of one document share its
    author and its subject, and the naive error is about half of this one. Infinite with a single cluster.
    """
    values = values.astype(np.float64)
    mean = float(values.mean())
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    if count < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(values))


def evaluation_name(tokens_seen: int, setting: str = "") -> str:
    """Name of an evaluation's per-window losses in a run folder."""
    return f"{tokens_seen}/{setting}" if setting else str(tokens_seen)
