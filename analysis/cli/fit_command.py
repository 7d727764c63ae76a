"""The command `fit`: one law to one table. `python -m analysis fit --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import account, add_draws, add_options, options_of, progress, table_of
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
        help="write the fit there, with --columns; fits of other laws to the same table stay in it; default: print it",
    )
    add_draws(parser)
    parser.add_argument(
        "--summary", action="store_true", help="standard errors, correlations, errors on groups held out, residuals"
    )
    parser.add_argument("--residuals", metavar="FILE.png", type=Path, help="draw the residuals there")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Fit, store and print what the command line asks for.

    Raises:
        InputError: what a fit of the law raises; --out holds fits of another table or of other columns of it, or
            cannot be written.
    """
    from analysis.fitting import store
    from analysis.fitting.fit import fit

    options = options_of(chosen)
    stored = store.read(chosen.out) if chosen.out and chosen.out.exists() else None
    table = table_of(chosen.table, chosen.columns, stored and stored.columns)
    if stored and stored.sha256 != table.sha256:
        said = f"holds fits of another table ({stored.name})"
        raise InputError(f"{chosen.out}: {said}; choose another --out or delete it")
    if stored and stored.columns != table.columns:
        listed = ",".join(f"{name}={source}" for name, source in stored.columns.items()) or "none"
        raise InputError(f"{chosen.out}: holds fits with other --columns ({listed}); choose another --out or delete it")
    if stored and stored.columns and not chosen.columns:
        progress(f"{chosen.out}: --columns " + ",".join(f"{name}={source}" for name, source in stored.columns.items()))
    made = fit(chosen.law, table.frame, progress=progress, bootstrap=chosen.bootstrap, seed=chosen.seed, **options)
    if chosen.out:
        fits = (stored.fits if stored else {}) | {made.law.name: made}
        content = {"name": table.name, "sha256": table.sha256, "rows": len(table.frame), "columns": table.columns}
        store.write(chosen.out, store.Fits(fits=fits, **content))
    for line in text(made):
        print(line)
    if chosen.summary or chosen.residuals:
        summary = made.summary()
        if chosen.residuals:
            summary.plot(chosen.residuals)
        for line in str(summary).splitlines() if chosen.summary else ():
            print(line)
    if chosen.out:
        print(f"fit: {chosen.out}")
    if chosen.residuals:
        print(f"residuals: {chosen.residuals}")


def text(fit) -> list[str]:
    """A fit for a reader."""
    lines = [
        f"{fit.law.name}: {fit.law.equation}",
        f"  {fit.rows} rows, R2 {fit.r2:.4f}, status {fit.status}, "
        f"{fit.starts_at_optimum} of {fit.starts} starts agree",
    ]
    for symbol, value in fit.params.items():
        low, high = fit.interval(symbol)
        ends = f"  [{low:.5g}, {high:.5g}]" if low == low else "  held" if symbol in fit.options.hold else ""
        lines.append(f"  {symbol:<10} {value:.5g}{ends}")
    if fit.law.categories:
        lines.append(f"  not quantized: {fit.law.categories[0]}, efficiencies are relative to it")
    lines.append(f"  95% intervals{fit.given}: {fit.bootstrap.describe()}")
    return lines + account(fit.left_out, fit.warnings)
