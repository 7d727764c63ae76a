"""The command line: `python -m analysis laws | fit | profile | slopes | compare | figures | predict | plan | report`.

Nothing heavier than argparse is imported before a command runs, so that `--help` is quick. Bad input is one line on
stderr and status 1.
"""

import argparse
import os
import sys
from pathlib import Path

from analysis import compare, fit_command, plan, predict_command, profile_command, slopes_command
from analysis.errors import InputError
from analysis.report import command as report_command

PROG = "python -m analysis"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as fault:
        print(f"{PROG} {chosen.command}: {fault}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="Fit precision scaling laws to a tidy table of runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    laws = commands.add_parser("laws", help="list the laws", description="List the laws, their parameters and sources.")
    laws.set_defaults(run=_laws)

    fit_command.add_parser(commands)
    figures = commands.add_parser(
        "figures",
        help="fit all laws of a study and draw its figures",
        description="From results/STUDY/runs.csv make fits.json (if stale), slopes.csv and figures/ beside it.",
    )
    figures.add_argument("study", metavar="STUDY")
    figures.add_argument("--results", metavar="FOLDER", type=Path, default=Path("results"))
    fit_command.add_draws(figures)
    figures.set_defaults(run=_figures)

    for module in (predict_command, profile_command, slopes_command, compare, plan, report_command):
        module.add_parser(commands)
    return parser


def _laws(_: argparse.Namespace) -> None:
    from analysis.laws.registry import LAWS

    for law in LAWS.values():
        print(f"{law.name}  ({law.response})\n    {law.equation}\n    {law.source}")
        for p in law.ordered:
            known = "" if p.published is None else f", published {p.published:.5g}"
            print(f"    {p.symbol:<10} {p.unit}{known}")


def _figures(chosen: argparse.Namespace) -> None:
    from analysis.options import Options
    from analysis.study import make

    Options(bootstrap=chosen.bootstrap)  # refuse bad values before anything is read
    made = make(chosen.results / chosen.study, draws=chosen.bootstrap, seed=chosen.seed, progress=fit_command.progress)
    for name, reason in made.skipped.items():
        print(f"skipped {name}: {reason}")
    for fit in made.fits.fits.values():
        for warning in fit.warnings:
            print(f"warning {fit.law.name}: {warning}")
    for path in made.figures:
        if path.suffix == ".png":
            print(f"figure: {path}")
    print(f"fits: {made.stored}")
    print(f"table: {made.table}")
    if made.slopes:
        print(f"slopes: {made.slopes}")
        print(made.verdict)
    if fit := made.fits.fits.get("kumar_ptq"):
        low, high = fit.interval("gamma_D")
        interval = f"[{low:.3f}, {high:.3f}]" if low == low else "(no interval: too few runs)"
        print(f"gamma_D = {fit.params['gamma_D']:.3f} {interval}")


if __name__ == "__main__":
    # Matrices here are tiny: more than one BLAS thread only adds waiting, and could change the last digit.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    sys.exit(main())
