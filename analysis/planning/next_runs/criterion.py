"""How wide an interval will be: a target's half-width under the table's components, and its bias by what the law lacks.

Law and effects are solved together (Henderson's mixed-model equations): with a run's mean over widths as its
observation, the information is A' diag(w) A + prior, where A has a row a cell (the law's columns, then ones for its
size, its size's slope, its D) and w is the weight of the cell's runs. Thousands of candidates are a batch of small
systems. The half-width is Student's t, with one degree of freedom less than there are sizes, times the standard error;
the bias is that of a least-squares fit by terms of a stated size that the law does not have.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy import stats

from analysis.planning.next_runs.components import FLOOR, Components, estimate, fitted, independent
from analysis.planning.next_runs.rows import Rows, columns

LEVEL = 0.95
LAW = 4  # columns: constant, ln D, -ln N, -P
FOREVER = 1e9  # runs that stand for any number of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lack:
    """What the law has no term for. `curvature`: of (ln D)^2 from the middle of the rows; `bits_by_size`: of
    (P - middle)(ln N - middle)."""

    curvature: float = 0.0
    bits_by_size: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked: a combination of the law's constants and, for a prediction, of the effects at one place.

    `law` (5,) are weights of c, gamma_D, gamma_N, 1 / gamma_post and the constant of `fifth`, a term of ln N, ln D and
    P that the fit has besides, if any; `place`, (ln N, ln D), is where the effects are part of it; `lack` (2,) are
    weights of what the law lacks in what is asked. `factor` stands for a constant that is a function of these.
    `curved`: that term is the curvature, which the fit then does not lack.
    """

    name: str
    law: tuple[float, ...]
    lack: tuple[float, float] = (0.0, 0.0)
    place: tuple[float, float] | None = None
    factor: float = 1.0
    fifth: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    curved: bool = False
    unit: str = ""

    def columns(self, rows: Rows) -> np.ndarray:
        """Those of the fit, (n, 4), or (n, 5) with the fifth term."""
        more = [] if self.fifth is None else [self.fifth(rows.log_N, rows.log_D, rows.P)]
        return np.column_stack([rows.X, *more])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Width:
    """`se` and `half` (the half-width of the interval) of the target; `bias` at most, in the same unit."""

    se: float
    half: float
    bias: float

    @property
    def criterion(self) -> float:
        return self.half + self.bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Cells that a design may have: `log_N`, `log_D` (m,), each run of which is measured at `widths` (w,)."""

    log_N: np.ndarray
    log_D: np.ndarray
    widths: np.ndarray
    components: Components
    middle: tuple[float, float, float]
    lack: Lack = dataclasses.field(default_factory=Lack)
    level: float = LEVEL

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.unique(self.log_N)

    @cached_property
    def tokens(self) -> np.ndarray:
        return np.unique(self.log_D)

    def _place(self, log_N: np.ndarray, log_D: np.ndarray) -> np.ndarray:
        """Effects (n, 2 sizes + tokens) of places (n,); those at a new size or D have none."""
        size = (np.abs(log_N[:, None] - self.sizes) < 1e-9).astype(float)
        slope = size * (log_D - self.middle_D)[:, None]
        return np.hstack([size, slope, (np.abs(log_D[:, None] - self.tokens) < 1e-9).astype(float)])

    @property
    def middle_D(self) -> float:
        return self.components.middle

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """The columns of every target: of the law (m, 4), and of the effects."""
        law = columns(self.log_N, self.log_D, np.full(len(self.log_N), self.widths.mean()))
        return law, self._place(self.log_N, self.log_D)

    def _columns(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """A (m, 5 + effects), means over the widths of a run; and how -P and the fifth term differ from their means at
        each width (m, w, 2)."""
        law, effects = self._known
        each = np.zeros((len(law), len(self.widths)))
        if target.fifth is not None:
            each = target.fifth(self.log_N[:, None], self.log_D[:, None], self.widths[None, :]) + each
        mean = each.mean(1, keepdims=True)
        of_P = np.broadcast_to(self.widths.mean() - self.widths, each.shape)
        return np.hstack([law, mean, effects]), np.stack([of_P, each - mean], axis=2)

    @cached_property
    def lacked(self) -> np.ndarray:
        """(m, 2): the mean over widths of what the law lacks in each cell."""
        by_size = (self.widths.mean() - self.middle[2]) * (self.log_N - self.middle[0])
        return np.stack([self.lack.curvature * (self.log_D - self.middle[1]) ** 2, self.lack.bits_by_size * by_size], 1)

    def weights(self, counts: np.ndarray) -> np.ndarray:
        """Weights of cells with `counts` runs: 1 / variance of their mean, (..., m)."""
        v = self.components.variances
        with np.errstate(divide="ignore"):
            variance = (v["row"] / len(self.widths) + v["run"]) / counts + v["cell"]
        return np.where(counts > 0, 1 / np.maximum(variance, FLOOR**4), 0.0)

    def widths_of(self, counts: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """se, half-width and largest bias, each (k,), of designs with `counts` (k, m) runs in the cells; infinite where
        the cells do not determine the target."""
        counts = np.atleast_2d(counts).astype(float)
        v, w = self.components.variances, self.weights(counts)
        effects = np.repeat([v["size"], v["size_slope"], v["common"]], [len(self.sizes)] * 2 + [len(self.tokens)])
        free = [True, True, True, len(self.widths) > 1, target.fifth is not None]
        keep = np.concatenate([free, effects > 0])
        A, within = self._columns(target)
        A, within = A[:, keep], within[:, :, free[3:]]
        outer = (A[:, :, None] * A[:, None, :]).reshape(len(A), -1)
        information = (w @ outer).reshape(len(w), A.shape[1], A.shape[1])
        prior = np.zeros(keep.sum())
        prior[sum(free) :] = 1 / effects[effects > 0]
        information += np.diag(prior)
        # Rows of one run determine the differences between widths, whatever the run's own effects.
        own = slice(LAW - 1, LAW - 1 + sum(free[3:]))
        information[:, own, own] += np.einsum("km,mwi,mwj->kij", counts, within, within) / v["row"]
        asked = np.concatenate([np.array(target.law), np.zeros(len(effects))])
        extra = 0.0
        if target.place is not None:
            place = self._place(*(np.array([value]) for value in target.place))[0]
            asked[len(target.law) :] = place
            known = place[: len(self.sizes)].any(), place[2 * len(self.sizes) :].any()
            slope = target.place[1] - self.middle_D
            extra += 0.0 if known[0] else v["size"] + slope**2 * v["size_slope"]
            extra += 0.0 if known[1] else v["common"]
        determined = self._determined(w, asked[keep][: sum(free)], A[:, : sum(free)], within)
        information[~determined] = np.eye(len(prior))
        solved = np.linalg.solve(information, asked[keep][None, :, None])[..., 0]
        se = target.factor * np.sqrt(np.maximum(np.einsum("ki,i->k", solved, asked[keep]) + extra, 0.0))
        pull = (w * (solved @ A.T)) @ self.lacked
        by_size = (self.widths - self.widths.mean()) * (self.log_N - self.middle[0])[:, None] * self.lack.bits_by_size
        lever = np.einsum("km,mwi,mw->ki", counts, within, by_size) / v["row"]
        pull[:, 1] += (solved[:, own] * lever).sum(1)
        if target.curved:
            pull[:, 0] = target.lack[0] * self.lack.curvature  # the fit has this term
        true = np.array(target.lack) * [self.lack.curvature, self.lack.bits_by_size]
        bias = target.factor * np.abs(true - pull).sum(1)
        # A size with one D says nothing of a slope in ln D, and counts for none.
        least = 2 if target.place is None and (target.law[1] or target.law[LAW]) else 1
        k = np.stack([(counts[:, np.abs(self.log_N - size) < 1e-9] > 0).sum(1) >= least for size in self.sizes]).sum(0)
        t = np.where(k > 1, stats.t.ppf(0.5 + self.level / 2, np.maximum(k - 1, 1)), np.inf)
        half = np.where(determined, t * se, np.inf)
        return np.where(determined, se, np.inf), half, np.where(determined, bias, np.inf)

    def width(self, counts: np.ndarray, target: Target) -> Width:
        """Of one design, `counts` (m,)."""
        se, half, bias = (float(value[0]) for value in self.widths_of(counts, target))
        return Width(se=se, half=half, bias=bias)

    def _determined(self, w: np.ndarray, goal: np.ndarray, X: np.ndarray, within: np.ndarray) -> np.ndarray:
        """(k,) whether `goal`, a combination of the fit's constants, is in the span of the cells: the columns `X` of
        their means, and what differs between their widths."""
        scale = np.maximum(np.abs(X).max(0), 1e-300)
        goal, fixed = goal / scale, X.shape[1] - within.shape[2]

        def spans(cells: np.ndarray) -> bool:
            inside = np.pad(np.concatenate(within[cells]), ((0, 0), (fixed, 0))) if cells.any() else X[:0]
            seen = np.vstack([X[cells], inside]) / scale
            weights = np.linalg.lstsq(seen.T, goal, rcond=1e-9)[0] if len(seen) else np.zeros(0)
            return len(seen) > 0 and np.allclose(seen.T @ weights, goal, atol=1e-7 * max(1.0, np.abs(goal).max()))

        if spans((w > 0).all(0)):  # more cells determine no less
            return np.ones(len(w), bool)
        supports, of = np.unique(w > 0, axis=0, return_inverse=True)
        return np.array([spans(cells) for cells in supports])[of.ravel()]

    def replaced(self, **components: float) -> "Model":
        return dataclasses.replace(self, components=dataclasses.replace(self.components, **components))


def lacks_of(rows: Rows, components: Components) -> Lack:
    """How large the curvature and the P x N term are in the table: their estimates with the law's, whatever their
    sign."""
    n, d, p = rows.middle
    curve, by_size = (rows.log_D - d) ** 2, (rows.P - p) * (rows.log_N - n)
    X = np.column_stack([rows.X, curve, by_size])
    kept = independent(X)
    values = dict(zip(kept, estimate(rows, components, X[:, kept])[0], strict=True))
    return Lack(curvature=abs(float(values.get(LAW, 0.0))), bits_by_size=abs(float(values.get(LAW + 1, 0.0))))


def parts(rows: Rows) -> tuple[Components, np.ndarray, np.ndarray]:
    """The components of `rows`, and the law's constants (4,) with their covariance."""
    components = fitted(rows)
    return components, *estimate(rows, components)


def components_for(target: Target, rows: Rows, of_law: Components) -> Components:
    """Those about what the target's fit says; `of_law` are about the law, whose misfit another law may mend."""
    return of_law if target.fifth is None or target.curved else fitted(rows, target.columns(rows))
