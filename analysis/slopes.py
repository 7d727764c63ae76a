"""Is ln(gap) a straight line in ln D? Slopes from one octave of D to the next, and a test of their constancy.

One exponent for all D is the first thing that a gap law claims and the last that its R2 would show. So D is taken out
of the law's hands: within each N, width after training and cluster

    gap = a_group * exp(h(ln D)),      a_group >= 0,

with h made of straight pieces (a slope a piece), of one, or of one and a square. Groups have amplitudes of their own,
so that what counts is how the gap of one chain changes from one D to the next. All of it happens to gaps as they are,
in units of the standard deviation that the error model gives them at the gap that the *law* predicts: gaps near zero
or below it stay in, with little weight. Amplitudes are projected out, which leaves a handful of slopes to solve for.

Intervals are a jackknife over clusters, one Newton step each, read against Student's t with k - 2 degrees of freedom,
k the clusters that tell the slope. Shapes: n rows, J slopes, G groups, S trial points.
"""

import dataclasses
import itertools

import numpy as np
import pandas as pd
from scipy import stats

from analysis import table
from analysis.errors import InputError
from analysis.fitting import fit
from analysis.intervals import LEAST_CLUSTERS, LEVEL, units
from analysis.law import Columns, Law, Parameter
from analysis.laws import named
from analysis.options import Options
from analysis.selection import select
from analysis.solver import Local, minimise
from analysis.stages import fit_rows

