"""The command `report`: every claim, from the committed tables alone. `python -m analysis report --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import add_draws, progress


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `report`."""
    parser = commands.add_parser(
        "report",
        help="every claim with its verdict, as Markdown and HTML",
        description="From the tables RESULTS/STUDY/runs.csv of all studies make report.md and report.html, both with "
        "their figures in report.figures beside them. A claim whose study has no table says so.",
    )
    parser.add_argument("--results", metavar="FOLDER", type=Path, default=Path("results"), help="where the tables are")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where the report goes; default: beside the tables")
    add_draws(parser, draws=400)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Write the report that the command line asks for, and print its verdicts.

    Raises:
        InputError: no such folder, an option out of range, or a folder that cannot be written to.
    """
    from analysis.fitting.options import Options
    from analysis.report.build import make

    Options(bootstrap=chosen.bootstrap, seed=chosen.seed)  # refuse bad values before anything is read
    made = make(
        chosen.results,
        chosen.out or chosen.results,
        draws=chosen.bootstrap,
        seed=chosen.seed,
        progress=progress,
    )
    for outcome in made.outcomes:
        print(f"{outcome.direction.verdict:<28} {outcome.size.verdict:<14} {outcome.claim.title}")
    print(f"report: {made.markdown}")
    print(f"report: {made.html}")
