"""Is ln(gap) a straight line in ln D? Slopes from one octave of D to the next, and a test of their constancy.

One exponent for all D is the first thing that a gap law claims and the last that its R2 would show. So D is taken out
of the law's hands: within each N, width after training and cluster

    gap = a_group * exp(h(ln D)),      a_group >= 0,

with h made of straight pieces (a slope a piece), of one, or of one and a square. Groups have amplitudes of their own,
so that what counts is how the gap of one chain changes from one D to the next. All of it happens to gaps as they are,
in units of the standard deviation that the error model gives them at the gap that the *law* predicts: gaps near zero
or below it stay in, with little weight. Amplitudes are projected out, which leaves a handful of slopes to solve for.

Intervals are a jackknife over clusters, one Newton step each, read against Student's t with k - 2 degrees of freedom,
k the clusters that inform the slope; what a law lacks at a size is in the amplitudes, so that sizes need not be left
out. To call a slope constant takes more than a curvature that does not differ from zero: its interval must also rule
out that the slope changes by half of itself within an octave. Shapes: n rows, J slopes, G groups, S trial points.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import filters, table
from analysis.errors import InputError
from analysis.files import replacing
from analysis.fitting.estimate import Fitted, prepare
from analysis.fitting.fit import fit
from analysis.fitting.intervals import LEAST_CLUSTERS, LEVEL, Interval, clusters, degrees, quantile
from analysis.fitting.jackknife import one_step_jackknife
from analysis.fitting.options import Options
from analysis.fitting.solver import Local, minimise
from analysis.laws.law import Columns, Law, Parameter
from analysis.laws.registry import named

STEEPEST = 8.0  # |slope| beyond which nothing is looked for
CURVATURE = "gamma_DD"
UNSEEN = 1e-4  # share of its square below which a combination of slopes is not seen in the rows
APART = 1.5  # least ratio of neighbouring D between which a slope is estimated
SLOPE_STARTS = (0.0, 0.5, 1.0)
HALF = 0.5  # share of itself by which a slope cannot change in an octave if it is to be called constant
INVISIBLE = 0.005  # change of slope in an octave that two digits do not show, as rounding makes it without noise
CONSTANT, BENT, UNDECIDED = "constant", "not constant", "not decidable"
SLOPE_COLUMNS = ("low_D", "high_D", "value", "se", "low", "high", "p", "clusters")  # of slopes.csv, from each `Slope`
SD = "sd of gap"
SETTING = ("format_post", "granularity_post", "ptq", "format_w", "format_a", "format_kv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slope(Interval):
    """A slope d ln gap / d ln D between two D, or a coefficient of (ln D)^2.

    `p` is the two-sided probability of one as far from zero if it were zero. Without an interval (fewer than four
    clusters that inform it, or no more rows than unknowns) p is NaN too; without any cluster, so is the value.
    """

    low_D: float
    high_D: float
    p: float
    clusters: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slopes:
    """`local`: from each D to the next. `constant`: one slope for all. `curvature`: the coefficient c of (ln D)^2
    beside a slope; from one octave to the next the slope changes by 2 c ln 2.

    `within`: the columns in which the rows of a group agree. `rows` counts all rows, `single` those of groups with one
    D, which inform no slope. `units`: what the jackknife leaves out; not `trusted` where clusters are too few and their
    runs are taken as independent.
    """

    law: str
    within: tuple[str, ...]
    rows: int
    single: int
    units: str
    trusted: bool
    local: list[Slope]
    constant: Slope
    curvature: Slope

    @property
    def verdict(self) -> tuple[str, str]:
        """Whether the slope is `constant`, `not constant` or `not decidable`, and why."""
        bend, change = self.curvature, 2 * np.log(2)
        if bend.clusters == 0:
            return UNDECIDED, "no rows that are compared determine a curvature, which takes three values of D"
        if bend.clusters < LEAST_CLUSTERS:
            few = f"{bend.clusters} inform the curvature, needs at least {LEAST_CLUSTERS}"
            return UNDECIDED, f"too few clusters: {few}"
        if not self.trusted:
            return UNDECIDED, f"too few clusters: fewer than {LEAST_CLUSTERS}, and runs of one are not independent"
        if np.isnan(bend.low):
            return UNDECIDED, "amplitudes and slopes are as many as rows, which leaves nothing to estimate errors from"
        value, low, high = (change * v for v in (bend.value, bend.low, bend.high))
        change_text = (
            f"from one octave of D to the next it changes by {value:.2f} [{low:.2f}, {high:.2f}], p = {bend.p:.2g}"
        )
        if bend.p < 1 - LEVEL and max(-low, high) > INVISIBLE:
            return BENT, change_text
        if max(-low, high) < HALF * abs(self.constant.value):
            return CONSTANT, change_text
        return UNDECIDED, f"{change_text}; that leaves room for half of the slope, {self.constant.value:.2f}, and more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByWidth:
    """Slopes of one law on all of its rows `together`, and within each width after training, {P_post: slopes}.

    `skipped`: widths that have none, and why. `left_out`, `warnings`: of the selection of rows.
    """

    law: Law
    together: Slopes
    widths: dict[float, Slopes]
    skipped: dict[float, str]
    left_out: dict[str, int]
    warnings: list[str]

    @property
    def sentence(self) -> str:
        """The verdict on all rows, in plain words."""
        verdict, reason = self.together.verdict
        return f"slope of ln {self.law.response} in ln D: {verdict} ({reason})"


def local_slopes(law: str | Law, frame: pd.DataFrame, *, only: str | None = None, **options) -> Slopes:
    """Slopes of the gap that `law` describes, on the rows that it is fitted on, or those of them where `only` holds.

    `only` is a condition on columns (`P_post == 3`); `options` are the fields of `Options`.

    Raises:
        InputError: what a fit of the law raises; a law of losses; no group that spans two D.
    """
    fitted, rows = _fitted(law, frame, options)
    return _slopes(fitted.law, filters.filtered(rows, only))


def slopes_by_width(law: str | Law, frame: pd.DataFrame, *, only: str | None = None, **options) -> ByWidth:
    """As `local_slopes`, of all rows together and within each width. Weights come from the law fitted to all widths.

    Raises:
        InputError: as `local_slopes`; a width without slopes is no fault.
    """
    fitted, rows = _fitted(law, frame, options)
    rows, widths, skipped = filters.filtered(rows, only), {}, {}
    together = _slopes(fitted.law, rows)
    for bits, part in rows.groupby("P_post") if fitted.law.response == "gap" and "P_post" in rows else ():
        try:
            widths[float(bits)] = _slopes(fitted.law, part)
        except InputError as fault:
            skipped[float(bits)] = str(fault)
    return ByWidth(
        law=fitted.law,
        together=together,
        widths=widths,
        skipped=skipped,
        left_out=fitted.left_out,
        warnings=fitted.warnings,
    )


def numbers(slopes: ByWidth) -> pd.DataFrame:
    """A row an estimate. `P_post` is NaN for all widths together; `kind` is local, constant or curvature, and the
    curvature's row has the verdict on its width."""
    rows = []
    for bits, one in [*slopes.widths.items(), (np.nan, slopes.together)]:
        each = [("local", e) for e in one.local] + [("constant", one.constant), ("curvature", one.curvature)]
        for kind, estimate in each:
            rows.append(
                {"law": slopes.law.name, "P_post": bits, "kind": kind}
                | {name: getattr(estimate, name) for name in SLOPE_COLUMNS}
                | {"rows": one.rows, "single": one.single, "units": one.units, "trusted": one.trusted}
                | {"verdict": one.verdict[0] if kind == "curvature" else ""}
            )
    return pd.DataFrame(rows)


