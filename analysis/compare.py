"""Ranks laws by how well they foretell rows that they were not fitted on. `python -m analysis compare --help`.

A comparison is only one of laws if the rows are the same, in the fit and in the score. So each ranking is of the laws
that can use one set of rows: the rows of some law, or what several have in common. A law that describes training in low
precision and one that does not share no such set that both can be fitted on, and are ranked apart; a law may be in more
than one ranking. Gap laws hold for small gaps, and which gaps are small is what each of them predicts: fitted to all
rows of the ranking, they all have to predict less than `gap_below` for a row to be in it.

Nothing heavier than argparse is imported before something is compared.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.holdout import Measures, Trained
    from analysis.law import Law
    from analysis.options import Options
    from analysis.selection import Selection

SCHEMA = 1
ALIKE = 6  # digits of the RMSE in which laws that are one law for this table agree
RESPONSES = ("loss", "gap", "gap_qat")


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
    measures: "Measures"
    upset: float
    fits: "list[Trained]"
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
    predictions: "pd.DataFrame"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rankings that a table allows, and why the other laws are in none."""

    holdout: str
    seed: int
    filter: str
    rows: int
    rankings: list[Ranking]
    skipped: dict[str, str]

    def to_json(self) -> dict:
        """Plain JSON values; eight digits, NaN as null, predictions left out."""
        rankings = [
            {f.name: getattr(r, f.name) for f in dataclasses.fields(r) if f.name not in ("predictions", "scores")}
            | {"scores": [dataclasses.asdict(score) for score in r.scores]}
            for r in self.rankings
        ]
        plain = {"holdout": self.holdout, "seed": self.seed, "filter": self.filter, "rows": self.rows}
        from analysis.fits import rounded

        return rounded({**plain, "rankings": rankings, "skipped": self.skipped})


def compare(
    frame: "pd.DataFrame",
    *,
    holdout: str = "N",
    laws: "Iterable[str | Law] | None" = None,
    response: str | None = None,
    seed: int = 0,
    folds: int = 5,
    progress: Callable[[str], None] = lambda _: None,
    **options,
) -> Comparison:
    """Fit `laws` (None: all) on one part of `frame`, score them on the other (`analysis.holdout`), rank by RMSE.

    `response` narrows to laws of loss, gap or gap_qat; `seed` and `folds` are of the random hold-out. `options` are the
    fields of `Options` that concern a fit without intervals.

    Raises:
        InputError: unknown law, hold-out or response, a bad filter or option, or not one law can be scored.
    """
    from analysis import table
    from analysis.holdout import check, shared_rows, sorted_rows
    from analysis.laws import LAWS, named
    from analysis.options import Options
    from analysis.selection import select

    check(holdout, seed=seed, folds=folds)
    if response is not None and response not in RESPONSES:
        raise InputError(f"response={response}: use one of {', '.join(RESPONSES)}")
    chosen = Options(bootstrap=0, seed=seed, **options)
    asked = [named(law) if isinstance(law, str) else law for law in (LAWS if laws is None else laws)]
    labelled = frame if frame.index.is_unique else frame.reset_index(drop=True)
    rows = sorted_rows(table.filtered(labelled, chosen.filter))
    skipped: dict[str, str] = {}
    rankings = []
    for kind in RESPONSES if response is None else (response,):
        alone: dict[str, Selection] = {}
        for law in asked:
            if law.response == kind:
                try:
                    alone[law.name] = select(law, rows, bits=chosen.bits)
                except InputError as fault:
                    skipped[law.name] = str(fault)
        why, ranked = {}, set()
        for shared, members in shared_rows({law.name: law for law in asked}, alone, rows, chosen):
            try:
                ranking = _rank(rows, kind, shared, members, alone, (holdout, seed, folds), chosen, progress)
            except InputError as fault:
                why |= dict.fromkeys(members, str(fault))
                continue
            rankings.append(ranking)
            ranked |= {score.law for score in ranking.scores}
            why |= ranking.excluded
        alike = "cannot be fitted again on the rows that it was fitted on"
        skipped |= {name: why.get(name, alike) for name in alone if name not in ranked}
    if not rankings:
        reasons = "; ".join(dict.fromkeys(skipped.values())) or f"none of {response} was asked for"
        raise InputError(f"holdout={holdout}: no law can be compared ({reasons})")
    return Comparison(
        holdout=holdout,
        seed=seed,
        filter=chosen.filter or "",
        rows=len(rows),
        rankings=rankings,
        skipped=dict(sorted(skipped.items())),
    )


