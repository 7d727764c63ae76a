"""The command `coverage`: how often intervals hold the truth. `python -m analysis coverage --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import progress

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
        "--studies", type=int, default=DEFAULT_STUDIES, help=f"of each design and noise (default {DEFAULT_STUDIES})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulated studies")
    parser.add_argument("--draws", type=int, default=DEFAULT_DRAWS, help=f"of the bootstrap (default {DEFAULT_DRAWS})")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("results/coverage"), help="for coverage.csv and README.md"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Simulate, and say where the counts lie.

    Raises:
        InputError: as `coverage.make`.
    """
    from analysis.validation.coverage import make

    for path in make(chosen.out, studies=chosen.studies, seed=chosen.seed, draws=chosen.draws, progress=progress):
        print(f"coverage: {path}")
