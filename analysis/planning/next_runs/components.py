"""Variance components of ln gap about the law, by restricted maximum likelihood (REML).

Rows scatter about the law by effects that they share: of the run (its widths), of the cell (seeds of one N and D), of
the size, of the size times ln D, and of D (what all sizes at one D have in common); what is left is a row's own. Each
is normal with mean zero, so that the covariance of the rows is a sum of known matrices, each times a variance. A
jackknife over sizes sees the third and the fourth; no jackknife over sizes sees the fifth.

Patterson & Thompson 1971 (Biometrika 58, 545): the likelihood of what is left after the law is fitted.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from analysis.errors import InputError
from analysis.planning.next_runs.rows import Rows

NAMES = ("row", "run", "cell", "size", "size_slope", "common")
STARTS = (0.5, 0.15)  # of the residuals' sd: both are tried
NEAR = 0.02  # of N: as good as a size of the table
FLOOR = 1e-3  # least sd of a row, so that noise-free tables stay finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """Standard deviations of ln gap. `size_slope` is per unit of ln D, from `middle` (a ln D) on."""

    row: float
    run: float
    cell: float
    size: float
    size_slope: float
    common: float
    middle: float

    @property
    def variances(self) -> dict[str, float]:
        return {name: getattr(self, name) ** 2 for name in NAMES}

    @property
    def text(self) -> str:
        words = {"size_slope": "size x ln D", "common": "common D"}
        return ", ".join(f"{getattr(self, name):.3f} {words.get(name, name)}" for name in NAMES[1:] + NAMES[:1])


def covariances(rows: Rows, middle: float) -> dict[str, np.ndarray]:
    """The matrix (n, n) that each component's variance is multiplied by."""

    def same(*keys: np.ndarray) -> np.ndarray:
        return np.all([key[:, None] == key[None] for key in keys], axis=0).astype(float)

    size, slope = same(rows.log_N), rows.log_D - middle
    return {
        "row": np.eye(len(rows)),
        "run": same(rows.run),
        "cell": same(rows.log_N, rows.log_D),
        "size": size,
        "size_slope": size * np.outer(slope, slope),
        "common": same(rows.log_D),
    }


def fitted(rows: Rows, X: np.ndarray | None = None, middle: float | None = None) -> Components:
    """The components of `rows` about the columns X (n, p), by default the law's.

    A component that the rows do not separate from another (a cell from its run, where none has two seeds) goes where
    the likelihood puts it, or to zero.

    Raises:
        InputError: no more rows than columns.
    """
    X = rows.X if X is None else X
    X = X[:, independent(X)]
    middle = rows.middle[1] if middle is None else middle
    if len(rows) <= X.shape[1]:
        raise InputError(f"{len(rows)} rows: expected more than the {X.shape[1]} constants of the law")
    matrices = list(covariances(rows, middle).values())
    runs_alone = len(np.unique(rows.run)) == len(rows)  # then a run's effect is its row's
    active = [k for k, name in enumerate(NAMES) if not (name == "run" and runs_alone)]
    residual = rows.log_gap - X @ np.linalg.lstsq(X, rows.log_gap, rcond=None)[0]
    scale = max(float(np.sqrt(np.mean(residual**2))), FLOOR)

    def objective(sds: np.ndarray) -> tuple[float, np.ndarray]:
        V = sum(s**2 * matrices[k] for s, k in zip(sds, active, strict=True)) + FLOOR**2 * np.eye(len(rows))
        inverse = np.linalg.inv(V)
        VX = inverse @ X
        information = X.T @ VX
        P = inverse - VX @ np.linalg.solve(information, VX.T)
        Py = P @ rows.log_gap
        value = 0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(information)[1] + rows.log_gap @ Py)
        slopes = [s * (np.sum(P * matrices[k]) - Py @ matrices[k] @ Py) for s, k in zip(sds, active, strict=True)]
        return float(value), np.array(slopes)

    bounds = [(0, None)] * len(active)
    optima = [
        minimize(objective, np.full(len(active), start * scale), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in STARTS
    ]
    best = min(optima, key=lambda one: one.fun)
    sds = dict.fromkeys(NAMES, 0.0) | {NAMES[k]: float(s) for k, s in zip(active, best.x, strict=True)}
    sds["row"] = max(sds["row"], FLOOR)
    return Components(**sds, middle=middle)


def estimate(rows: Rows, components: Components, X: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Generalized least squares: coefficients (p,) of the columns X (default the law's) and their covariance (p, p)."""
    X = rows.X if X is None else X
    variances, V = components.variances, covariances(rows, components.middle)
    inverse = np.linalg.inv(sum(variances[name] * V[name] for name in NAMES))
    covariance = np.linalg.pinv(X.T @ inverse @ X, hermitian=True)
    return covariance @ (X.T @ inverse @ rows.log_gap), covariance


def independent(X: np.ndarray) -> list[int]:
    """The columns of X (n, p) that are no combination of those before them: with one width, P is the constant."""
    kept: list[int] = []
    for j in range(X.shape[1]):
        part = X[:, [*kept, j]] / np.maximum(np.linalg.norm(X[:, [*kept, j]], axis=0), 1e-300)
        if np.linalg.matrix_rank(part, tol=1e-8) == len(kept) + 1:
            kept.append(j)
    return kept


def scatter_of_sizes(rows: Rows, components: Components) -> Callable[[float, float], float]:
    """The standard deviation of ln gap at (N, D) by which a size is off the law: zero at the sizes of `rows`, where the
    table itself says by how much."""

    def sd(N: float, D: float) -> float:
        if np.any(np.abs(rows.sizes - np.log(N)) < NEAR):
            return 0.0
        return float(np.hypot(components.size, components.size_slope * (np.log(D) - components.middle)))

    return sd
