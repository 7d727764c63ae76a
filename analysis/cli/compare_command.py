"""The command `compare`: every applicable law on the same held-out rows. `python -m analysis compare --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import add_filter, add_table, aligned, progress, table_of
from analysis.numbers import whole

if TYPE_CHECKING:
    from analysis.diagnostics.compare import Comparison

COMPARISON_SCHEMA = 1


def text(made: "Comparison") -> str:
    """The comparison for a reader, a table a ranking; errors in nats a token."""
    from analysis.diagnostics.compare import by_reason

    lines = []
    for r in made.rankings:
        lines.append(f"{r.response}: {r.rows} of {made.rows} rows, held out by {made.holdout}, errors in nats")
        if len(r.folds) < 4:
            lines += [f"  {label}: fitted on {train} rows, scored on {test}" for label, train, test in r.folds]
        else:
            fewest = min(train for _, train, _ in r.folds)
            held = r.scores[0].measures.rows
            lines.append(f"  {len(r.folds)} parts: each fitted on {fewest} rows or more, scored on {held} rows in all")
        cells = [("", "law", "params", "RMSE", "mean abs", "bias", "ln RMSE", "R2", "wins", "status")]
        for s in r.scores:
            m = s.measures
            numbers = [f"{v:.4g}" for v in (m.rmse, m.mae, m.bias, m.log_rmse)] + [f"{m.r2:.3f}", f"{s.upset:.0%}"]
            numbers = ["-" if "nan" in number else number for number in (str(s.parameters), *numbers)]
            cells.append((f"{s.rank or '-'}", s.law, *numbers, s.status))
        head, *rows = aligned(cells, (str.rjust, str.ljust, *[str.rjust] * 7, str.ljust))
        lines.append(f"  {head}")
        for row, s in zip(rows, r.scores, strict=True):
            lines += [f"  {row}", *(f"      {note}" for note in s.notes)]
        lines += [f"  not here: {', '.join(laws)}: {reason}" for reason, laws in by_reason(r.excluded).items()]
        lines += [f"  left out: {count} rows, {reason}" for reason, count in r.left_out.items()]
        lines += [f"  warning: {warning}" for warning in r.warnings]
        lines.append("")
    lines += [f"not compared: {', '.join(laws)}: {reason}" for reason, laws in by_reason(made.skipped).items()]
    return "\n".join(lines).rstrip("\n")


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `compare`."""
    parser = commands.add_parser(
        "compare",
        help="rank laws by their errors on held-out rows",
        description="Fit every law that TABLE.csv allows on one part of it and rank them by their errors on the other. "
        "`wins`: how often clusters, drawn anew, put a law before the first one.",
    )
    add_table(parser)
    parser.add_argument(
        "--holdout",
        default="N",
        metavar="N|D|both|random|cell",
        help="hold out the largest N (default), the largest D, both, folds of clusters, or each (N, D) in turn",
    )
    parser.add_argument("--laws", metavar="LAW,LAW", help="names from `laws`; default all")
    add_filter(parser)
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="write scores and fits of all parts there too")
    parser.add_argument("--seed", type=whole, default=0, help="of the random folds")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the comparison that the command line asks for.

    Raises:
        InputError: as `compare`; no such table, or a file that cannot be written.
    """
    from analysis.diagnostics.compare import compare
    from analysis.files import replacing

    table = table_of(chosen.table, chosen.columns)
    made = compare(
        table.frame,
        holdout=chosen.holdout,
        laws=None if chosen.laws is None else [name.strip() for name in chosen.laws.split(",")],
        filter=chosen.filter,
        seed=chosen.seed,
        progress=progress,
    )
    if chosen.out:
        content = {
            "schema": COMPARISON_SCHEMA,
            "table": {"name": table.name, "sha256": table.sha256},
        }
        with replacing(chosen.out) as temporary:
            whole = json.dumps(content | made.to_json(), indent=1, allow_nan=False)
            temporary.write_text(whole + "\n", encoding="utf-8")
    print(text(made))
    if chosen.out:
        print(f"comparison: {chosen.out}")
