"""The command `fit`: one law to one table. `python -m analysis fit --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import account, add_draws, add_options, options_of, progress
from analysis.errors import InputError


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `fit`."""
    parser = commands.add_parser(
        "fit",
        help="fit one law to a table",
        description="Fit LAW to TABLE.csv (columns N, D, loss and what LAW needs).",
    )
    add_options(parser)
    parser.add_argument(
        "--out",
        metavar="FITS.json",
        type=Path,
        required=True,
        help="write the fit there; fits of other laws to the same table stay in it",
    )
    add_draws(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Fit, store and print what the command line asks for.

    Raises:
        InputError: what a fit of the law raises; --out holds fits of another table, or cannot be written.
    """
    from analysis import table
    from analysis.fitting import store
    from analysis.fitting.fit import fit

    frame = table.load(chosen.table)
    made = fit(
        chosen.law,
        frame,
        progress=progress,
        bootstrap=chosen.bootstrap,
        seed=chosen.seed,
        **options_of(chosen),
    )
    sha = table.digest(chosen.table)
    others = {}
    if chosen.out.exists():
        stored = store.read(chosen.out)
        if stored.sha256 != sha:
            raise InputError(
                f"{chosen.out}: holds fits of another table ({stored.name}); choose another --out or delete it"
            )
        others = stored.fits
    store.write(
        chosen.out,
        store.Fits(name=chosen.table.name, sha256=sha, rows=len(frame), fits=others | {made.law.name: made}),
    )
    for line in text(made):
        print(line)
    print(f"fit: {chosen.out}")


def text(fit) -> list[str]:
    """A fit for a reader."""
    lines = [
        f"{fit.law.name}: {fit.law.equation}",
        f"  {fit.rows} rows, R2 {fit.r2:.4f}, status {fit.status}, "
        f"{fit.starts_at_optimum} of {fit.starts} starts agree",
    ]
    for symbol, value in fit.params.items():
        low, high = fit.interval(symbol)
        lines.append(f"  {symbol:<10} {value:.5g}" + (f"  [{low:.5g}, {high:.5g}]" if low == low else ""))
    lines.append(f"  95% intervals: {fit.bootstrap.describe()}")
    return lines + account(fit.left_out, fit.warnings)