STEEPEST = 8.0  # |slope| beyond which nothing is looked for
CURVATURE = "gamma_DD"
APART = 1.5  # least ratio of neighbouring D between which a slope is told
STARTS = (0.0, 0.5, 1.0)
SETTING = ("format_post", "granularity_post", "ptq", "format_w", "format_a", "format_kv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A slope d ln gap / d ln D between two D, or a coefficient of (ln D)^2, with its 95% interval.

    `p` is the two-sided probability of one as far from zero if it were zero. Without an interval (fewer than four
    clusters that tell it) se, low, high and p are NaN.
    """

    low_D: float
    high_D: float
    value: float
    se: float
    low: float
    high: float
    p: float
    clusters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slopes:
    """`local`: from each D to the next. `constant`: one slope for all. `curvature`: the coefficient c of (ln D)^2
    beside a slope; from one octave to the next the slope changes by 2 c ln 2.

    `within`: the columns in which the rows of a group agree. `rows` counts all rows, `single` those of groups with one
    D, which tell no slope. `units`: what the jackknife leaves out; not `trusted` where clusters are too few and their
    runs are taken as independent.
    """

    law: str
    within: tuple[str, ...]
    rows: int
    single: int
    units: str
    trusted: bool
    local: list[Estimate]
    constant: Estimate
    curvature: Estimate


def local_slopes(law: str | Law, frame: pd.DataFrame, *, only: str | None = None, **options) -> Slopes:
    """Slopes of the gap that `law` describes, on the rows that it is fitted on, or those of them where `only` holds.

    `only` is a condition on columns (`P_post == 3`); `options` are the fields of `Options`.

    Raises:
        InputError: what a fit of the law raises; a law of losses; no group that spans two D.
    """
    law = named(law) if isinstance(law, str) else law
    if law.response == "loss":
        raise InputError(f"{law.name}: a law of losses; slopes are told of a gap law")
    chosen = Options(**{"bootstrap": 0} | options)
    selection = select(law, table.filtered(frame, chosen.filter), bits=chosen.bits)
    fitted = fit_rows(selection.law, selection.frame, chosen)
    rows = fitted.frame.assign(**{"sd of gap": np.broadcast_to(fitted.problem.sd, len(fitted.frame))})
    rows = table.filtered(rows, only)
    kind, cluster, trusted = units(rows)
    tokens = rows["D"].to_numpy(float)
    within, group = _groups(selection.law, rows)
    spread = pd.Series(tokens).groupby(group).transform("nunique").to_numpy() > 1
    if not spread.any():
        raise InputError(f"{law.name}: no rows of one {', '.join(within)} differ in D; slopes need at least two D")
    y, sd = rows[law.response].to_numpy(float), rows["sd of gap"].to_numpy(float)
    told = [v[spread] for v in (y, sd, group, cluster)]
    log, knots = np.log(tokens[spread]), _knots(tokens[spread])
    corners = np.log(knots)
    ramps = np.clip(log[:, None], corners[:-1], corners[1:]) - corners[:-1]
    middle = log - log.mean()
    ends = float(knots[0]), float(knots[-1])
    (constant,) = _solve(middle[:, None], *told, [ends])
    _, curvature = _solve(np.column_stack([middle, middle**2]), *told, [ends, ends], slopes=1)
    return Slopes(
        law=law.name,
        within=within,
        rows=len(rows),
        single=int((~spread).sum()),
        units=kind,
        trusted=trusted,
        local=_solve(ramps, *told, list(itertools.pairwise(map(float, knots)))),
        constant=constant,
        curvature=curvature,
    )


def curved(law: Law, *, D_0: float) -> Law:
    """`law` times exp(gamma_DD ln(D / D_0)^2): its exponent of D is then that at D_0, in tokens, and gamma_DD tests it.

    A law like any other, to be fitted and compared with the one that it bends.
    """

    def columns(theta, x) -> Columns:
        inner, square = law.columns(theta, x), np.log(x["D"] / D_0) ** 2
        logs = {k: log + theta[CURVATURE] * square for k, log in inner.logs.items()}
        ones = np.ones_like(theta[CURVATURE])
        return Columns(logs=logs, slopes=inner.slopes | {(k, CURVATURE): ones * square for k in inner.logs})

    bend = Parameter(symbol=CURVATURE, unit="1", lower=-2.0, upper=2.0, starts=(0.0,))
    return dataclasses.replace(
        law,
        name=f"{law.name}_curved",
        equation=f"({law.equation}) * exp({CURVATURE} ln(D / {D_0:g})^2)",
        parameters=(*law.parameters, bend),
        columns=columns,
        distinct={**law.distinct, "D": max(3, law.distinct.get("D", 3))},
    )


def law_curvature(law: str | Law, frame: pd.DataFrame, **options) -> Estimate:
    """gamma_DD of the law bent by `curved`: like `Slopes.curvature`, but with the law's own dependence on N and widths
    instead of amplitudes, and an interval from the bootstrap of clusters.

    Raises:
        InputError: what a fit of the law raises.
    """
    law = named(law) if isinstance(law, str) else law
    tokens = table.numbers(table.filtered(frame, options.get("filter")), "D", positive=True)
    made = fit(curved(law, D_0=float(np.exp(np.log(tokens).mean()))), frame, **options)
    found = made.intervals.get(CURVATURE)
    se = found.se if found else np.nan
    return _estimate(made.params[CURVATURE], se, made.bootstrap.clusters, *made.ranges["D"])


def _groups(law: Law, rows: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """In which columns rows must agree to be compared, and the number (n,) of each row's group.

    The cluster is one of them, unless most rows would then have no other D to be compared with: every D may have seeds
    of its own.
    """
    names = [v for v in law.variables if v != "D"] + [c for c in SETTING if c in rows and c not in law.variables]
    found = []
    for columns in ([*names, "cluster"], names):
        if set(columns) <= set(rows):
            group = rows.groupby(columns, dropna=False, sort=True).ngroup().to_numpy()
            alone = rows["D"].groupby(group).transform("nunique").to_numpy() < 2
            found.append((tuple(columns), group))
            if alone.mean() < 0.5:
                return found[-1]
    return found[-1]


def _knots(tokens: np.ndarray) -> np.ndarray:
    """D between which slopes are told: all that occur, less those too near to the one before."""
    values = np.unique(tokens)
    kept = [values[0]]
    for value in values[1:]:
        if value >= kept[-1] * APART:
            kept.append(value)
    return np.array([*kept[: max(1, len(kept) - 1)], values[-1]])


def _solve(basis, y, sd, group, cluster, ends, *, slopes: int | None = None) -> list[Estimate]:
    """The coefficients of gap = a_group exp(basis @ coefficients), basis (n, J), with a jackknife over clusters.

    `ends`: the D that each speaks of. The first `slopes` of them (None: all) are started at several values.
    """
    size = basis.shape[1]
    group, cluster = (np.unique(v, return_inverse=True)[1] for v in (group, cluster))
    member = np.eye(group.max() + 1)[group]  # (n, G)

    def model(points):
        """Residuals (S, n) in sd and their slopes (S, n, J), the amplitudes being the best ones."""
        shape = np.exp(points @ basis.T) / sd
        square = shape**2 @ member
        amplitude = np.maximum(((shape * (y / sd)) @ member) / square, 0.0)
        told = amplitude[:, group] * shape
        weighted = np.einsum("sn,nj,ng->sgj", shape**2, basis, member) / square[..., None]
        return told - y / sd, told[..., None] * (basis - weighted[:, group])

    def evaluate(points, _) -> Local:
        residual, turns = model(points)
        normal = turns.transpose(0, 2, 1) @ turns
        gradient = np.einsum("sn,snj->sj", residual, turns)
        value = 0.5 * np.sum(residual**2, axis=1)
        return Local(value=value, gradient=gradient, curvature=normal, majorant=normal)

    starts = np.zeros((len(STARTS), size))
    starts[:, :slopes] = np.array(STARTS)[:, None]
    edge = np.full(size, STEEPEST)
    solution = minimise(evaluate, starts, -edge, edge, floats_each=len(y) * (size + member.shape[1]))
    point = solution.points[np.argmin(solution.values)]
    residual, turns = (part[0] for part in model(point[None]))
    of_cluster = np.eye(cluster.max() + 1)[cluster]
    curvatures = np.einsum("nk,ni,nj->kij", of_cluster, turns, turns)
    covariance = jackknife(curvatures, of_cluster.T @ (turns * residual[:, None]))
    shares = np.einsum("kjj->kj", curvatures) > 1e-9 * np.einsum("kjj->j", curvatures)
    return [
        _estimate(float(point[j]), float(np.sqrt(covariance[j, j])), int(shares[:, j].sum()), *ends[j])
        for j in range(size)
    ]


def _estimate(value: float, se: float, clusters: int, low_D: float, high_D: float) -> Estimate:
    se = se if clusters >= LEAST_CLUSTERS else np.nan
    degrees = max(clusters - 2, 1)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, degrees)) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(2 * stats.t.sf(np.abs(value) / np.float64(se), degrees))
    ends = {"low": value - reach, "high": value + reach}
    return Estimate(low_D=low_D, high_D=high_D, value=value, se=se, p=p, clusters=clusters, **ends)


def jackknife(curvatures: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Covariance (J, J) of a minimum from the parts of its objective that k clusters make: (k, J, J) and (k, J).

    Each cluster is left out in turn and the minimum moved by one Newton step, pseudo-inverse where the rest does not
    tell a parameter. Source: the estimator "CR3" of Bell & McCaffrey 2002 in this form.
    """
    k, whole = len(gradients), curvatures.sum(axis=0)
    scale = np.sqrt(np.maximum(np.diag(whole), np.finfo(float).tiny))
    rest = (whole - curvatures) / np.outer(scale, scale)
    steps = np.einsum("kij,kj->ki", np.linalg.pinv(rest, rcond=1e-9, hermitian=True), gradients / scale) / scale
    steps = steps - steps.mean(axis=0)
    return (k - 1) / k * steps.T @ steps
