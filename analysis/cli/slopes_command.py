"""The command `slopes`: is the gap a power of D? `python -m analysis slopes --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import account, add_options, csv_path, options_of, progress, table_of

if TYPE_CHECKING:
    from analysis.diagnostics.slopes import ByWidth, Slope, Slopes


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `slopes`."""
    parser = commands.add_parser(
        "slopes",
        help="whether a gap is a power of D",
        description="The slope of the logarithm of LAW's gap in that of D, from one D of TABLE.csv to the next, within "
        "each width after training and for all together, with 95% intervals from leaving clusters out, and a test of "
        "whether it is the same at all D.",
    )
    add_options(parser)
    parser.add_argument("--only", metavar="EXPR", help="rows to take slopes of, after LAW was fitted to all of them")
    parser.add_argument("--out", metavar="SLOPES.csv", type=Path, help="write the slopes there")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print and write the slopes that the command line asks for.

    Raises:
        InputError: as `slopes_by_width`; no such table; --out is not a CSV or cannot be written.
    """
    from analysis.diagnostics.slopes import slopes_by_width, write

    out = chosen.out and csv_path(chosen.out)
    options, frame = options_of(chosen), table_of(chosen.table, chosen.columns).frame
    progress(f"{chosen.law}: fitting, then slopes within each width")
    made = slopes_by_width(chosen.law, frame, only=chosen.only, **options)
    for line in text(made):
        print(line)
    if out:
        write(out, made)
        print(f"slopes: {out}")


def text(made: "ByWidth") -> list[str]:
    """The slopes for a reader, a block a width, the verdict on all of them last."""
    lines = [f"{made.law.name}: d ln {made.law.response} / d ln D within {', '.join(made.together.within)}"]
    lines += account(made.left_out, made.warnings)
    for bits in sorted({*made.widths, *made.skipped}):
        if bits in made.skipped:
            lines.append(f"{bits:g} bits: {made.skipped[bits]}")
        else:
            lines += _block(f"{bits:g} bits", made.widths[bits])
    return [*lines, *_block("all together", made.together)[:-1], made.sentence]


def _block(title: str, slopes: "Slopes") -> list[str]:
    alone = f", {slopes.single} of them with no other D to compare with" if slopes.single else ""
    lines = [f"{title}: {slopes.rows} rows{alone}"]
    lines += [f"  {_octave(e)}  {_value(e, slopes.units)}" for e in slopes.local]
    constant, bend = slopes.constant, slopes.curvature
    lines.append(f"  {'constant slope':<22}  {_value(constant, slopes.units)}")
    p = f", p = {bend.p:.2g}" if bend.p == bend.p else ""
    lines.append(f"  {'curvature, of (ln D)^2':<22}  {_value(bend, slopes.units)}{p}")
    if not slopes.trusted:
        lines.append(f"  warning: too few clusters; intervals take {slopes.units} as independent")
    verdict, reason = slopes.verdict
    return [*lines, f"  slope {verdict}: {reason}"]


def _octave(e: "Slope") -> str:
    return f"D {e.low_D:.3g} to {e.high_D:.3g}".ljust(22)


def _value(e: "Slope", units: str) -> str:
    if e.clusters == 0:
        return "not determined by these rows"
    ends = f"[{e.low:.3f}, {e.high:.3f}]" if e.low == e.low else "no interval"
    return f"{e.value:7.3f}  {ends:<18} {e.clusters} {units}"
