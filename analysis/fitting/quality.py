"""How well a fit is determined and how well it describes its rows; every reason for doubt becomes a warning."""

import dataclasses

import numpy as np

from analysis.fitting.estimate import Fitted
from analysis.fitting.objective import Problem
from analysis.table import nominal_tokens

AGREE = 1e-6  # starts whose objective is within this share of the best one have found the optimum
ILL = 1e3  # condition number above which parameters are barely identified
LOST = 1e7  # ... and above which they are not identified at all
THIN = 10.0  # least ratio between the largest and the smallest D/N
UNFELT = 1e-9  # of ln(loss), or of a standard deviation: a parameter whose whole scale moves rows by less is not felt
LINE = 0.02  # of D: how far rows may be from D being a power of N before N and D are distinguished
FEW = 0.5  # share of starts below which the optimum may be one of many
CONDITIONS = ("corpus", "dtype", "schedule", "decay_tokens", "lr_peak", "weight_decay", "batch_tokens")
"""Columns of how a run was trained that no law knows and that move losses and gaps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """`status`: ok | at_bound | not_converged | unidentified. `condition`: that of the residuals' Jacobian with columns
    of unit length, at the optimum, parameters at a bound left out. `active_share`: residuals beyond Huber's delta.
    r2 and rmse (nats) are of the response in linear space; `r2_within` by bit width."""

    starts: int
    starts_at_optimum: int
    status: str
    condition: float
    at_bound: dict[str, bool]
    active_share: float
    r2: float
    r2_within: dict[str, float]
    rmse: float
    warnings: list[str]


def diagnose(fitted: Fitted) -> Diagnosis:
    """All that can be said about `fitted` without refitting."""
    problem, best, values = fitted.problem, fitted.best, fitted.solution.values
    edge = _at_bound(problem, best)
    at_bound = dict(zip(fitted.law.symbols, map(bool, edge), strict=True))
    # A noise-free table has an objective of rounding errors, for which a relative margin means nothing.
    reached = values <= values.min() * (1 + AGREE) + 1e-18 * len(problem.y)
    condition = _condition(problem, best, edge)
    lost, one_line = unidentified(fitted), _on_one_line(problem)
    prediction = problem.predict(best[None])[0]
    residual = problem.residuals(best[None])[0]
    status = "ok"
    if lost:
        status = "unidentified"
    elif not fitted.solution.converged[np.argmin(values)]:
        status = "not_converged"
    elif condition > LOST:
        status = "unidentified"
    elif edge.any():
        status = "at_bound"
    made = Diagnosis(
        starts=len(values),
        starts_at_optimum=int(reached.sum()),
        status=status,
        condition=condition,
        at_bound=at_bound,
        active_share=float(np.mean(np.abs(residual) > problem.delta)),
        r2=r2(problem.y, prediction, problem.row_weights),
        r2_within=_within(problem, prediction),
        rmse=float(np.sqrt(np.average((problem.y - prediction) ** 2, weights=problem.row_weights))),
        warnings=[],
    )
    doubts = _doubts(fitted, made) + _mixed(fitted)
    if one_line:
        doubts.insert(0, f"{one_line}: rows do not separate the term of N from that of D")
    elif lost:
        doubts.insert(0, f"not identified by these rows, and without intervals: {', '.join(sorted(lost))}")
    return dataclasses.replace(made, warnings=doubts)


def _at_bound(problem: Problem, best: np.ndarray) -> np.ndarray:
    """Which parameters (P,) are at a bound, those that are held apart."""
    lower, upper = problem.box()
    return ((best <= lower) | (best >= upper)) & (lower < upper)


def _normal(problem: Problem, best: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normal matrix of these parameters with columns of unit length, and their lengths."""
    normal = problem.evaluate(best[None], np.zeros(1, int)).majorant[0][np.ix_(rows, rows)]
    length = np.sqrt(np.diag(normal))
    with np.errstate(divide="ignore", invalid="ignore"):
        return normal / np.outer(length, length), length


def _condition(problem: Problem, best: np.ndarray, edge: np.ndarray) -> float:
    lower, upper = problem.box()
    unit, length = _normal(problem, best, ~edge & (lower < upper))
    if not len(length) or not (length > 0).all():
        return float("inf")
    eigenvalues = np.linalg.eigvalsh(unit)
    return float(np.sqrt(eigenvalues[-1] / eigenvalues[0])) if eigenvalues[0] > 0 else float("inf")


def unidentified(fitted: Fitted) -> frozenset[str]:
    """Symbols of parameters that the rows leave open: those that move no prediction, that are in a combination which
    moves none, or all of a law whose two terms change places where D is a power of N."""
    problem, best, law = fitted.problem, fitted.best, fitted.law
    if _on_one_line(problem):
        return frozenset(p.symbol for p in law.free)
    free, symbols = np.array([not p.fixed for p in law.ordered]), np.array(law.symbols)
    length = _normal(problem, best, free)[1]
    felt = np.zeros(len(free), bool)
    felt[free] = length > UNFELT * np.sqrt(len(problem.y))
    lost = set(symbols[free & ~felt])
    # From a bound a coefficient can still grow at the cost of another; an exponent there is where it wants to be.
    inner = felt & (~_at_bound(problem, best) | np.array([p.linear for p in law.ordered]))
    if inner.sum() > 1:
        sizes, ways = np.linalg.eigh(_normal(problem, best, inner)[0])
        open_ways = ways[:, sizes < sizes[-1] / LOST**2]
        lost |= set(symbols[inner][(np.abs(open_ways) > 0.01).any(axis=1)])
    return frozenset(map(str, lost))


