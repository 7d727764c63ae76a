"""The function that `estimate` minimises for a law and a table, with its analytic derivatives.

Two residuals are known. Losses are compared on the log scale under Huber's function: sum over rows of
w * huber(ln pred - ln loss; delta), a sum and not a mean, delta in log units; or as they are. Gaps are compared as they
are, in units of the standard deviation that the error model gives each row, so that gaps near zero or below it stay in.

Inside, a point is (transformed nonlinear parameters, coefficients at the reference point): column k is divided by its
value at the table's geometric mean, c'_k = c_k phi_k(theta, reference). A coefficient that has bounds of its own stays
as it is, since they are bounds of c_k. S points, n rows, K columns, P parameters.
"""

import dataclasses
import itertools
from typing import Literal

import numpy as np
from scipy.optimize import lsq_linear, nnls

from analysis.fitting.solver import CHUNK, Local
from analysis.laws.law import Law

Scale = Literal["log", "linear"]


def huber(residual: np.ndarray, delta: float) -> np.ndarray:
    """r^2 / 2 up to |r| = delta, delta (|r| - delta / 2) beyond."""
    size = np.abs(residual)
    if not np.isfinite(delta):
        return 0.5 * residual**2
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def _middle(values: np.ndarray) -> np.ndarray:
    """Geometric mean (1,): where coefficients are stated. A variable that has zeros is zero there."""
    with np.errstate(divide="ignore"):
        return np.exp(np.mean(np.log(values), keepdims=True))


