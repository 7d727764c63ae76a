"""What commands share: the options of those that fit a law to a table, and how they speak.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.errors import InputError
from analysis.fitting.options import Options


def add_options(parser: argparse.ArgumentParser) -> None:
    """LAW, TABLE.csv and how to fit the one to the other; `options_of` reads the latter back."""
    parser.add_argument("law", metavar="LAW", help="a name from `laws`")
    parser.add_argument("table", metavar="TABLE.csv", type=Path)
    parser.add_argument(
        "--objective", default=Options.objective, help="huber (default) or squares, of ln(prediction / loss)"
    )
    parser.add_argument(
        "--huber-delta", type=float, help="in log loss; default 1.345 x the scatter between seeds, else 1e-3"
    )
    parser.add_argument(
        "--bits",
        type=float,
        nargs=2,
        default=Options.bits,
        metavar=("LOW", "HIGH"),
        help="bits after training (P_post) that a gap law is fitted to; default {:g} {:g}".format(*Options.bits),
    )
    parser.add_argument(
        "--gap-below",
        type=float,
        default=Options.gap_below,
        metavar="NATS",
        help=f"rows with a larger predicted gap are not fitted; default {Options.gap_below:g}",
    )
    add_filter(parser)


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Which rows of a table are used."""
    parser.add_argument("--filter", metavar="EXPR", help="rows to use, e.g. \"N > 1e5 and ptq == 'rtn'\"")


def options_of(chosen: argparse.Namespace) -> dict:
    """The fields of `Options` that `add_options` asks for."""
    names = ("objective", "huber_delta", "gap_below", "filter")
    return {name: getattr(chosen, name) for name in names} | {"bits": tuple(chosen.bits)}


def add_draws(parser: argparse.ArgumentParser, draws: int = Options.bootstrap) -> None:
    """How intervals are drawn, by default with so many draws."""
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=draws,
        metavar="DRAWS",
        help=f"default {draws}; 0: no intervals",
    )
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the bootstrap")


def progress(line: str) -> None:
    """Say `line` beside the output."""
    print(line, file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str] = str.ljust) -> list[str]:
    """Rows of as many cells each, as lines in columns."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(justify, row, sizes)).rstrip() for row in rows]


def csv_path(path: Path) -> Path:
    """`path`, which a table will be written to.

    Raises:
        InputError: it does not end in .csv.
    """
    if path.suffix != ".csv":
        raise InputError(f"{path}: expected a name that ends in .csv")
    return path


def account(left_out: dict[str, int], warnings: list[str]) -> list[str]:
    """Which rows were not fitted and what bears on those that were."""
    lines = [f"  left out: {count} rows, {reason}" for reason, count in left_out.items()]
    return lines + [f"  warning: {warning}" for warning in warnings]
