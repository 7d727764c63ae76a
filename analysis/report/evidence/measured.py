"""How numbers are made, as it stands in rules: estimator, filter, weights."""

from analysis.report.evidence.rules import Measured
from analysis.report.evidence.tables import CLEAR_WIDTHS, LOG_GAP_BELOW, Rows

GAP_VARIANCE = "one over the variance at the predicted gap"
ALIKE = "all alike"
GEOMETRIC = "geometric mean over pairs (a ratio of sums, which the largest gaps rule, before the data were seen)"
ENDS = "ends of runs that did not diverge"
LOGS = f"gaps at {' and '.join(f'{bits:g}' for bits in CLEAR_WIDTHS)} bits above 0 and below {LOG_GAP_BELOW:g} nat"


def gap_law(rows: Rows, law: str = "kumar_ptq", *, more: str = "", how: str = "") -> Measured:
    """A law of the gap on these rows, or on such as `how` says in words."""
    estimator = f"`{law}` by least squares on gaps, its interval from leaving each size out in turn{more}"
    return Measured(estimator=estimator, filter=f"{how or rows.how}, {rows.limits}", weights=GAP_VARIANCE)


def loss_law(what: str, rows: str) -> Measured:
    """A law of the loss."""
    estimator = f"{what} by Huber's function of ln(prediction / loss), its interval from refits"
    return Measured(estimator=estimator, filter=rows, weights=f"runs {ALIKE}")


def paired(estimator: str, rows: str, units: str = "pairs") -> Measured:
    """A mean of units."""
    return Measured(estimator=estimator, filter=rows, weights=f"{units} {ALIKE}")