def _finite(log: np.ndarray) -> np.ndarray:
    """A column that vanishes, or has no value, at the reference point is taken as it is."""
    return np.where(np.isfinite(log), log, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A law on the rows of one table. `x` {column: (n,)}, `y` (n,) in nats, `sd` (n,) or (S, n) in nats, or None where
    the scatter is not known beforehand."""

    law: Law
    x: dict[str, np.ndarray]
    y: np.ndarray
    scale: Scale
    delta: float = np.inf
    sd: np.ndarray | None = None
    weights: np.ndarray | None = None
    """(S, n): how often each row counts in each of S problems (bootstrap draws); None: once."""
    row_weights: np.ndarray | None = None
    """(n,): how much each row counts in all of them, one on average; None: all alike."""

    @property
    def floats_each(self) -> int:
        return len(self.y) * len(self.law.ordered) * 2

    def describe(self) -> str:
        """The objective in words."""
        weighted = "" if self.row_weights is None else "weighted "
        if self.sd is not None:
            return f"{weighted}sum of squares of (prediction - gap) / sd / 2, sd at the predicted gap"
        if self.scale == "linear":
            return f"{weighted}sum of squares / 2 of prediction - loss"
        return f"{weighted}sum of {'huber' if np.isfinite(self.delta) else 'squares / 2'} of ln(prediction / loss)"

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = zip(*(p.box() for p in self.law.ordered), strict=True)
        return np.array(lower), np.array(upper)

    @property
    def unscaled(self) -> frozenset[str]:
        """Coefficients that are not stated at the reference point."""
        return frozenset(p.symbol for p in self.law.linear if p.lower != 0 or np.isfinite(p.upper))

    # -- parameters ------------------------------------------------------------------------------------------------

    def inside(self, values: dict[str, float]) -> np.ndarray:
        """Natural values by symbol to a point (P,)."""
        theta = {p.symbol: np.array([[values[p.symbol]]], float) for p in self.law.nonlinear}
        reference = self._reference(theta)
        moved = [float(p.forward(values[p.symbol])) for p in self.law.nonlinear]
        return np.array(moved + [values[p.symbol] * np.exp(reference[p.symbol][0, 0]) for p in self.law.linear])

    def outside(self, points: np.ndarray) -> np.ndarray:
        """Points (S, P) to natural values (S, P) in the law's order."""
        theta = self._theta(points)
        reference = self._reference(theta)
        q = len(self.law.nonlinear)
        parts = [theta[p.symbol] for p in self.law.nonlinear]
        parts += [points[:, [q + k]] * np.exp(-reference[p.symbol]) for k, p in enumerate(self.law.linear)]
        return np.hstack(parts)

    def _theta(self, points: np.ndarray) -> dict[str, np.ndarray]:
        return {p.symbol: p.backward(points[:, [j]]) for j, p in enumerate(self.law.nonlinear)}

    def _reference(self, theta) -> dict[str, np.ndarray]:
        middle = {k: _middle(v) for k, v in self.x.items()}
        logs = self.law.columns(theta, middle).logs
        return {k: np.zeros_like(log) if k in self.unscaled else _finite(log) for k, log in logs.items()}

    # -- prediction and derivatives ---------------------------------------------------------------------------------

    def predict(self, points: np.ndarray) -> np.ndarray:
        """(S, n) in nats; infinite where the law has no value."""
        return self._model(points, slopes=False)[0]

    def _columns(self, theta) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
        """phi_k / phi_k(reference) (S, n), and the slopes of its logarithm in theta; phi_k itself if it is unscaled."""
        unscaled = self.unscaled
        # The reference point rides along as one more row.
        middle = {k: np.append(v, _middle(v)) for k, v in self.x.items()}
        columns = self.law.columns(theta, middle)
        with np.errstate(over="ignore", invalid="ignore"):
            values = {
                k: np.exp(log[:, :-1] if k in unscaled else log[:, :-1] - _finite(log[:, -1:]))
                for k, log in columns.logs.items()
            }
        # An infeasible row stays infinite even under a zero coefficient.
        values = {k: np.where(np.isfinite(v), v, np.inf) for k, v in values.items()}
        with np.errstate(invalid="ignore"):
            log_slopes = {
                (k, symbol): slope[:, :-1]
                - (0.0 if k in unscaled else np.where(np.isfinite(columns.logs[k][:, -1:]), slope[:, -1:], 0.0))
                for (k, symbol), slope in columns.slopes.items()
            }
        return values, log_slopes

    def _model(self, points: np.ndarray, *, slopes: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Prediction (S, n) and, if asked for, its Jacobian (S, n, P)."""
        law, theta, q = self.law, self._theta(points), len(self.law.nonlinear)
        columns, log_slopes = self._columns(theta)
        shape = len(points), len(self.y)
        total, jacobian = np.zeros(shape), np.zeros((*shape, len(law.ordered))) if slopes else None
        with np.errstate(over="ignore", invalid="ignore"):
            for k, p in enumerate(law.linear):
                column = columns[p.symbol]
                term = np.where(np.isfinite(column), points[:, [q + k]] * column, np.inf)
                total = total + term
                if jacobian is None:
                    continue
                jacobian[:, :, q + k] = column
                for j, r in enumerate(law.nonlinear):
                    if (p.symbol, r.symbol) in log_slopes:
                        jacobian[:, :, j] += term * log_slopes[p.symbol, r.symbol] * r.slope(theta[r.symbol])
        return total, jacobian

    def residuals(self, points: np.ndarray, sd: np.ndarray | None = None) -> np.ndarray:
        """(S, n), in log units or in standard deviations."""
        return self._compare(self.predict(points), self.sd if sd is None else sd)

    def _compare(self, prediction, sd) -> np.ndarray:
        if self.scale == "log":
            with np.errstate(divide="ignore"):
                return np.log(prediction) - np.log(self.y)
        return prediction - self.y if sd is None else (prediction - self.y) / sd

    def evaluate(self, points: np.ndarray, rows: np.ndarray) -> Local:
        """The objective of the problems numbered `rows` at `points`, for `solver.minimise`."""
        sd = self.sd if self.sd is None or self.sd.ndim == 1 else self.sd[rows]
        weights = 1.0 if self.weights is None else self.weights[rows]
        weights = weights if self.row_weights is None else weights * self.row_weights
        prediction, jacobian = self._model(points)
        residual = self._compare(prediction, sd)
        feasible = np.all(np.isfinite(residual), axis=1)
        residual = np.where(feasible[:, None], residual, 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.scale == "log":
                jacobian = jacobian / prediction[..., None]
            elif sd is not None:
                jacobian = jacobian / np.broadcast_to(sd, prediction.shape)[..., None]
        jacobian[~feasible] = 0.0
        value = np.where(feasible, np.sum(weights * huber(residual, self.delta), axis=1), np.inf)
        size = np.abs(residual)
        inner = size <= self.delta
        with np.errstate(divide="ignore", invalid="ignore"):
            reweight = np.where(inner, 1.0, self.delta / size) * weights
        transposed = jacobian.transpose(0, 2, 1)
        return Local(
            value=value,
            gradient=(transposed @ (reweight * residual)[..., None])[..., 0],
            curvature=transposed @ (jacobian * (inner * weights)[..., None]),
            majorant=transposed @ (jacobian * reweight[..., None]),
        )

    # -- starts -----------------------------------------------------------------------------------------------------

    def projected_starts(self, count: int) -> np.ndarray:
        """Points (<= count, P): the law's grid of nonlinear parameters, each with its best coefficients.

        The coefficients are projected out by weighted least squares (residuals relative to y for log objectives) within
        their bounds; grid points with an infeasible row are dropped and the `count` with the smallest sum of squares
        are used.
        """
        law = self.law
        grid = np.array(list(itertools.product(*(p.starts for p in law.nonlinear))), float)
        moved = np.column_stack(
            [np.zeros((len(grid), 0)), *(p.forward(grid[:, j]) for j, p in enumerate(law.nonlinear))]
        )
        unit = self.y if self.scale == "log" else np.broadcast_to(1.0 if self.sd is None else self.sd, self.y.shape)
        if self.row_weights is not None:
            unit = unit / np.sqrt(np.maximum(self.row_weights, np.finfo(float).tiny))
        ranked = []
        for chunk in np.array_split(moved, 1 + len(moved) * len(self.y) // CHUNK):
            columns, _ = self._columns(self._theta(chunk))
            stacked = np.stack([columns[p.symbol] for p in law.linear], axis=2) / unit[:, None]
            for point, matrix in zip(chunk, stacked, strict=True):
                if np.all(np.isfinite(matrix)):
                    coefficients, norm = self._projected(matrix, self.y / unit)
                    ranked.append((norm, np.append(point, coefficients)))
        ranked.sort(key=lambda pair: pair[0])
        return np.array([point for _, point in ranked[:count]]).reshape(-1, len(law.ordered))

    def _projected(self, matrix: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
        """The coefficients (K,) within their bounds that bring `matrix` (n, K) nearest to `target` (n,); how near."""
        if not self.unscaled:
            return nnls(matrix, target)
        bounds = np.array([(p.lower, p.upper) for p in self.law.linear]).T
        made, free = bounds[0].copy(), bounds[0] < bounds[1]
        rest = target - matrix[:, ~free] @ made[~free]
        if free.any():
            length = np.maximum(np.linalg.norm(matrix[:, free], axis=0), np.finfo(float).tiny)
            with np.errstate(over="ignore"):
                scaled = lsq_linear(matrix[:, free] / length, rest, bounds[:, free] * length, method="bvls")
            made[free] = np.clip(scaled.x / length, *bounds[:, free])
        return made, float(np.linalg.norm(matrix @ made - target))
