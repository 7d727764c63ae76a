"""What commands share: the options of those that fit a law to a table, and how they print.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from analysis.fitting.options import OBJECTIVES, Options
from analysis.numbers import number, whole

if TYPE_CHECKING:
    from analysis.table import Table


def add_options(parser: argparse.ArgumentParser) -> None:
    """LAW, TABLE.csv and how to fit the one to the other; `options_of` reads the latter back."""
    parser.add_argument("law", metavar="LAW", help="a name from `laws`, or an equation such as 'A*N**-alpha + E'")
    add_table(parser)
    parser.add_argument(
        "--objective",
        default=Options.objective,
        metavar="|".join(name.replace("_", "-") for name in OBJECTIVES),
        help="huber (default) or squares of ln(prediction / loss), or squares of prediction - loss",
    )
    parser.add_argument(
        "--huber-delta", type=number, help="in log loss; default 1.345 x the scatter between seeds, else 1e-3"
    )
    parser.add_argument(
        "--bits",
        type=number,
        nargs=2,
        default=Options.bits,
        metavar=("LOW", "HIGH"),
        help="bits after training (P_post) that a gap law is fitted to; default {:g} {:g}".format(*Options.bits),
    )
    parser.add_argument(
        "--gap-below",
        type=number,
        default=Options.gap_below,
        metavar="NATS",
        help=f"rows with a larger predicted gap are not fitted; default {Options.gap_below:g}",
    )
    parser.add_argument(
        "--hold",
        metavar="SYMBOL=VALUE,...",
        action="append",
        default=[],
        help="parameters that are not fitted, e.g. E=1.69; intervals of the others are then given these",
    )
    parser.add_argument("--weights", metavar="COLUMN", help="a column of how much each row counts")
    parser.add_argument("--base", metavar="SCHEME", help="the scheme that is not quantized, if its name hides it")
    add_filter(parser)


def add_table(parser: argparse.ArgumentParser) -> None:
    """TABLE.csv, and which of its columns are those of the laws; `table_of` reads it."""
    parser.add_argument("table", metavar="TABLE.csv", type=Path, help="also .gz, .zip, ..., Parquet; -: standard input")
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Which columns of a table are those of the laws."""
    parser.add_argument(
        "--columns",
        metavar="NAME=COLUMN,...",
        action="append",
        default=[],
        help="columns of the table for names of the laws, e.g. N=params,D==steps*524288,loss=val_loss",
    )


def table_of(path: Path, columns: Sequence[str], known: Mapping[str, str] | None = None) -> "Table":
    """The table in `path`, with its columns as the option says, or if it says nothing as `known` does.

    Raises:
        InputError: as `table.read`; a bad map.
    """
    from analysis import table
    from analysis.reading.columns import parsed

    return table.read(path, parsed(columns) or dict(known or {}), say=progress)


def add_question(parser: argparse.ArgumentParser) -> None:
    """Which of several fitted laws is asked, and at what; `said` reads the latter."""
    parser.add_argument("--law", metavar="LAW", help="which law of the file is asked; default the one that knows most")
    parser.add_argument(
        "--at",
        metavar="NAME=VALUE,...",
        action="append",
        default=[],
        help="other variables of the law, e.g. scheme=fp4 or unique_tokens=1e10",
    )


def said(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Values by name, from NAME=VALUE with commas between.

    Raises:
        InputError: an entry is not of this form, or a name is there twice.
    """
    values: dict[str, str] = {}
    for entry in (piece.strip() for text in texts for piece in text.split(",")):
        name, _, value = (part.strip() for part in entry.rpartition("="))
        if not name or not value:
            raise InputError(f"{option}={entry!r}: expected NAME=VALUE with commas between, e.g. E=1.69")
        if name in values:
            raise InputError(f"{option}: {name} is given twice; expected each once")
        values[name] = value
    return values


def constants(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Numbers by symbol, as `said` reads them.

    Raises:
        InputError: as `said`, or a value is no number.
    """
    entries = said(option, texts)
    try:
        return {symbol: number(value) for symbol, value in entries.items()}
    except ValueError as fault:
        raise InputError(f"{option}: {fault}; expected SYMBOL=NUMBER, e.g. E=1.69") from None


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Which rows of a table are used."""
    parser.add_argument("--filter", metavar="EXPR", help="rows to use, e.g. \"N > 1e5 and ptq == 'rtn'\"")


def options_of(chosen: argparse.Namespace) -> dict:
    """The fields of `Options` that `add_options` asks for.

    Raises:
        InputError: a bad --hold.
    """
    names = ("huber_delta", "gap_below", "filter", "weights", "base")
    made = {name: getattr(chosen, name) for name in names} | {"bits": tuple(chosen.bits)}
    made["objective"] = chosen.objective.replace("-", "_")
    return made | {"hold": constants("hold", chosen.hold)}


def add_draws(parser: argparse.ArgumentParser, draws: int = Options.bootstrap) -> None:
    """How intervals are drawn, by default with so many draws."""
    parser.add_argument(
        "--bootstrap",
        type=whole,
        default=draws,
        metavar="DRAWS",
        help=f"default {draws}; 0: no intervals",
    )
    parser.add_argument("--seed", type=whole, default=Options.seed, help="of the bootstrap")


def progress(line: str) -> None:
    """Say `line` beside the output."""
    print(line, file=sys.stderr, flush=True)


Justify = Callable[[str, int], str]


def aligned(rows: Sequence[Sequence[str]], justify: Justify | Sequence[Justify] = str.ljust) -> list[str]:
    """Rows of as many cells each, as lines in columns; `justify` is for all of these, or one for each."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    each = [justify] * len(sizes) if callable(justify) else justify
    return ["  ".join(f(*cell) for f, *cell in zip(each, row, sizes, strict=True)).rstrip() for row in rows]


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
