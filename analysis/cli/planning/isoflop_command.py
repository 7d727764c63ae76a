"""The command `isoflop`: the best size for a compute, from the rows alone. `python -m analysis isoflop --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import add_filter, add_table, aligned, csv_path, table_of
from analysis.numbers import number, whole

if TYPE_CHECKING:
    from analysis.planning.isoflop import IsoFlop


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `isoflop`."""
    parser = commands.add_parser(
        "isoflop",
        help="how the best N grows with compute, without a law",
        description="For each budget of compute in TABLE.csv (column C, else 6 N D) the N with the lowest loss, and "
        "the exponents of N* and D* in C with 95% intervals.",
    )
    add_table(parser)
    parser.add_argument(
        "--method", default="akima", metavar="akima|parabola", help="how a curve's lowest point is found"
    )
    parser.add_argument(
        "--tolerance",
        type=number,
        default=0.1,
        metavar="SHARE",
        help="of C, within which rows are one budget; default .1",
    )
    parser.add_argument(
        "--noise", type=number, metavar="SD", help="of ln(loss) between runs alike; default from the rows"
    )
    parser.add_argument(
        "--best", action="store_true", help="of runs of one size and budget take the lowest loss, not the mean"
    )
    add_filter(parser)
    parser.add_argument(
        "--bootstrap", type=whole, default=1000, metavar="DRAWS", help="of the noise; default 1000; 0: none"
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the draws")
    parser.add_argument("--out", metavar="OPTIMA.csv", type=Path, help="write the optima there, for `fit compute`")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print and write what the command line asks for.

    Raises:
        InputError: as `isoflop`; no such table; --out is not a CSV or cannot be written.
    """
    from analysis.planning.isoflop import isoflop, write

    out = chosen.out and csv_path(chosen.out)
    names = ("method", "tolerance", "noise", "best", "filter", "seed")
    options = {name: getattr(chosen, name) for name in names}
    made = isoflop(table_of(chosen.table, chosen.columns).frame, draws=chosen.bootstrap, **options)
    for line in text(made):
        print(line)
    if out:
        write(out, made)
        print(f"optima: {out}")


def text(made: "IsoFlop") -> list[str]:
    """Optima and exponents for a reader."""
    rows = [("C", "N*", "", "D*", "D*/N*", "loss", "sizes")]
    for b in made.budgets:
        ends = f"[{b.N.low:.4g}, {b.N.high:.4g}]" if b.N.sure else ""
        ratio, size = b.D / b.N.value, f"{b.N.value:.4g}"
        rows.append((f"{b.C:.4g}", size, ends, f"{b.D:.4g}", f"{ratio:.3g}", f"{b.loss:.4f}", str(b.sizes)))
    lines = aligned(rows, str.rjust)
    for name, exponent in (("N*", made.N), ("D*", made.D)):
        ends = f" [{exponent.low:.3f}, {exponent.high:.3f}]" if exponent.sure else ""
        lines.append(f"{name} ~ C^{exponent.value:.3f}{ends}")
    lines.append(f"N* = {made.N_front:.4g} C^{made.N.value:.3f}; lowest points by {made.method}")
    noise = f"{made.noise:.3g}" if made.noise == made.noise else "not known"
    lines.append(f"95% intervals: {made.rule}; noise of ln(loss) {noise}, {made.noise_from}")
    by_reason: dict[str, list[float]] = {}
    for C, why in sorted(made.left_out.items()):
        by_reason.setdefault(why, []).append(C)
    for why, budgets in by_reason.items():
        which = f"C = {budgets[0]:.4g}" if len(budgets) == 1 else f"{len(budgets)} budgets"
        lines.append(f"left out: {which}: {why}")
    return lines + [f"warning: {line}" for line in made.warnings]