def write(path: Path, slopes: ByWidth) -> None:
    """Write `numbers(slopes)` to the CSV `path`, whole or not at all; the same slopes give the same bytes."""
    with replacing(path) as temporary:
        numbers(slopes).to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def _fitted(law: str | Law, frame: pd.DataFrame, options: dict) -> tuple[Fitted, pd.DataFrame]:
    """A gap law at its optimum, and the rows that it is fitted on with the standard deviation of each."""
    law = named(law) if isinstance(law, str) else law
    if law.response == "loss":
        raise InputError(f"{law.name}: a law of losses; slopes are those of a gap law")
    fitted = prepare(law, frame, Options(**{"bootstrap": 0} | options))
    sd = np.broadcast_to(fitted.problem.sd, len(fitted.frame))
    return fitted, fitted.frame.assign(**{SD: sd})


def _slopes(law: Law, rows: pd.DataFrame) -> Slopes:
    rows = rows.assign(D=table.nominal_tokens)
    chains = clusters(rows)
    tokens = rows["D"].to_numpy(float)
    within, group = _groups(law, rows)
    spread = pd.Series(tokens).groupby(group).transform("nunique").to_numpy() > 1
    if not spread.any():
        raise InputError(f"{law.name}: no rows of one {', '.join(within)} differ in D; slopes need at least two D")
    y, sd = rows[law.response].to_numpy(float), rows[SD].to_numpy(float)
    informative = [v[spread] for v in (y, sd, group, chains.labels)]
    log, knots = np.log(tokens[spread]), _knots(tokens[spread])
    corners = np.log(knots)
    ramps = np.clip(log[:, None], corners[:-1], corners[1:]) - corners[:-1]
    middle = log - log.mean()
    ends = float(knots[0]), float(knots[-1])
    (constant,) = _solve(middle[:, None], *informative, [ends])
    _, curvature = _solve(np.column_stack([middle, middle**2]), *informative, [ends, ends], slopes=1)
    return Slopes(
        law=law.name,
        within=within,
        rows=len(rows),
        single=int((~spread).sum()),
        units=chains.kind,
        trusted=chains.trusted,
        local=_solve(ramps, *informative, list(itertools.pairwise(map(float, knots)))),
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
        for_schemes=None if law.for_schemes is None else lambda schemes: curved(law.for_schemes(schemes), D_0=D_0),
        distinct={**law.distinct, "D": max(3, law.distinct.get("D", 3))},
    )


