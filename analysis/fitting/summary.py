"""What a reader of a regression asks for: standard errors, correlations, errors on held-out groups, residuals.

All of it leaves whole groups of rows out, sizes or chains of runs (`intervals`), since rows of one run are no
independent observations: criteria that count rows, such as AIC and BIC, would take 200 checkpoints for 200 runs, and
are not given.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import notebook, table
from analysis.fitting.estimate import Fitted
from analysis.fitting.intervals import Groups, clusters, groups, leave_out

LEAST_HELD_OUT = 3  # groups, of which each is predicted by the others
VARIABLES = ("N", "D", "C", "P_post", "P_w", "P_a", "P_kv", "scheme")  # that residuals are listed with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """`parameters`: a row a symbol, with `value, se, unit`, se clustered. `correlations`: of the estimates, on the
    scale on which each is nearly normal. `held_out`: errors (nats) of each group of rows as the others predict it;
    `residuals`: measured minus predicted (nats) of each row, and in standard deviations. `units`: the groups that
    standard errors leave out. `given`: what was held."""

    law: str
    rows: int
    units: str
    given: str
    parameters: pd.DataFrame
    correlations: pd.DataFrame
    held_out: pd.DataFrame
    residuals: pd.DataFrame

    def __str__(self) -> str:
        tables = (
            (f"{self.law}: {self.rows} rows; standard errors{self.given} leave out {self.units}", self.parameters),
            ("correlations of the estimates", self.correlations.round(2)),
            ("errors in nats of groups that the others predict", self.held_out),
        )
        lines = [f"{title}\n{frame.to_string(float_format='{:.4g}'.format)}" for title, frame in tables if len(frame)]
        worst = self.residuals.reindex(self.residuals["standardized"].abs().sort_values(ascending=False).index).head(5)
        lines.append(f"largest residuals\n{worst.to_string(float_format='{:.4g}'.format)}")
        return "\n\n".join(lines)

    __repr__ = __str__

    def plot(self, path: Path | str | None = None):
        """The residuals against prediction, N and D, and their quantiles against those of normal values: a matplotlib
        figure, written to `path` if there is one.

        Raises:
            InputError: `path` is no picture, or cannot be written.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 5.6), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        values = self.residuals["standardized"].to_numpy()
        for axis, name in zip(axes, ("predicted", "N", "D"), strict=False):
            if name not in self.residuals:
                axis.set_visible(False)
                continue
            axis.plot(self.residuals[name], values, "o", markersize=3, alpha=0.6)
            axis.axhline(0.0, color="0.5", linewidth=0.8)
            notebook.log_x(axis)
            axis.set(xlabel=name, ylabel="residual / standard deviation")
        values = np.sort(values)
        expected = stats.norm.ppf((np.arange(len(values)) + 0.5) / len(values))
        axes[3].plot(expected, values, "o", markersize=3, alpha=0.6)
        axes[3].axline((0.0, 0.0), slope=1.0, color="0.5", linewidth=0.8)
        axes[3].set(xlabel="normal quantile", ylabel="residual / standard deviation")
        figure.suptitle(f"{self.law}: {self.rows} rows", fontsize="medium")
        return notebook.written(figure, path)

    def _repr_html_(self) -> str:
        title = f"{self.law}: {self.rows} rows; standard errors{self.given} leave out {self.units}"
        return (
            notebook.page(title, self.parameters)
            + notebook.page("correlations of the estimates", self.correlations.round(2))
            + notebook.page("errors in nats of groups that the others predict", self.held_out, index=False)
        )


def summary(fitted: Fitted, given: str = "") -> Summary:
    """All that can be said by leaving groups of rows out, each once."""
    left_out = groups(fitted.frame)
    parameters, correlations = _estimates(fitted, left_out)
    return Summary(
        law=fitted.law.name,
        rows=len(fitted.frame),
        units=f"each of {left_out.count} {left_out.kind}",
        given=given,
        parameters=parameters,
        correlations=correlations,
        held_out=_held_out(fitted),
        residuals=residuals(fitted),
    )


