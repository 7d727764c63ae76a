"""Many small least-squares problems of one shape, solved side by side.

A multi-start fit and a bootstrap are the same thing: hundreds of problems with a handful of parameters each. One at a
time they are dominated by call overhead (scipy's `least_squares` takes about 5 ms for 20 rows), together they are a
few array operations. The method is Levenberg-Marquardt inside a box: parameters that sit on a bound and would leave
the box are frozen for the step, the others take the step that the local quadratic model proposes, clipped to the box.
Two matrices describe a problem locally: its curvature H, and a majorant M >= H that is positive definite whenever the
parameters matter at all. The step solves (H + damping M) step = -gradient, so that a kinked objective such as Huber's
takes Newton steps near its minimum and safe reweighted ones far from it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

CHUNK = 2_000_000  # floats in the largest array of one evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """Value (S,), gradient (S, P), curvature and majorant (S, P, P) of S problems. An infinite value: infeasible."""

    value: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray
    majorant: np.ndarray

    def put(self, rows: np.ndarray, other: "Local") -> None:
        """Overwrite these rows in place."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    def take(self, rows: np.ndarray) -> "Local":
        return Local(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """Points (S, P), their values (S,), and whether each met the tolerance (S,)."""

    points: np.ndarray
    values: np.ndarray
    converged: np.ndarray


def minimise(
    evaluate: Callable[[np.ndarray, np.ndarray], Local],
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    floats_each: int,
    iterations: int = 300,
    tolerance: float = 1e-12,
) -> Solution:
    """Minimise S problems from `starts` (S, P) inside the box lower..upper (P,).

    `evaluate(points, rows)` gives the problems numbered `rows` at `points`; one evaluation of one problem makes arrays
    of about `floats_each` numbers. A problem has converged when its next step promises less than `tolerance` of its
    value. Infeasible starts are returned as they are, with an infinite value.
    """
    size = max(1, CHUNK // max(1, floats_each))
    # A step that leads where powers overflow is refused; that is no fault to report.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        parts = [
            _minimise(
                evaluate,
                starts[i : i + size],
                np.arange(i, min(i + size, len(starts))),
                lower,
                upper,
                iterations,
                tolerance,
            )
            for i in range(0, len(starts), size)
        ]
    return Solution(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Solution)}
    )


def _minimise(evaluate, starts, rows, lower, upper, iterations, tolerance) -> Solution:
    points = np.clip(starts, lower, upper)
    here = evaluate(points, rows)
    damping = np.full(len(points), 1e-2)
    growth = np.full(len(points), 4.0)
    converged = np.zeros(len(points), bool)
    live = np.flatnonzero(np.isfinite(here.value))
    for _ in range(iterations):
        if not len(live):
            break
        local, at = here.take(live), points[live]
        step = _step(local, at, lower, upper, damping[live])
        moved = np.clip(at + step, lower, upper)
        step = moved - at
        promised = -np.einsum("sp,sp->s", local.gradient, step) - 0.5 * np.einsum(
            "sp,spq,sq->s", step, local.curvature, step
        )
        there = evaluate(moved, rows[live])
        with np.errstate(invalid="ignore"):
            gained = local.value - there.value
        still = np.all(moved == at, axis=1)
        better = (gained > 0) & ~still
        taken = live[better]
        points[taken] = moved[better]
        here.put(taken, there.take(better))
        # Damping falls by how well the quadratic model predicted the gain, and grows faster at each refusal in a row.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = np.clip(np.where(promised > 0, gained / promised, 1.0), -1.0, 2.0)
        damping[live] *= np.where(better, np.clip(1 - (2 * ratio - 1) ** 3, 0.1, 2.0), growth[live])
        damping[live] = np.clip(damping[live], 1e-15, 1e20)
        growth[live] = np.where(better, 4.0, np.minimum(growth[live] * 2, 1e3))
        small = np.abs(promised) <= tolerance * np.abs(local.value)
        stuck = still | (damping[live] > 1e14)
        # A small promise counts only when damping does not cause it.
        done = stuck | (small & (damping[live] < 1.0)) | (here.value[live] == 0)
        converged[live[done]] = True
        live = live[~done]
    return Solution(points=points, values=here.value, converged=converged)


def _step(local: Local, at, lower, upper, damping) -> np.ndarray:
    frozen = ((at <= lower) & (local.gradient > 0)) | ((at >= upper) & (local.gradient < 0))
    matrix = local.curvature + damping[:, None, None] * local.majorant
    # Units of the parameters differ by many powers of ten: solve on the scale where the majorant's diagonal is one.
    scale = np.sqrt(np.maximum(np.einsum("spp->sp", local.majorant), 0.0))
    frozen |= scale == 0
    scale = np.where(frozen, 1.0, scale)
    free = ~frozen
    matrix = matrix / (scale[:, :, None] * scale[:, None, :])
    matrix = np.where(free[:, :, None] & free[:, None, :], matrix, 0.0)
    size = matrix.shape[-1]
    # The ridge is below the resolution of a double at one; without it an unidentified pair of parameters is singular.
    matrix = matrix + np.eye(size) * np.where(frozen, 1.0, 1e-14)[:, :, None]
    right = np.where(free, -local.gradient / scale, 0.0)
    try:
        step = np.linalg.solve(matrix, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        step = np.einsum("spq,sq->sp", np.linalg.pinv(matrix, rcond=1e-14, hermitian=True), right)
    return step / scale
