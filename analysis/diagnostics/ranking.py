"""One ranking: laws that can all be fitted on one set of rows, ordered by how well they predict a part held out.

`compare` finds the sets of rows. Gap laws hold for small gaps, and which gaps are small is what each of them predicts:
fitted to all rows of the ranking, they all have to predict less than `gap_below` for a row to be in it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from analysis.diagnostics.holdout import (
    WORST,
    HeldOut,
    Holdout,
    Measures,
    Trained,
    groups,
    measures,
    predict_held_out,
    small_gaps,
    split,
    upsets,
)
from analysis.errors import InputError
from analysis.fitting.options import Options
from analysis.fitting.selection import Selection

ALIKE = 6  # digits of the RMSE in which laws that are one law for this table agree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One law in a ranking. `rank` is None where a held-out row has no prediction: `notes` say which and why.

    `status` is the worst of its fits. `upset` is the share of draws of clusters in which it beats the first of the
    ranking, NaN for that one itself and with fewer than four clusters.
    """

    law: str
    rank: int | None
    parameters: int
    status: str
    measures: Measures
    upset: float
    fits: list[Trained]
    notes: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Laws of one response on one set of rows, the best first.

    `excluded`: why other laws of this response are not here. `left_out`: why other rows are not. `predictions`: the
    held-out rows with their fold, the response and what each law predicts, in nats; index: that of the table.
    """

    response: str
    rows: int
    groups: str
    folds: list[tuple[str, int, int]]
    """Label, rows fitted, rows predicted."""
    scores: list[Score]
    excluded: dict[str, str]
    left_out: dict[str, int]
    warnings: list[str]
    predictions: pd.DataFrame


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Laws of one response, and how they are compared: `alone`, by name, what each would be fitted on of `rows` by
    itself."""

    response: str
    rows: pd.DataFrame
    alone: Mapping[str, Selection]
    holdout: Holdout
    options: Options


def rank(
    candidates: Candidates, shared: frozenset, members: Mapping[str, Selection], progress: Callable[[str], None]
) -> Ranking:
    """The ranking of `members`, with what each is fitted on, on the rows whose label is in `shared`.

    Raises:
        InputError: no row is left, the hold-out cannot be made, or not one law can be scored.
    """
    kind, rows, alone, options = candidates.response, candidates.rows, candidates.alone, candidates.options
    used, excluded = (shared, {}) if kind == "loss" else small_gaps(members, options)
    if not used:
        raise InputError("; ".join(dict.fromkeys(excluded.values())) or "no row has a small gap for every law")
    frame = rows[rows.index.isin(used)]
    folds = split(frame, candidates.holdout)
    # Rows are already those of small gaps: no law may leave out others of its own.
    plain = dataclasses.replace(options, gap_below=math.inf)
    predicted: dict[str, HeldOut] = {}
    for law in sorted(members.keys() - excluded.keys()):
        progress(f"{kind}: {law} on {len(frame)} rows, {len(folds)} held-out part{'s' if len(folds) > 1 else ''}")
        own = members[law].frame
        one = predict_held_out(members[law].law, own[own.index.isin(used)], folds, plain)
        if one.fitted:
            predicted[law] = one
        else:
            excluded[law] = one.fits[0].reason
    if not predicted:
        raise InputError("; ".join(dict.fromkeys(excluded.values())))
    for law in alone.keys() - members.keys():
        described = len(shared & set(alone[law].frame.index))
        only = described < len(shared)
        excluded[law] = f"describes only {described} of these rows" if only else "cannot be fitted on these rows alone"
    held = np.logical_or.reduce([fold.test for fold in folds])
    scores = _scores(frame, kind, predicted, held, candidates.holdout.seed)
    nearest = min((alone[law] for law in members), key=lambda selection: len(selection.frame))
    left_out = nearest.left_out | {
        "not used by every law here": len(nearest.frame) - len(shared),
        f"gap of {options.gap_below:g} nats or more predicted by a law here": len(shared) - len(used),
    }
    part = np.full(len(frame), "", object)
    for fold in folds:
        part[fold.test] = fold.label
    columns = {"fold": part, kind: frame[kind], **{score.law: predicted[score.law].prediction for score in scores}}
    return Ranking(
        response=kind,
        rows=len(frame),
        groups=groups(frame)[0],
        folds=[(fold.label, int(fold.train.sum()), int(fold.test.sum())) for fold in folds],
        scores=scores,
        excluded=dict(sorted(excluded.items())),
        left_out={reason: count for reason, count in left_out.items() if count},
        warnings=list(dict.fromkeys(w for law in sorted(predicted) for w in members[law].warnings)),
        predictions=frame[["N", "D"]].assign(**columns)[held],
    )


def _scores(
    frame: pd.DataFrame, kind: str, predicted: Mapping[str, HeldOut], held: np.ndarray, seed: int
) -> list[Score]:
    """The laws in `predicted`, the best first; `held` (n,) are the rows that count."""
    scored = {law: measures(frame, kind, one.prediction, held) for law, one in predicted.items()}
    whole = {law: m.predicted == m.rows for law, m in scored.items()}
    parameters = {law: len(one.law.parameters) for law, one in predicted.items()}

    def place(law: str):
        error = scored[law].rmse
        rounded = float(f"{error:.{ALIKE - 1}e}") if math.isfinite(error) else math.inf
        return not whole[law], rounded, parameters[law], law

    order = sorted(scored, key=place)
    _, label = groups(frame)
    errors = {law: (predicted[law].prediction - frame[kind].to_numpy(float))[held] for law in order}
    scores = []
    for rank, law in enumerate(order, start=1):
        fits = predicted[law].fits
        missing = scored[law].rows - scored[law].predicted
        notes = [f"no prediction for {missing} of {scored[law].rows} held-out rows: not ranked"] if missing else []
        for reason in dict.fromkeys(trained.reason for trained in fits if trained.reason):
            first, *more = [label for trained in fits if trained.reason == reason for label in trained.labels]
            notes.append(f"{first}{f' and {len(more)} more' if more else ''}: {reason.removeprefix(f'{law}: ')}")
        twins = [name for name in order[: rank - 1] if place(name)[:2] == place(law)[:2] and whole[law]]
        notes += [f"predicts the same as {twins[0]}"] if twins else []
        rival = rank > 1 and whole[law]
        scores.append(
            Score(
                law=law,
                rank=rank if whole[law] else None,
                parameters=parameters[law],
                status=max((trained.status for trained in fits), key=WORST.index),
                measures=scored[law],
                upset=upsets(errors[order[0]], errors[law], label[held], seed) if rival else math.nan,
                fits=fits,
                notes=notes,
            )
        )
    return scores
