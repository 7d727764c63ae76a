"""Ranks laws by how well they foretell rows that they were not fitted on. `python -m analysis compare --help`.

A comparison is only one of laws if the rows are the same, in the fit and in the score. So each ranking is of the laws
that can use one set of rows: the rows of some law, or what several have in common. A law that describes training in low
precision and one that does not share no such set that both can be fitted on, and are ranked apart; a law may be in more
than one ranking. `ranking` makes one of them.

Nothing heavier than argparse is imported before something is compared.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from analysis.fit_command import add_filter, progress

if TYPE_CHECKING:
    import pandas as pd

    from analysis.law import Law
    from analysis.ranking import Ranking

SCHEMA = 1
RESPONSES = ("loss", "gap", "gap_qat")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rankings that a table allows, and why the other laws are in none."""

    holdout: str
    seed: int
    filter: str
    rows: int
    rankings: "list[Ranking]"
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
    from analysis.laws.registry import LAWS, named
    from analysis.options import Options
    from analysis.ranking import rank
    from analysis.selection import Selection, select

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
                ranking = rank(rows, kind, shared, members, alone, (holdout, seed, folds), chosen, progress)
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
    add_filter(parser)
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
        progress=progress,
    )
    if chosen.out:
        content = {"schema": SCHEMA, "table": {"name": chosen.table.name, "sha256": table.digest(chosen.table)}}
        with replacing(chosen.out) as temporary:
            whole = json.dumps(content | made.to_json(), indent=1, allow_nan=False)
            temporary.write_text(whole + "\n", encoding="utf-8")
    print(text(made))
    if chosen.out:
        print(f"comparison: {chosen.out}")
