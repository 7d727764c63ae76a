"""Rows and curves that several figures share: runs in low precision, what that cost each, laws with their bands."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import style
from analysis.fitting.fit import Fit, fit
from analysis.fitting.noise import gap_errors
from analysis.fitting.options import Options
from analysis.fitting.selection import applicable_rows, rows_of, ways_in_training
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.laws.registry import LAWS
from analysis.table import nominal_tokens, numbers

NAMES = {"P_w": "weights", "P_a": "activations", "P_kv": "KV cache"}
SYMBOLS = {"P_w": "$P_w$", "P_a": "$P_a$", "P_kv": r"$P_\mathrm{kv}$"}
LOWEST = 1e-4  # nats; gaps below are noise, and would take half of a logarithmic axis
TAILS = (2.5, 97.5)
TWIN = ("N", "D", "seed_init", "seed_data", "corpus", "schedule", "lr_peak", "lr_end", "batch_tokens", "weight_decay")
ANY = {
    name: dataclasses.replace(LAWS[name], distinct=dict.fromkeys(PARTS, 1)) for name in ("kumar_neff", "kumar_unified")
}


def trained(frame: pd.DataFrame, *, one_way: bool = True) -> pd.DataFrame:
    """Ends of runs that were not quantized after training, with P_w, P_a and P_kv (16 where the table has none)
    and D as rows are grouped by it.

    Of each part's ways to be in low precision the most frequent is kept, unless `one_way` is off.
    """
    full = {part: FULL_BITS for part in PARTS if part not in frame}
    rows = applicable_rows(ANY["kumar_neff"], frame.assign(**full), one_way=one_way).frame
    numbers(rows, "loss", positive=True)
    return rows.assign(D=nominal_tokens)


def from_the_start(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that are no branch of another: those have the settings of their parent as well."""
    return rows[rows["parent_id"].isna()] if "parent_id" in rows else rows