def _rank(rows, kind, shared, members, alone, how, options: "Options", progress) -> Ranking:
    """The ranking of `members` on the rows labelled `shared`, held out as `how` (name, seed, folds) says."""
    import numpy as np

    from analysis.holdout import foretell, groups, small_gaps, split

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


def _scores(frame, kind, members, told, fits, held, label, seed: int) -> list[Score]:
    from analysis.holdout import WORST, measures, upsets

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


def text(made: Comparison) -> str:
    """The comparison for a reader, a table a ranking; errors in nats a token."""
    lines = []
    for r in made.rankings:
        lines.append(f"{r.response}: {r.rows} of {made.rows} rows, held out by {made.holdout}, errors in nats")
        if len(r.folds) < 4:
            lines += [f"  {label}: fitted on {train} rows, scored on {test}" for label, train, test in r.folds]
        else:
            fewest = min(train for _, train, _ in r.folds)
            held = r.scores[0].measures.rows
            lines.append(f"  {len(r.folds)} parts: each fitted on {fewest} rows or more, scored on {held} rows in all")
        heads = ("params", "RMSE", "mean abs", "bias", "ln RMSE", "R2", "wins")
        lines.append(f"      {'law':<24}{''.join(f'{head:>10}' for head in heads)}  status")
        for s in r.scores:
            m = s.measures
            numbers = [f"{v:.4g}" for v in (m.rmse, m.mae, m.bias, m.log_rmse)] + [f"{m.r2:.3f}", f"{s.upset:.0%}"]
            row = "".join(f"{'-' if 'nan' in number else number:>10}" for number in (str(s.parameters), *numbers))
            lines.append(f"  {s.rank or '-':>2}  {s.law:<24}{row}  {s.status}")
            lines += [f"      {note}" for note in s.notes]
        lines += [f"  not here: {line}" for line in _by_reason(r.excluded)]
        lines += [f"  left out: {count} rows, {reason}" for reason, count in r.left_out.items()]
        lines += [f"  warning: {warning}" for warning in r.warnings]
        lines.append("")
    lines += [f"not compared: {line}" for line in _by_reason(made.skipped)]
    return "\n".join(lines).rstrip("\n")


def _by_reason(reasons: dict[str, str]) -> list[str]:
    """A line a reason, with the laws that it concerns."""
    laws: dict[str, list[str]] = {}
    for law, reason in reasons.items():
        laws.setdefault(reason.removeprefix(f"{law}: ").split("; it has ")[0], []).append(law)
    return [f"{', '.join(names)}: {reason}" for reason, names in laws.items()]


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `compare`."""
    parser = commands.add_parser(
        "compare",
        help="rank laws by what they foretell",
        description="Fit every law that TABLE.csv allows on one part of it and rank them by their errors on the other. "
        "`wins`: how often clusters, drawn anew, put a law before the first one.",
    )
    parser.add_argument("table", metavar="TABLE.csv", type=Path)
    parser.add_argument(
        "--holdout",
        default="N",
        metavar="N|D|both|random|cell",
        help="foretell the largest N (default), the largest D, both, folds of clusters, or each (N, D) in turn",
    )
    parser.add_argument("--laws", metavar="LAW,LAW", help="names from `laws`; default all")
    parser.add_argument("--filter", metavar="EXPR", help="rows to use, e.g. \"N > 1e5 and ptq == 'rtn'\"")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="write scores and fits of all parts there too")
    parser.add_argument("--seed", type=int, default=0, help="of the random folds")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the comparison that the command line asks for.

    Raises:
        InputError: as `compare`; no such table, or a file that cannot be written.
    """
    from analysis import table
    from analysis.files import replacing

    made = compare(
        table.load(chosen.table),
        holdout=chosen.holdout,
        laws=None if chosen.laws is None else [name.strip() for name in chosen.laws.split(",")],
        filter=chosen.filter,
        seed=chosen.seed,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if chosen.out:
        content = {"schema": SCHEMA, "table": {"name": chosen.table.name, "sha256": table.digest(chosen.table)}}
        with replacing(chosen.out) as temporary:
            whole = json.dumps(content | made.to_json(), indent=1, allow_nan=False)
            temporary.write_text(whole + "\n", encoding="utf-8")
    print(text(made))
    if chosen.out:
        print(f"comparison: {chosen.out}")
