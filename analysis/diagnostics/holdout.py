"""Hold-outs: which rows a law is fitted on, which it must predict, and how far off it was.

`N`, `D`      the largest size, or the longest training, is predicted from all others; D as `table.nominal_tokens`
`both`        neither is fitted; what is predicted has both, where the table has such rows, else either
`random`      folds of whole groups, the groups of one N spread over the folds
`cell`        each (N, D) in turn, without any row of a group that has rows in it

A group is what shares its noise: the column `cluster`, else `run_id`, else a row. With chains that run through all D a
held-out cell therefore takes its whole N out of the fit.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import table
from analysis.errors import InputError
from analysis.fitting.estimate import fit_rows
from analysis.fitting.intervals import LEAST_CLUSTERS
from analysis.fitting.options import Options
from analysis.fitting.quality import diagnose, r2
from analysis.fitting.selection import Selection, enough, select
from analysis.laws.law import Law

HOLDOUTS = ("N", "D", "both", "random", "cell")
FOLDS = 5
UPSET_DRAWS = 2000
WORST = ("ok", "at_bound", "not_converged", "unidentified", "not fitted")  # statuses from good to bad


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holdout:
    """One of `HOLDOUTS`; `seed` and the number of `folds` are for `random`."""

    name: str
    seed: int = 0
    folds: int = FOLDS

    def __post_init__(self):
        if self.name not in HOLDOUTS:
            raise InputError(f"holdout={self.name}: use one of {', '.join(HOLDOUTS)}")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: expected a number of 0 or above")
        if self.folds < 2:
            raise InputError(f"folds={self.folds}: expected at least 2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
    """Rows to fit and rows to predict, (n,) each; in every fold they have no row in common."""

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
class HeldOut:
    """A law's predictions (n,) in nats for the held-out rows, NaN for others and where it has none, and its fits."""

    law: Law
    prediction: np.ndarray
    fits: list[Trained]

    @property
    def fitted(self) -> bool:
        """Whether any part could be fitted."""
        return not all(trained.reason for trained in self.fits)


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