def alone(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Rows whose other parts are at 16 bits."""
    return rows[(rows[[p for p in PARTS if p != part]] >= FULL_BITS).all(axis=1)]


def tied(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose parts all have one width."""
    return rows[(rows["P_w"] == rows["P_a"]) & (rows["P_w"] == rows["P_kv"])]


def low(rows: pd.DataFrame) -> pd.Series:
    """Which rows were trained with some part below 16 bits."""
    return (rows[list(PARTS)] < FULL_BITS).any(axis=1)


def qat_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """The low-precision ones of `rows` with gap_qat and gap_qat_se in nats (NaN where unknown).

    The table's gap_qat, and where it has none the loss minus that of the unquantized runs of the same N, D, seeds and
    recipe; rows without either are left out.
    """
    below = low(rows)
    cell = [c for c in TWIN if c in rows]
    base = rows[~below].groupby(cell, dropna=False)["loss"].mean().rename("base").reset_index()
    paired = rows[below].merge(base, on=cell, how="left")
    own = paired["gap_qat"] if "gap_qat" in paired else pd.Series(np.nan, index=paired.index)
    error = paired["gap_qat_se"] if "gap_qat_se" in paired else pd.Series(np.nan, index=paired.index)
    paired = paired.assign(gap_qat=own.fillna(paired["loss"] - paired["base"]), gap_qat_se=error)
    return paired[np.isfinite(paired["gap_qat"])]


class NoRowsError(InputError):
    """A table without rows of the kind that is asked for."""


def quantized(frame: pd.DataFrame, law: str | Fit) -> pd.DataFrame:
    """Rows to which a gap law or a fit of one applies, with gap_se (0 where unknown): one quantizer at one setting.
    D is exact, as predictions need it; `table.nominal_tokens` groups rows by it.

    Raises:
        InputError: there is none, or a gap that is not a number.
    """
    if isinstance(law, Fit) or law in ANY:
        frame = frame.assign(**{part: FULL_BITS for part in PARTS if part not in frame})
    if isinstance(law, Fit):
        rows = rows_of(law.law, law.filter, frame).frame
    else:
        rows = applicable_rows(ANY.get(law, LAWS[law]), frame).frame
    if rows.empty:
        raise NoRowsError("no row is quantized after training; expected rows with ptq, P_post and gap")
    for column in ("P_post", "gap"):
        numbers(rows, column)
    return rows.assign(gap_se=gap_errors(rows)).reset_index(drop=True)


def was_fitted(rows: pd.DataFrame, predicted: np.ndarray) -> np.ndarray:
    """Which gaps the default options fit: those in the range of bits whose predicted gap is not too large."""
    default = Options()
    return rows["P_post"].between(*default.bits).to_numpy() & (predicted < default.gap_below)


def constants(fit: Fit) -> dict[str, float]:
    return {**fit.law.constants, **fit.params}


def band(fit: Fit, curve: Callable[[Mapping], np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The 95% band of a curve (n,) that follows from the constants, from the fit's draws; None where it has none."""
    if fit.draws is None:
        return None
    moved = {symbol: fit.draws[:, [j]] for j, symbol in enumerate(fit.law.symbols)}
    with np.errstate(all="ignore"):
        centre, values = curve(constants(fit)), curve({**fit.law.constants, **moved})
        # Draws without a value (no effective parameters) count as the lowest there is.
        ends = np.percentile(np.where(np.isnan(values), -np.inf, values), TAILS, axis=0, method="nearest")
        low, high = np.where(np.isnan(centre), ends, centre + fit.bootstrap.reach * (ends - centre))
    return low, high


def first_of(fits: Mapping[str, Fit], names: Sequence[str], parts: Iterable[str] = ()) -> Fit | None:
    """The first of these laws that was fitted and knows these parts."""
    known = (fits[name] for name in names if name in fits)
    return next((fit for fit in known if {*parts} <= {*fit.law.variables}), None)


def at(frame: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows that have these values in the columns of these names."""
    keep = np.ones(len(frame), bool)
    for column, value in values.items():
        keep &= (frame[column] == value).to_numpy()
    return frame[keep]


def curve(fit: Fit, response: str, **variables) -> pd.DataFrame:
    """Predictions of the law (NaN: none) at these variables, all parts that are not among them being at 16 bits."""
    grid = pd.DataFrame(variables).assign(**{part: FULL_BITS for part in PARTS if part not in variables})
    return grid.assign(**{response: fit.predict(grid)}, kind="law")


def together(parts: Iterable[pd.DataFrame], columns: list[str] | None = None, **attrs) -> pd.DataFrame:
    """The numbers of a figure, put together from their parts; `attrs`: what else it says."""
    numbers = pd.concat(parts, ignore_index=True)
    numbers = numbers if columns is None else numbers[columns]
    numbers.attrs = attrs
    return numbers


def stated(fit: Fit | None, symbols: Mapping[str, str], mark: str = ", ") -> str:
    """Parameters of a fit with their intervals, as symbols of figures; empty without one."""
    known = {} if fit is None else symbols
    return mark.join(style.stated(text, fit.params[s], *fit.interval(s)) for s, text in known.items())


def above_zero(rows: pd.DataFrame, column: str, reason: str) -> pd.Series:
    """Values that a logarithmic axis has room for.

    Raises:
        InputError: there is none, for this `reason`.
    """
    values = rows.loc[rows[column] > LOWEST, column]
    if values.empty:
        raise InputError(reason)
    return values


def own_fit(frame: pd.DataFrame, fits: Mapping[str, Fit], name: str, **options) -> Fit | None:
    """The fit of that law among `fits`, or one made here, without intervals unless `options` say so; None where the
    table lacks rows for it."""
    if name in fits:
        return fits[name]
    try:
        return fit(name, frame, **({"bootstrap": 0} | options))
    except InputError:
        return None


def most_frequent(values: pd.Series):
    """The commonest value, the smallest of several; NaN, which equals nothing, where none is known."""
    counts = values.value_counts()
    return min(counts.index, key=lambda v: (-counts[v], v), default=np.nan)


def r2(actual, predicted) -> float:
    """1 - SS_residual / SS_total; NaN with fewer than three points or without variation."""
    actual, predicted = np.asarray(actual, float), np.asarray(predicted, float)
    total = float(np.sum((actual - actual.mean()) ** 2)) if len(actual) > 2 else 0.0
    return 1 - float(np.sum((actual - predicted) ** 2)) / total if total > 0 else float("nan")


def one_way_of(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Of the rows with this part below 16 bits, those in the most frequent way."""
    ways = ways_in_training(rows, part)
    return rows[ways.isna() | (ways == most_frequent(ways))] if ways.notna().any() else rows
