"""Hold-outs: which rows a law is fitted on, which it must foretell, and how far off it was.

`N`, `D`      the largest size, or the longest training, is foretold from all others
`both`        neither is fitted; what is foretold has both, where the table has such rows, else either
`random`      folds of whole groups, the groups of one N spread over the folds
`cell`        each (N, D) in turn, without any row of a group that has rows in it

A group is what shares its luck: the column `cluster`, else `run_id`, else a row. With chains that run through all D a
held-out cell therefore takes its whole N out of the fit.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fitting.estimate import fit_rows
from analysis.fitting.intervals import LEAST_CLUSTERS
from analysis.fitting.options import Options
from analysis.fitting.quality import diagnose
from analysis.fitting.selection import Selection, enough, select
from analysis.laws.law import Law

HOLDOUTS = ("N", "D", "both", "random", "cell")
FOLDS = 5
DRAWS = 2000
WORST = ("ok", "at_bound", "not_converged", "unidentified", "not fitted")  # statuses from good to bad


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
    """Rows to fit and rows to foretell, (n,) each; in every fold they have no row in common."""

    label: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A law fitted on one training part, for the folds `labels`; without `params` where `reason` forbade it."""

    labels: tuple[str, ...]
    rows: int
    status: str
    params: dict[str, float]
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """Errors, prediction minus observation, over the held-out rows that have a prediction: `predicted` of `rows`.

    `rmse`, `mae` and `bias` in nats. `log_rmse` is of ln(prediction / loss), NaN for gaps. `r2` is relative to the mean
    of the held-out rows, `r2_within` the same for each width after quantization.
    """

    rows: int
    predicted: int
    rmse: float
    mae: float
    bias: float
    log_rmse: float
    r2: float
    r2_within: dict[str, float]


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in an order that follows from what they hold, so that nothing hangs on how they came."""
    numeric = pd.api.types.is_numeric_dtype
    return frame.sort_values(sorted(frame.columns), key=lambda c: c if numeric(c) else c.astype(str), kind="stable")


def groups(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What shares its luck (cluster, run_id or row), and the number (n,) of each row's group, by sorted label."""
    for name in ("cluster", "run_id"):
        if name in frame and frame[name].notna().all():
            return name, np.unique(frame[name].astype(str), return_inverse=True)[1]
    return "row", np.arange(len(frame))


def check(holdout: str, *, seed: int, folds: int) -> None:
    """Raises InputError unless these are a hold-out, a seed and a number of folds."""
    if holdout not in HOLDOUTS:
        raise InputError(f"holdout={holdout}: use one of {', '.join(HOLDOUTS)}")
    if seed < 0:
        raise InputError(f"seed={seed}: expected a number of 0 or above")
    if folds < 2:
        raise InputError(f"folds={folds}: expected at least 2")


def split(frame: pd.DataFrame, holdout: str, *, seed: int = 0, folds: int = FOLDS) -> list[Fold]:
    """The folds of a hold-out, by N and D; `seed` and `folds` are for `random`. Rows without a group keep the order.

    Raises:
        InputError: no such hold-out, or the table has too few values of N or D, or too few groups, for it.
    """
    check(holdout, seed=seed, folds=folds)
    if holdout == "random":
        return _random(frame, seed, folds)
    if holdout == "cell":
        return _cells(frame)
    top = {}
    for symbol in ("N", "D") if holdout == "both" else (holdout,):
        values = frame[symbol].to_numpy(float)
        top[symbol] = values == values.max()
        if top[symbol].all():
            raise InputError(f"holdout={holdout}: {symbol} is {values.max():g} in all rows, needs two different values")
    away, test = np.logical_or.reduce([*top.values()]), np.logical_and.reduce([*top.values()])
    label = " and ".join(f"{symbol} = {frame[symbol].max():g}" for symbol in top)
    if not test.any():
        test, label = away, label.replace(" and ", " or ")
    if away.all():
        raise InputError(f"holdout={holdout}: all rows have {label.replace(' and ', ' or ')}, none is left to fit")
    return [Fold(label=label, train=~away, test=test)]


def _random(frame: pd.DataFrame, seed: int, folds: int) -> list[Fold]:
    name, label = groups(frame)
    count = int(label.max()) + 1
    if count < 2:
        raise InputError(f"holdout=random: all rows are of one {name}, needs at least two to part")
    size = pd.Series(frame["N"].to_numpy(float)).groupby(label).min().to_numpy()
    shuffled = np.random.default_rng(seed).permutation(count)
    # One N after the other, so that its groups fall into different folds and the others still hold it.
    order = shuffled[np.argsort(size[shuffled], kind="stable")]
    fold = np.empty(count, int)
    fold[order] = np.arange(count) % folds
    return [
        Fold(label=f"fold {i + 1}", train=fold[label] != i, test=fold[label] == i) for i in range(min(folds, count))
    ]


def _cells(frame: pd.DataFrame) -> list[Fold]:
    _, label = groups(frame)
    pairs = frame[["N", "D"]].to_numpy(float)
    cells, cell = np.unique(pairs, axis=0, return_inverse=True)
    if len(cells) < 2:
        raise InputError(f"holdout=cell: all rows have N = {cells[0, 0]:g} and D = {cells[0, 1]:g}, needs two cells")
    made = []
    for i, (size, tokens) in enumerate(cells):
        test = cell.ravel() == i
        made.append(
            Fold(label=f"N = {size:g}, D = {tokens:g}", train=~np.isin(label, np.unique(label[test])), test=test)
        )
    return made


