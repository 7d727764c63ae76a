"""The command `coverage`: how often intervals hold the truth. `python -m analysis coverage --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import progress
from analysis.numbers import whole

DEFAULT_STUDIES = 400
DEFAULT_DRAWS = 200


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `coverage`."""
    parser = commands.add_parser(
        "coverage",
        help="how often intervals hold the truth",
        description="Simulate studies from known laws, fit them, and count how often the 95% intervals hold the "
        "planted values.",
    )
    parser.add_argument(
        "--studies", type=whole, default=DEFAULT_STUDIES, help=f"of each design and noise (default {DEFAULT_STUDIES})"
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the simulated studies")
    parser.add_argument("--draws", type=whole, default=DEFAULT_DRAWS, help=f"bootstrap (default {DEFAULT_DRAWS})")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("results/coverage"), help="for coverage.csv and README.md"
    )
    about = parser.add_mutually_exclusive_group()
    about.add_argument(
        "--designs",
        metavar="TABLE.csv|FOLDER",
        type=Path,
        help="of the cells that `next` chooses, planted with the scatter of this table's gaps",
    )
    about.add_argument(
        "--components",
        metavar="TABLE.csv|FOLDER",
        type=Path,
        help="plant the scatter of this table's gaps about the law in place of 3%% of the gap",
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Simulate, and say where the counts lie.

    Raises:
        InputError: as `coverage.make`.
    """
    from analysis.validation import coverage, planted_designs

    said = {"studies": chosen.studies, "seed": chosen.seed, "progress": progress}
    if chosen.designs is not None:
        paths = planted_designs.make(chosen.out, chosen.designs, **said)
    else:
        fitted = None if chosen.components is None else planted_designs.setting_of(chosen.components).components
        paths = coverage.make(chosen.out, draws=chosen.draws, components=fitted, **said)
    for path in paths:
        print(f"coverage: {path}")
