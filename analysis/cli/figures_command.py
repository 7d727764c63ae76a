"""The command `figures`: all laws and figures of a study. `python -m analysis figures --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import add_draws, progress


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `figures`."""
    parser = commands.add_parser(
        "figures",
        help="fit all laws of a study and draw its figures",
        description="From RESULTS/STUDY/runs.csv make fits.json (if stale), slopes.csv and figures/ beside it.",
    )
    parser.add_argument("study", metavar="STUDY")
    parser.add_argument(
        "--results", metavar="FOLDER", type=Path, default=Path("results"), help="where studies have their folders"
    )
    parser.add_argument(
        "--against", metavar="FOLDER", type=Path, help="say how far FOLDER/STUDY agrees: losses, parameters of laws"
    )
    parser.add_argument("--why", action="store_true", help="say of each law and figure that was skipped why")
    add_draws(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Fit, draw and print the paths of what was made.

    Raises:
        InputError: as `study.make`; an option out of range.
    """
    from analysis.errors import InputError
    from analysis.figures.agreement import agreement
    from analysis.figures.study import make
    from analysis.files import inside
    from analysis.fitting.options import Options

    Options(bootstrap=chosen.bootstrap)  # refuse bad values before anything is read
    folder = inside(chosen.results / chosen.study, chosen.results)
    other = chosen.against and inside(chosen.against / chosen.study, chosen.against)
    if other and not (other / "fits.json").is_file():
        raise InputError(f"{other}: has no fits.json to compare with")
    made = make(folder, draws=chosen.bootstrap, seed=chosen.seed, progress=progress)
    for path in made.figures:
        if path.suffix == ".png":
            print(f"figure: {path}")
    if made.skipped and not chosen.why:
        print(f"skipped, as the table does not support them (--why): {', '.join(made.skipped)}")
    for name, reason in made.skipped.items() if chosen.why else ():
        print(f"skipped {name}: {reason}")
    for fit in made.fits.fits.values():
        for warning in fit.warnings:
            print(f"warning {fit.law.name}: {warning}")
    print(f"fits: {made.stored}")
    print(f"table: {made.table}")
    if made.slopes:
        print(f"slopes: {made.slopes}")
        print(made.verdict)
    if fit := made.fits.fits.get("kumar_ptq"):
        low, high = fit.interval("gamma_D")
        interval = f"[{low:.3f}, {high:.3f}]" if low == low else "(no interval: too few runs)"
        print(f"gamma_D = {fit.params['gamma_D']:.3f} {interval}")
    for line in agreement(folder, other) if other else ():
        print(line)