def shared_rows(
    laws: Mapping[str, Law], alone: Mapping[str, Selection], rows: pd.DataFrame, options: Options
) -> list[tuple[frozenset, dict[str, Selection]]]:
    """Sets of rows (labels of the index) with the laws that can be fitted on just these, those with most laws first.

    The sets are the rows of each law in `alone`, what it would be fitted on by itself, and what these have in common.
    """
    sets = {frozenset(selection.frame.index) for selection in alone.values()}
    while len(wider := sets | {a & b for a, b in itertools.combinations(sets, 2) if a & b}) > len(sets):
        sets = wider
    found = {}
    for shared in sets:
        found[shared] = {}
        for name in (name for name, selection in alone.items() if shared <= set(selection.frame.index)):
            try:
                selection = select(laws[name], rows[rows.index.isin(shared)], bits=options.bits)
            except InputError:
                continue
            if len(selection.frame) == len(shared):
                found[shared][name] = selection

    def needed(shared: frozenset, members: dict) -> bool:
        if any(shared < other and members.keys() <= more.keys() for other, more in found.items()):
            return False
        return len(members) > 1 or (len(members) == 1 and not any(members.keys() < m.keys() for m in found.values()))

    kept = [pair for pair in found.items() if needed(*pair)]
    return sorted(kept, key=lambda pair: (-len(pair[1]), -len(pair[0]), sorted(pair[1])))


def small_gaps(members: Mapping[str, Selection], options: Options) -> tuple[frozenset, dict[str, str]]:
    """Rows (labels of the index) whose gap each law, fitted to all rows, predicts to be below `options.gap_below`; and
    the laws that cannot be fitted, with the reason."""
    kept, excluded = [], {}
    for law, selection in members.items():
        try:
            kept.append(frozenset(fit_rows(selection.law, selection.frame, options).frame.index))
        except InputError as fault:
            excluded[law] = str(fault)
    return (frozenset.intersection(*kept) if kept else frozenset()), excluded


def foretell(law: Law, frame: pd.DataFrame, folds: list[Fold], options: Options) -> tuple[np.ndarray, list[Trained]]:
    """Predictions (n,) in nats of `law` for the held-out rows, and its fits; NaN where it could not say.

    It cannot where the law has no value, where the training part is too small for it, and where the prediction hangs
    on a parameter that no training row depends on (a scheme never fitted).
    """
    prediction = np.full(len(frame), np.nan)
    by_training: dict[bytes, list[Fold]] = {}
    for fold in folds:
        by_training.setdefault(fold.train.tobytes(), []).append(fold)
    fits = []
    for shared in by_training.values():
        train = frame[shared[0].train]
        labels = tuple(fold.label for fold in shared)
        try:
            enough(law, train, left_out=0)
            fitted = fit_rows(law, train, options)
        except InputError as fault:
            fits.append(Trained(labels=labels, rows=len(train), status="not fitted", params={}, reason=str(fault)))
            continue
        params = fitted.params
        status = diagnose(fitted).status
        fits.append(Trained(labels=labels, rows=len(fitted.frame), status=status, params=params))
        deaf = ~np.any(law.gradient(params, train)[1] != 0, axis=0)
        for fold in shared:
            value, slopes = law.gradient(params, frame[fold.test])
            prediction[fold.test] = np.where(np.any(slopes[:, deaf] != 0, axis=1), np.nan, value)
    return prediction, fits


def measures(frame: pd.DataFrame, response: str, prediction: np.ndarray, test: np.ndarray) -> Measures:
    """How far `prediction` (n,) was off the column `response` on the rows `test` (n,)."""
    y = frame[response].to_numpy(float)
    found = test & np.isfinite(prediction)
    error = (prediction - y)[found]
    if not found.any():
        nothing = dict.fromkeys(("rmse", "mae", "bias", "log_rmse", "r2"), np.nan)
        return Measures(rows=int(test.sum()), predicted=0, r2_within={}, **nothing)
    logs = np.log(prediction[found] / y[found]) if response == "loss" else np.full(1, np.nan)
    within = {}
    if response != "loss" and "P_post" in frame:
        width = frame["P_post"].to_numpy(float)
        for bits in np.unique(width[found]):
            rows = found & (width == bits)
            if rows.sum() > 2:
                within[f"{bits:g}"] = _r2(y[rows], prediction[rows])
    return Measures(
        rows=int(test.sum()),
        predicted=int(found.sum()),
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        bias=float(np.mean(error)),
        log_rmse=float(np.sqrt(np.mean(logs**2))),
        r2=_r2(y[found], prediction[found]),
        r2_within=within,
    )


def _r2(y: np.ndarray, prediction: np.ndarray) -> float:
    total = np.sum((y - y.mean()) ** 2)
    return float(1 - np.sum((y - prediction) ** 2) / total) if total > 0 else float("nan")


def upsets(best: np.ndarray, other: np.ndarray, label: np.ndarray, seed: int) -> float:
    """Share of draws of groups in which `other` has the smaller sum of squared errors; both (m,) in nats.

    Groups `label` (m,) are weighed by exponential variates, as for intervals. NaN with fewer than four groups.
    """
    label = np.unique(label, return_inverse=True)[1]
    if label.max() + 1 < LEAST_CLUSTERS:
        return float("nan")
    behind = np.bincount(label, weights=other**2 - best**2)
    weights = np.random.default_rng(seed).standard_exponential((DRAWS, len(behind)))
    return float(np.mean(weights @ behind < 0))
