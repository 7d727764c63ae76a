"""One ranking: laws that can all be fitted on one set of rows, ordered by how well they foretell a part held out.

`compare` finds the sets of rows. Gap laws hold for small gaps, and which gaps are small is what each of them predicts:
fitted to all rows of the ranking, they all have to predict less than `gap_below` for a row to be in it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from analysis.diagnostics.holdout import WORST, Measures, Trained, foretell, groups, measures, small_gaps, split, upsets
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
    held-out rows with their fold, the response and what each law foretold, in nats; index: that of the table.
    """

    response: str
    rows: int
    groups: str
    folds: list[tuple[str, int, int]]
    """Label, rows fitted, rows foretold."""
    scores: list[Score]
    excluded: dict[str, str]
    left_out: dict[str, int]
    warnings: list[str]
    predictions: pd.DataFrame


def rank(
    rows: pd.DataFrame,
    kind: str,
    shared: frozenset,
    members: Mapping[str, Selection],
    alone: Mapping[str, Selection],
    how: tuple[str, int, int],
    options: Options,
    progress: Callable[[str], None],
) -> Ranking:
    """The ranking of `members`, laws of the response `kind` with what each is fitted on, on those of `rows` whose label
    is in `shared`; held out as `how` (name, seed, folds) says. `alone`: all laws of that response, on all their rows.

    Raises:
        InputError: no row is left, the hold-out cannot be made, or not one law can be scored.
    """
    kept, excluded = (shared, {}) if kind == "loss" else small_gaps(members, options)
    if not kept:
        raise InputError("; ".join(dict.fromkeys(excluded.values())) or "no row has a small gap for every law")
    frame = rows[rows.index.isin(kept)]
    folds = split(frame, how[0], seed=how[1], folds=how[2])
    # Rows are already those of small gaps: no law may leave out others of its own.
    plain = dataclasses.replace(options, gap_below=math.inf)
    told, fits = {}, {}
    for law in sorted(members.keys() - excluded.keys()):
        progress(f"{kind}: {law} on {len(frame)} rows, {len(folds)} held-out part{'s' if len(folds) > 1 else ''}")
        own = members[law].frame
        told[law], fits[law] = foretell(members[law].law, own[own.index.isin(kept)], folds, plain)
        if all(trained.reason for trained in fits[law]):
            excluded[law] = fits[law][0].reason
            del told[law]
    if not told:
        raise InputError("; ".join(dict.fromkeys(excluded.values())))
    for law in alone.keys() - members.keys():
        used = len(shared & set(alone[law].frame.index))
        only = used < len(shared)
        excluded[law] = f"describes only {used} of these rows" if only else "cannot be fitted on these rows alone"
    name, label = groups(frame)
    held = np.logical_or.reduce([fold.test for fold in folds])
    scores = _scores(frame, kind, members, told, fits, held, label, how[1])
    nearest = min((alone[law] for law in members), key=lambda selection: len(selection.frame))
    left_out = nearest.left_out | {
        "not used by every law here": len(nearest.frame) - len(shared),
        f"gap of {options.gap_below:g} nats or more predicted by a law here": len(shared) - len(kept),
    }
    part = np.full(len(frame), "", object)
    for fold in folds:
        part[fold.test] = fold.label
    columns = {"fold": part, kind: frame[kind], **{score.law: told[score.law] for score in scores}}
    return Ranking(
        response=kind,
        rows=len(frame),
        groups=name,
        folds=[(fold.label, int(fold.train.sum()), int(fold.test.sum())) for fold in folds],
        scores=scores,
        excluded=dict(sorted(excluded.items())),
        left_out={reason: count for reason, count in left_out.items() if count},
        warnings=list(dict.fromkeys(w for law in sorted(told) for w in members[law].warnings)),
        predictions=frame[["N", "D"]].assign(**columns)[held],
    )


def _scores(
    frame: pd.DataFrame,
    kind: str,
    members: Mapping[str, Selection],
    told: Mapping[str, np.ndarray],
    fits: Mapping[str, list[Trained]],
    held: np.ndarray,
    label: np.ndarray,
    seed: int,
) -> list[Score]:
    """The laws in `told`, the best first. `told` (n,) is what each foretold, `held` (n,) where that counts, `label`
    (n,) the group of each row."""
    found = {law: measures(frame, kind, prediction, held) for law, prediction in told.items()}
    whole = {law: m.predicted == m.rows for law, m in found.items()}

    def place(law: str):
        error = found[law].rmse
        rounded = float(f"{error:.{ALIKE - 1}e}") if math.isfinite(error) else math.inf
        return not whole[law], rounded, len(members[law].law.parameters), law

    order = sorted(found, key=place)
    errors = {law: (told[law] - frame[kind].to_numpy(float))[held] for law in order}
    made = []
    for rank, law in enumerate(order, start=1):
        missing = found[law].rows - found[law].predicted
        notes = [f"no prediction for {missing} of {found[law].rows} held-out rows: not ranked"] if missing else []
        for reason in dict.fromkeys(trained.reason for trained in fits[law] if trained.reason):
            first, *more = [label for trained in fits[law] if trained.reason == reason for label in trained.labels]
            notes.append(f"{first}{f' and {len(more)} more' if more else ''}: {reason.removeprefix(f'{law}: ')}")
        twins = [name for name in order[: rank - 1] if place(name)[:2] == place(law)[:2] and whole[law]]
        notes += [f"foretells the same as {twins[0]}"] if twins else []
        rival = rank > 1 and whole[law]
        made.append(
            Score(
                law=law,
                rank=rank if whole[law] else None,
                parameters=len(members[law].law.parameters),
                status=max((trained.status for trained in fits[law]), key=WORST.index),
                measures=found[law],
                upset=upsets(errors[order[0]], errors[law], label[held], seed) if rival else math.nan,
                fits=fits[law],
                notes=notes,
            )
        )
    return made
