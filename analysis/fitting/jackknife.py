"""How far a minimum scatters, from the parts of its objective that clusters of rows make.

Each cluster is left out in turn and the minimum moved by one Newton step, which for a straight line is the whole way.
Nothing is fitted again, so that it costs no more than the curvature does, and a parameter that the other clusters do
not determine stays where it is.
"""

import numpy as np


def one_step_jackknife(curvatures: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Covariance (J, J) of a minimum from what k clusters contribute there: curvatures (k, J, J), gradients (k, J).

    Source: the estimator "CR3" of Bell & McCaffrey 2002 in this form, with a pseudo-inverse where the rest of the
    clusters does not determine a parameter.
    """
    k, whole = len(gradients), curvatures.sum(axis=0)
    scale = np.sqrt(np.maximum(np.diag(whole), np.finfo(float).tiny))
    rest = (whole - curvatures) / np.outer(scale, scale)
    steps = np.einsum("kij,kj->ki", np.linalg.pinv(rest, rcond=1e-9, hermitian=True), gradients / scale) / scale
    steps = steps - steps.mean(axis=0)
    return (k - 1) / k * steps.T @ steps