def groups(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What shares its noise (cluster, run_id or row), and the number (n,) of each row's group, by sorted label."""
    for name in ("cluster", "run_id"):
        if name in frame and frame[name].notna().all():
            return name, np.unique(frame[name].astype(str), return_inverse=True)[1]
    return "row", np.arange(len(frame))


def split(frame: pd.DataFrame, holdout: Holdout) -> list[Fold]:
    """The folds of a hold-out, by N and D. Rows without a group keep the order.

    Raises:
        InputError: the table has too few values of N or D, or too few groups, for it.
    """
    if holdout.name == "random":
        return _random(frame, holdout.seed, holdout.folds)
    if holdout.name == "cell":
        return _cells(frame)
    top = {}
    for symbol in ("N", "D") if holdout.name == "both" else (holdout.name,):
        values = table.nominal_tokens(frame) if symbol == "D" else frame[symbol].to_numpy(float)
        top[symbol] = values == values.max()
        if top[symbol].all():
            raise InputError(
                f"holdout={holdout.name}: {symbol} is {values.max():g} in all rows, needs two different values"
            )
    away, test = np.logical_or.reduce([*top.values()]), np.logical_and.reduce([*top.values()])
    label = " and ".join(f"{symbol} = {frame[symbol].max():g}" for symbol in top)
    if not test.any():
        test, label = away, label.replace(" and ", " or ")
    if away.all():
        raise InputError(f"holdout={holdout.name}: all rows have {label.replace(' and ', ' or ')}, none is left to fit")
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
    pairs = np.column_stack([frame["N"].to_numpy(float), table.nominal_tokens(frame)])
    cells, cell = np.unique(pairs, axis=0, return_inverse=True)
    if len(cells) < 2:
        raise InputError(f"holdout=cell: all rows have N = {cells[0, 0]:g} and D = {cells[0, 1]:g}, needs two cells")
    folds = []
    for i, (size, tokens) in enumerate(cells):
        test = cell.ravel() == i
        train = ~np.isin(label, np.unique(label[test]))
        folds.append(Fold(label=f"N = {size:g}, D = {tokens:g}", train=train, test=test))
    return folds


def shared_rows(
    laws: Mapping[str, Law], alone: Mapping[str, Selection], rows: pd.DataFrame, options: Options
) -> list[tuple[frozenset, dict[str, Selection]]]:
    """Sets of rows (labels of the index) with the laws that can be fitted on just these, those with most laws first.

    The sets are the rows of each law in `alone`, what it would be fitted on by itself, and what these have in common.
    """
    sets = {frozenset(selection.frame.index) for selection in alone.values()}
    while len(wider := sets | {a & b for a, b in itertools.combinations(sets, 2) if a & b}) > len(sets):
        sets = wider
    fitted_on: dict[frozenset, dict[str, Selection]] = {}
    for shared in sets:
        fitted_on[shared] = {}
        for name in (name for name, selection in alone.items() if shared <= set(selection.frame.index)):
            try:
                selection = select(laws[name], rows[rows.index.isin(shared)], bits=options.bits)
            except InputError:
                continue
            if len(selection.frame) == len(shared):
                fitted_on[shared][name] = selection

    def needed(shared: frozenset, members: dict) -> bool:
        if any(shared < other and members.keys() <= more.keys() for other, more in fitted_on.items()):
            return False
        if len(members) != 1:
            return len(members) > 1
        return not any(members.keys() < more.keys() for more in fitted_on.values())

    chosen = [pair for pair in fitted_on.items() if needed(*pair)]
    return sorted(chosen, key=lambda pair: (-len(pair[1]), -len(pair[0]), sorted(pair[1])))


def small_gaps(members: Mapping[str, Selection], options: Options) -> tuple[frozenset, dict[str, str]]:
    """Rows (labels of the index) whose gap each law, fitted to all rows, predicts to be below `options.gap_below`; and
    the laws that cannot be fitted, with the reason."""
    small, excluded = [], {}
    for law, selection in members.items():
        try:
            small.append(frozenset(fit_rows(selection.law, selection.frame, options).frame.index))
        except InputError as fault:
            excluded[law] = str(fault)
    return (frozenset.intersection(*small) if small else frozenset()), excluded


def predict_held_out(law: Law, frame: pd.DataFrame, folds: list[Fold], options: Options) -> HeldOut:
    """What `law` predicts for the held-out rows of each fold, fitted to the others.

    It has no prediction where the law has no value, where the training part is too small for it, and where the
    prediction depends on a parameter that no training row depends on (a scheme never fitted).
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
        unseen = ~np.any(law.gradient(params, train)[1] != 0, axis=0)
        for fold in shared:
            value, slopes = law.gradient(params, frame[fold.test])
            prediction[fold.test] = np.where(np.any(slopes[:, unseen] != 0, axis=1), np.nan, value)
    return HeldOut(law=law, prediction=prediction, fits=fits)


def measures(frame: pd.DataFrame, response: str, prediction: np.ndarray, test: np.ndarray) -> Measures:
    """How far `prediction` (n,) was off the column `response` on the rows `test` (n,)."""
    y = frame[response].to_numpy(float)
    scored = test & np.isfinite(prediction)
    error = (prediction - y)[scored]
    if not scored.any():
        nothing = dict.fromkeys(("rmse", "mae", "bias", "log_rmse", "r2"), np.nan)
        return Measures(rows=int(test.sum()), predicted=0, r2_within={}, **nothing)
    logs = np.log(prediction[scored] / y[scored]) if response == "loss" else np.full(1, np.nan)
    within = {}
    if response != "loss" and "P_post" in frame:
        width = frame["P_post"].to_numpy(float)
        for bits in np.unique(width[scored]):
            rows = scored & (width == bits)
            if rows.sum() > 2:
                within[f"{bits:g}"] = r2(y[rows], prediction[rows])
    return Measures(
        rows=int(test.sum()),
        predicted=int(scored.sum()),
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        bias=float(np.mean(error)),
        log_rmse=float(np.sqrt(np.mean(logs**2))),
        r2=r2(y[scored], prediction[scored]),
        r2_within=within,
    )


def upsets(best: np.ndarray, other: np.ndarray, label: np.ndarray, seed: int) -> float:
    """Share of draws of groups in which `other` has the smaller sum of squared errors; both (m,) in nats.

    Groups `label` (m,) are weighed by exponential variates, as for intervals. NaN with fewer than four groups.
    """
    label = np.unique(label, return_inverse=True)[1]
    if label.max() + 1 < LEAST_CLUSTERS:
        return float("nan")
    behind = np.bincount(label, weights=other**2 - best**2)
    weights = np.random.default_rng(seed).standard_exponential((UPSET_DRAWS, len(behind)))
    return float(np.mean(weights @ behind < 0))