def law_curvature(law: str | Law, frame: pd.DataFrame, **options) -> Slope:
    """gamma_DD of the law bent by `curved`: like `Slopes.curvature`, but with the law's own dependence on N and widths
    instead of amplitudes, and the interval of a fit.

    Raises:
        InputError: what a fit of the law raises.
    """
    law = named(law) if isinstance(law, str) else law
    tokens = table.numbers(filters.filtered(frame, options.get("filter")), "D", positive=True)
    made = fit(curved(law, D_0=float(np.exp(np.log(tokens).mean()))), frame, **options)
    interval = made.intervals.get(CURVATURE)
    se = interval.se if interval else np.nan
    about = made.bootstrap
    return _estimate(made.params[CURVATURE], se, about.clusters, *made.ranges["D"], freedom=about.freedom)


def _groups(law: Law, rows: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """In which columns rows must agree to be compared, and the number (n,) of each row's group.

    The cluster is one of them, unless most rows would then have no other D to be compared with: every D may have seeds
    of its own.
    """
    names = [v for v in law.variables if v != "D"] + [c for c in SETTING if c in rows and c not in law.variables]
    groupings = []
    for columns in ([*names, "cluster"], names):
        if set(columns) <= set(rows):
            group = rows.groupby(columns, dropna=False, sort=True).ngroup().to_numpy()
            alone = rows["D"].groupby(group).transform("nunique").to_numpy() < 2
            groupings.append((tuple(columns), group))
            if alone.mean() < 0.5:
                return groupings[-1]
    return groupings[-1]


def _knots(tokens: np.ndarray) -> np.ndarray:
    """D between which slopes are estimated: all that occur, less those too near to the one before."""
    values = np.unique(tokens)
    knots = [values[0]]
    for value in values[1:]:
        if value >= knots[-1] * APART:
            knots.append(value)
    return np.array([*knots[: max(1, len(knots) - 1)], values[-1]])


def _solve(basis, y, sd, group, cluster, ends, *, slopes: int | None = None) -> list[Slope]:
    """The coefficients of gap = a_group exp(basis @ coefficients), basis (n, J), with a jackknife over clusters.

    `ends`: the D between which each applies. The first `slopes` of them (None: all) are started at several values.
    """
    size = basis.shape[1]
    group, cluster = (np.unique(v, return_inverse=True)[1] for v in (group, cluster))
    member = np.eye(group.max() + 1)[group]  # (n, G)

    def model(points):
        """Residuals (S, n) in sd and their slopes (S, n, J), the amplitudes being the best ones."""
        shape = np.exp(points @ basis.T) / sd
        square = shape**2 @ member
        amplitude = np.maximum(((shape * (y / sd)) @ member) / square, 0.0)
        fitted = amplitude[:, group] * shape
        weighted = np.einsum("sn,nj,ng->sgj", shape**2, basis, member) / square[..., None]
        return fitted - y / sd, fitted[..., None] * (basis - weighted[:, group])

    def evaluate(points, _) -> Local:
        residual, jacobian = model(points)
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        gradient = np.einsum("sn,snj->sj", residual, jacobian)
        value = 0.5 * np.sum(residual**2, axis=1)
        return Local(value=value, gradient=gradient, curvature=normal, majorant=normal)

    starts = np.zeros((len(SLOPE_STARTS), size))
    starts[:, :slopes] = np.array(SLOPE_STARTS)[:, None]
    edge = np.full(size, STEEPEST)
    solution = minimise(evaluate, starts, -edge, edge, floats_each=len(y) * (size + member.shape[1]))
    point = solution.points[np.argmin(solution.values)]
    residual, jacobian = (part[0] for part in model(point[None]))
    of_cluster = np.eye(cluster.max() + 1)[cluster]
    curvatures = np.einsum("nk,ni,nj->kij", of_cluster, jacobian, jacobian)
    covariance = one_step_jackknife(curvatures, of_cluster.T @ (jacobian * residual[:, None]))
    errors = np.sqrt(np.diag(covariance))
    if len(y) <= member.shape[1] + size:  # no residuals, of which a jackknife would make an error of zero
        errors[:] = np.nan
    shares = np.einsum("kjj->kj", curvatures) > 1e-9 * np.einsum("kjj->j", curvatures)
    informing = shares.sum(axis=0) * (_identified(basis, group) & (np.abs(point) < edge))
    return [_estimate(float(point[j]), float(errors[j]), int(informing[j]), *ends[j]) for j in range(size)]


def _identified(basis: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Which coefficients (J,) the rows identify, beside an amplitude of each group: those in no combination that
    (nearly) no group sees."""
    rows = pd.DataFrame(basis)
    centred = (rows - rows.groupby(group).transform("mean")).to_numpy()
    scale = np.sqrt(np.sum(centred**2, axis=0))
    centred = centred / np.maximum(scale, UNSEEN)
    sizes, ways = np.linalg.eigh(centred.T @ centred)
    return (scale > UNSEEN) & (np.abs(ways[:, sizes < UNSEEN]) < 0.01).all(axis=1)


def _estimate(
    value: float, se: float, clusters: int, low_D: float, high_D: float, *, freedom: int | None = None
) -> Slope:
    value, se = value if clusters else np.nan, se if clusters >= LEAST_CLUSTERS else np.nan
    freedom = freedom or degrees("clusters", clusters)
    reach = quantile(freedom) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(2 * stats.t.sf(np.abs(value) / np.float64(se), freedom))
    ends = {"low": value - reach, "high": value + reach}
    return Slope(low_D=low_D, high_D=high_D, value=value, se=se, p=p, clusters=clusters, **ends)
