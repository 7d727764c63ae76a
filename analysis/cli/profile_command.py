"""The command `profile`: how well a table determines one parameter of a law. `python -m analysis profile --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import account, add_options, aligned, csv_path, options_of, progress, table_of
from analysis.numbers import number

if TYPE_CHECKING:
    from analysis.diagnostics.profile import Profile


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `profile`."""
    parser = commands.add_parser(
        "profile",
        help="how well a table determines one parameter",
        description="Hold one parameter of LAW at several values, fit all others to TABLE.csv, and print by how much "
        "the objective rises, with the 95% intervals that follow.",
    )
    add_options(parser)
    parser.add_argument("--parameter", metavar="SYMBOL", required=True, help="as `laws` names it, e.g. E or gamma_D")
    parser.add_argument(
        "--values", type=number, nargs="+", metavar="V", help="to hold it at; default as far as its intervals reach"
    )
    parser.add_argument("--out", metavar="PROFILE.csv", type=Path, help="write it there, and beside it as PDF and PNG")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print, write and draw the profile that the command line asks for.

    Raises:
        InputError: as `profile`; no such table; --out is not a CSV or cannot be written.
    """
    from analysis.diagnostics.profile import profile

    out = chosen.out and csv_path(chosen.out)
    options, frame = options_of(chosen), table_of(chosen.table, chosen.columns).frame
    progress(f"{chosen.law}: fitting, then following {chosen.parameter}")
    made = profile(chosen.law, frame, chosen.parameter, chosen.values, **options)
    for line in text(made):
        print(line)
    if out:
        from analysis.figures.profile import draw
        from analysis.figures.style import save

        for path in save(draw(made), out.parent, out.stem):
            print(f"profile: {path}")


def text(made: "Profile") -> list[str]:
    """A profile for a reader: intervals and the rules that make them, what bears on them, a line a value."""
    lines = [f"{made.law}: {made.symbol} = {made.estimate:.5g} ({made.unit}), {made.rows} rows"]
    for low, high, limit, rule in (
        (made.low, made.high, made.limit, made.rule),
        (made.clustered_low, made.clustered_high, made.clustered_limit, made.clustered_rule),
    ):
        ends = f"[{_end(low, made.bounds)}, {_end(high, made.bounds)}]  " if limit > 0 else ""
        lines.append(f"  95% interval {ends}{rule}")
    lines += account(made.left_out, made.warnings)
    names = (made.symbol, "rise", *made.params)
    table = [("", *names)]
    for i, row in enumerate(zip(made.values, made.rise, *made.params.values(), strict=True)):
        table.append(("*" if i == made.place else "", *(f"{value:.5g}" for value in row)))
    return [
        *lines,
        *aligned(table, str.rjust),
        "* the estimate; rise of the objective, others fitted anew at each value",
    ]


def _end(value: float, bounds: tuple[float, float]) -> str:
    if value != value:
        return "beyond the values"
    return f"{value:.5g}" + (" (bound)" if value in bounds else "")
