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
    lower, upper = problem.box()
    edge = (best <= lower) | (best >= upper)
    at_bound = dict(zip(fitted.law.symbols, map(bool, edge), strict=True))
    # A noise-free table has an objective of rounding errors, for which a relative margin means nothing.
    reached = values <= values.min() * (1 + AGREE) + 1e-18 * len(problem.y)
    condition = _condition(problem, best, edge)
    prediction = problem.predict(best[None])[0]
    residual = problem.residuals(best[None])[0]
    status = "ok"
    if not fitted.solution.converged[np.argmin(values)]:
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
        r2=r2(problem.y, prediction),
        r2_within=_within(problem, prediction),
        rmse=float(np.sqrt(np.mean((problem.y - prediction) ** 2))),
        warnings=[],
    )
    return dataclasses.replace(made, warnings=_doubts(fitted, made) + _mixed(fitted))


def _condition(problem: Problem, best: np.ndarray, edge: np.ndarray) -> float:
    normal = problem.evaluate(best[None], np.zeros(1, int)).majorant[0][np.ix_(~edge, ~edge)]
    length = np.sqrt(np.diag(normal))
    if not len(length) or not (length > 0).all():
        return float("inf")
    eigenvalues = np.linalg.eigvalsh(normal / np.outer(length, length))
    return float(np.sqrt(eigenvalues[-1] / eigenvalues[0])) if eigenvalues[0] > 0 else float("inf")


def r2(y: np.ndarray, prediction: np.ndarray) -> float:
    """1 - SS_residual / SS_total; NaN where the response does not vary."""
    total = np.sum((y - y.mean()) ** 2)
    return float(1 - np.sum((y - prediction) ** 2) / total) if total > 0 else float("nan")


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
            within[f"{bits:g}"] = r2(problem.y[rows], prediction[rows])
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
