"""The command line: `python -m analysis COMMAND`; a module a command, and `--help` lists them.

Nothing heavier than argparse is imported before a command runs, so that `--help` is quick. Bad input is one line on
stderr and status 1.
"""

import argparse
import os
import sys

from analysis import streams
from analysis.cli import (
    compare_command,
    coverage_command,
    figures_command,
    fit_command,
    laws_command,
    profile_command,
    report_command,
    slopes_command,
    tables_command,
)
from analysis.cli.planning import isoflop_command, next_command, plan_command, predict_command
from analysis.errors import InputError

PROG = "python -m analysis"
COMMANDS = (
    laws_command,
    fit_command,
    figures_command,
    predict_command,
    profile_command,
    slopes_command,
    compare_command,
    plan_command,
    isoflop_command,
    next_command,
    report_command,
    coverage_command,
    tables_command,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as fault:
        print(f"{PROG} {chosen.command}: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG} {chosen.command}: interrupted; files are as they were before, or whole", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="Fit precision scaling laws to a tidy table of runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def command() -> None:
    """What is run as a program."""
    # Matrices here are tiny: more than one BLAS thread only adds waiting, and could change the last digit.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    sys.exit(streams.run(main, PROG))


if __name__ == "__main__":
    command()