def _on_one_line(problem: Problem) -> str:
    """Where all rows have D = c N^p with p > 0 and nothing else separates a law's exponents of N and D: that line in
    words, else nothing. Both terms are then powers of N, and either could be the one of N."""
    exponents = {p.symbol for p in problem.law.free} >= {"alpha", "beta"}
    alone = all(np.ptp(values) == 0 for name, values in problem.x.items() if name not in ("N", "D"))
    if problem.law.response != "loss" or not exponents or not alone or not {"N", "D"} <= set(problem.x):
        return ""
    size, tokens = np.log(problem.x["N"]), np.log(problem.x["D"])
    if np.ptp(size) == 0:
        return ""
    power, front = np.polyfit(size, tokens, 1)
    if np.abs(tokens - power * size - front).max() > LINE or power <= 0:
        return ""
    ratio = problem.x["D"] / problem.x["N"]
    if ratio.max() <= ratio.min() * (1 + LINE):
        return f"D/N is {ratio.mean():.3g} in all rows"
    return f"D is {np.exp(front):.3g} N^{power:.3g} in all rows"


def r2(y: np.ndarray, prediction: np.ndarray, weights: np.ndarray | None = None) -> float:
    """1 - SS_residual / SS_total, rows counting by their weights; NaN where the response does not vary."""
    weights = np.ones(len(y)) if weights is None else weights
    total = np.sum(weights * (y - np.average(y, weights=weights)) ** 2)
    return float(1 - np.sum(weights * (y - prediction) ** 2) / total) if total > 0 else float("nan")


def _within(problem: Problem, prediction: np.ndarray) -> dict[str, float]:
    """R2 by bit width: bits alone explain most of a gap, so the overall R2 says little about N and D."""
    columns = [v for v in ("P_post", "P_w", "P_a", "P_kv") if v in problem.x]
    if not columns:
        return {}
    lowest = np.minimum.reduce([problem.x[c] for c in columns])
    within = {}
    for bits in np.unique(lowest):
        rows = lowest == bits
        if rows.sum() > 2:
            weights = None if problem.row_weights is None else problem.row_weights[rows]
            within[f"{bits:g}"] = r2(problem.y[rows], prediction[rows], weights)
    return within


def _doubts(fitted: Fitted, made: Diagnosis) -> list[str]:
    problem, doubts = fitted.problem, []
    if made.status == "not_converged":
        doubts.append("the optimum did not meet its tolerance")
    if made.starts_at_optimum < FEW * made.starts:
        doubts.append(f"only {made.starts_at_optimum} of {made.starts} starts found the optimum")
    if made.condition > ILL:
        doubts.append(f"condition number {made.condition:.0f}: nearly collinear parameters are poorly identified")
    if made.at_bound.get("E") and float(problem.box()[0][problem.law.symbols.index("E")]) == 0.0:
        doubts.append("E is at zero: this table does not identify the irreducible loss")
    bound = [s for s, edge in made.at_bound.items() if edge and s != "E"]
    if bound:
        doubts.append(f"at a bound: {', '.join(bound)}")
    if "N" in problem.x and "D" in problem.x:
        ratio = problem.x["D"] / problem.x["N"]
        if ratio.max() < THIN * ratio.min():
            doubts.append(f"thin coverage: D/N only from {ratio.min():.3g} to {ratio.max():.3g}")
        for column, values in (("N", problem.x["N"]), ("D", nominal_tokens(fitted.frame))):
            count = len(np.unique(values))
            if count < 3:
                doubts.append(f"thin coverage: {column} has only {count} different values, its power law is untested")
    within = {b: r for b, r in made.r2_within.items() if r < 0.5}
    if within and problem.law.response == "gap":
        listed = ", ".join(f"{b} bits {r:.2f}" for b, r in within.items())
        doubts.append(f"R2 within a bit width is below 0.5: {listed}")
    return doubts


def _mixed(fitted: Fitted) -> list[str]:
    """A doubt about rows that the law takes for equals, and that were trained differently."""
    frame = fitted.frame.assign(D=nominal_tokens)
    asked = [v for v in fitted.law.variables if v in frame]
    cells = frame.groupby(asked, dropna=False)
    counts = {c: int(cells[c].nunique(dropna=False).max()) for c in CONDITIONS if c in frame and c not in asked}
    listed = ", ".join(f"{c} ({count} values)" for c, count in counts.items() if count > 1)
    return [f"rows of one {', '.join(asked)} differ in {listed}, which the law takes for scatter"] if listed else []
