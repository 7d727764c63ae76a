"""How much rows scatter about a law: the error model of gaps, and the scatter of losses between seeds.

A gap's variance is var = gap_se^2 + a * delta + tau^2 * delta^2, all at the *predicted* delta: evaluation windows, a
part that grows with the gap like a count, and a relative part (runs differ in how hard they are to quantize). At the
observed gap instead, a gap that happens to be tiny would take over the fit. a and tau come from the residuals' Gaussian
likelihood, with squared residuals inflated by n / (n - parameters).
"""

import dataclasses

import numpy as np
import pandas as pd
from scipy.optimize import nnls

FLOOR = 1e-3  # least standard deviation of a gap over the root mean square of all: noise-free tables stay finite
SCORINGS = 100
HUBER_OF_SD = 1.345  # 95% efficient when the scatter is normal
LEAST_REPLICATES = 3  # degrees of freedom below which the scatter between seeds is not believed
CELL = (
    *("N", "D", "P_w", "P_a", "P_kv", "corpus", "schedule", "lr_peak", "lr_end", "warmup_tokens", "decay_tokens"),
    *("batch_tokens", "weight_decay", "granularity_w", "granularity_a", "granularity_kv", "format_w", "format_a"),
    *("format_kv", "format_q", "format_emb", "format_head", "backward", "scale_rule_w", "scale_rule_a", "scheme"),
    *("scale_rule_kv", "granularity_keys", "skip", "estimator", "rounding", "rounding_backward"),
)
"""Rows alike in all of these are replicates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapNoise:
    """`a` in nats, `tau` relative, `floor` in nats."""

    a: float
    tau: float
    floor: float

    def sd(self, prediction: np.ndarray, gap_se: np.ndarray) -> np.ndarray:
        """Standard deviation in nats of gaps predicted as `prediction`, broadcast with `gap_se`."""
        size = np.maximum(prediction, 0.0)
        return np.sqrt(gap_se**2 + self.a * size + (self.tau * size) ** 2 + self.floor**2)


def estimate(
    gap: np.ndarray,
    prediction: np.ndarray,
    gap_se: np.ndarray,
    parameters: int,
    weights: np.ndarray | None = None,
) -> GapNoise:
    """a and tau by maximum likelihood of the residuals, all arrays (n,) in nats, each row counting by its weight.

    Fisher scoring: the variance is linear in (a, tau^2), so each step is a non-negative least-squares fit of the
    squared residuals, weighted by the variance of the last step.
    """
    floor = FLOOR * float(np.sqrt(np.mean(gap**2)))
    square = (gap - prediction) ** 2 * len(gap) / max(1, len(gap) - parameters)
    size = np.maximum(prediction, 0.0)
    known, parts = gap_se**2 + floor**2, np.column_stack([size, size**2])
    coefficients = np.array([0.0, np.mean(square) / np.mean(size**2)]) if size.any() else np.zeros(2)
    share = 1.0 if weights is None else np.sqrt(weights)
    for step in range(SCORINGS):
        variance = known + parts @ coefficients
        unit = variance / share
        before, coefficients = coefficients, nnls(parts / unit[:, None], (square - known) / unit)[0]
        if np.allclose(before, coefficients, rtol=1e-10, atol=0.0):
            break
        if step > SCORINGS // 2:  # two values in turn, then: meet between them
            coefficients = (before + coefficients) / 2
    return GapNoise(a=float(coefficients[0]), tau=float(np.sqrt(coefficients[1])), floor=floor)


def seed_sd(frame: pd.DataFrame) -> float | None:
    """Pooled standard deviation of ln(loss) between runs that differ in their seeds alone; None with fewer than
    three degrees of freedom."""
    seeds = [c for c in ("seed_init", "seed_data") if c in frame]
    if not any(frame[c].nunique() > 1 for c in seeds):
        return None
    cell = [c for c in CELL if c in frame]
    logs = np.log(frame["loss"].astype(float)).groupby([frame[c] for c in cell], dropna=False)
    degrees = int((logs.count() - 1).sum())
    spread = float(logs.apply(lambda v: ((v - v.mean()) ** 2).sum()).sum())
    return float(np.sqrt(spread / degrees)) if degrees >= LEAST_REPLICATES and spread > 0 else None


def gap_errors(frame: pd.DataFrame, gap: str = "gap") -> np.ndarray:
    """Standard errors (n,) of the column `gap` in nats, zero where the table gives none."""
    if f"{gap}_se" not in frame:
        return np.zeros(len(frame))
    return pd.to_numeric(frame[f"{gap}_se"], errors="coerce").fillna(0.0).to_numpy(float)