def _estimates(fitted: Fitted, left_out: Groups) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Standard errors and correlations by a jackknife over groups; NaN with fewer than two."""
    free = [p for p in fitted.law.ordered if not p.fixed]
    symbols, k = [p.symbol for p in free], left_out.count
    values = {p.symbol: fitted.params[p.symbol] for p in fitted.law.ordered}
    scatter = np.full((len(free), len(free)), np.nan)
    if k > 1:
        without = pd.DataFrame(
            fitted.problem.outside(leave_out(fitted, left_out.labels)), columns=list(fitted.law.symbols)
        )
        # A coefficient that is zero without some group has no logarithm there.
        own = {p.symbol: (without[p.symbol] <= 0).any() or values[p.symbol] <= 0 for p in free}
        moved = np.column_stack([without[p.symbol] if own[p.symbol] else p.forward(without[p.symbol]) for p in free])
        away = moved - moved.mean(axis=0)
        scatter = (k - 1) / k * away.T @ away
        slopes = [1.0 if own[p.symbol] else abs(float(p.slope(np.array(values[p.symbol])))) for p in free]
    else:
        slopes = np.ones(len(free))
    spread = np.sqrt(np.diag(scatter))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = pd.DataFrame(scatter / np.outer(spread, spread), index=symbols, columns=symbols)
    errors = dict(zip(symbols, spread * slopes, strict=True))
    parameters = pd.DataFrame(
        [{"value": values[p.symbol], "se": errors.get(p.symbol, 0.0), "unit": p.unit} for p in fitted.law.ordered],
        index=list(fitted.law.symbols),
    )
    return parameters, correlations


def _held_out(fitted: Fitted) -> pd.DataFrame:
    """A row a group of each kind: how far its rows are off what the others predict, and all of a kind together."""
    frame, y = fitted.frame, fitted.problem.y
    kinds = {}
    if "N" in frame:
        kinds["N"] = frame["N"].to_numpy(float)
    if "D" in frame:
        kinds["D"] = table.nominal_tokens(frame).astype(float)
    chains = clusters(frame)
    if chains.kind != "rows" and chains.count < len(frame):
        kinds[chains.kind] = chains.labels
    rows = []
    for kind, values in kinds.items():
        names, labels = np.unique(values, return_inverse=True)
        if len(names) < LEAST_HELD_OUT:
            continue
        predicted = fitted.problem.predict(leave_out(fitted, labels))[labels, np.arange(len(y))]
        each = [(f"{name:g}", labels == i) for i, name in enumerate(names)] if kind in ("N", "D") else []
        for name, here in [*each, ("all", np.ones(len(y), bool))]:
            error = (predicted - y)[here]
            measures = {"rmse": np.sqrt(np.mean(error**2)), "bias": error.mean(), "rows": int(here.sum())}
            rows.append({"left out": kind, "group": name, **measures})
    return pd.DataFrame(rows, columns=["left out", "group", "rmse", "bias", "rows"])


def residuals(fitted: Fitted) -> pd.DataFrame:
    """A row a row of the fit, with its variables: measured and predicted (nats), their difference, and that in standard
    deviations."""
    problem, frame = fitted.problem, fitted.frame
    predicted = problem.predict(fitted.best[None])[0]
    rest = problem.y - predicted
    own = -problem.residuals(fitted.best[None])[0]
    scale = 1.0 if problem.sd is not None else np.sqrt(np.sum(own**2) / max(1, len(own) - len(fitted.law.free)))
    listed = frame[[name for name in VARIABLES if name in frame]]
    with np.errstate(divide="ignore", invalid="ignore"):
        standardized = np.nan_to_num(own / scale)
    return listed.assign(measured=problem.y, predicted=predicted, residual=rest, standardized=standardized)
