"""The command `plan`: the best model for a budget. `python -m analysis plan --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import add_question, aligned, said
from analysis.errors import InputError
from analysis.numbers import number, whole
from analysis.planning.request import Request

if TYPE_CHECKING:
    from analysis.planning.plan import Plan

SHOWN = 6  # alternatives that are printed


def add_parser(commands) -> None:
    """Register `plan` with argparse's subparsers."""
    parser = commands.add_parser(
        "plan",
        help="the best model for a budget",
        description="The best N, D, training precision and format after training under ceilings on operations, bytes "
        "and tokens, with intervals, from FITS.json or from the `paper`'s constants.",
    )
    parser.add_argument("fits", metavar="FITS.json|paper")
    parser.add_argument(
        "--flops", type=number, help="most operations of training: 6 N D at 16 bits, fewer in proportion"
    )
    parser.add_argument(
        "--bytes", type=number, help="most bytes of the served model: N (P + scales) / 8, and --fixed-bytes"
    )
    parser.add_argument("--tokens", type=number, help="most training tokens")
    parser.add_argument("--serve-tokens", type=number, metavar="T", help="--flops cover serving these: 2 N T P / 16")
    parser.add_argument("--formats", metavar="A,B,...", help="to serve in, e.g. int3,int4,bf16 (bf16: none)")
    parser.add_argument("--widths", metavar="P,P,...", help="bits in training, e.g. 8,16; default: all from the lowest")
    parser.add_argument("--group", type=number, help="values that share a 16-bit scale below 16 bits")
    parser.add_argument("--fixed-bytes", type=number, default=0.0, help="of what is never quantized, e.g. embeddings")
    add_question(parser)
    parser.add_argument(
        "--draws", type=whole, default=Request.draws, help=f"for intervals, default {Request.draws}; 0: none"
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the draws")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the plan that the command line asks for."""
    from analysis.fitting import store
    from analysis.planning import predict
    from analysis.planning.plan import plan

    names = ("flops", "bytes", "tokens", "serve_tokens", "group", "fixed_bytes", "draws", "seed", "law")
    made = plan(
        predict.paper() if chosen.fits == "paper" else store.read(Path(chosen.fits)).fits,
        post=_names("formats", chosen.formats),
        widths=None if chosen.widths is None else [predict.bits_of(text) for text in _names("widths", chosen.widths)],
        at=said("at", chosen.at),
        **{name: getattr(chosen, name) for name in names},
    )
    for line in report(made):
        print(line)


def _names(option: str, text: str | None) -> list[str] | None:
    """The entries of a list with commas."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option}={text!r}: an entry is empty; expected names with commas between, e.g. int3,int4")
    return names


def report(made: "Plan") -> list[str]:
    """The plan as lines: the alternatives as a table, what bears on them, and the sentence last."""
    from analysis.planning.plan import with_interval

    others = made.alternatives
    if len(others) > SHOWN:  # then of those that are quantized to one format only the best
        first = {c.post: c for c in reversed([made.best, *others]) if c.post}
        others = [c for c in others if c.post is None or c is first[c.post]][:SHOWN]
    shown = [made.best, *others]
    if made.sixteen and made.sixteen not in shown:
        shown.append(made.sixteen)
    table = [("trained", "served", "N", "D", "loss", "from quantization", "above the best", "bytes", "best in")]
    for c in shown:
        cells = [
            f"{c.trained:g}",
            c.post or "as trained",
            with_interval(c.N),
            with_interval(c.D),
            with_interval(c.loss, 4),
        ]
        cells += [with_interval(c.gap, 2), with_interval(c.excess, 2), with_interval(c.bytes)]
        share = "" if c.best_in != c.best_in else f"{c.best_in:.0%}" if c.eligible else "not allowed"
        table.append((*cells, share + " *" * bool(c.outside)))
    lines = aligned(table)
    gap = made.laws[1:]
    if any(c.outside for c in shown):
        lines.append("* outside the rows that a law was fitted on")
    lines.append(f"laws: {made.laws[0]} for the loss" + f", {' and '.join(gap)} for quantization" * bool(gap))
    lines.append(
        f"bits in training: {with_interval(made.trained)}; bits of the served weights: {with_interval(made.served)}"
    )
    if made.P_star is not None:
        lines.append(f"P* jointly optimal with N and D, at any budget: {with_interval(made.P_star)} bits")
    hidden = len(made.alternatives) - len(others)
    lines += [f"not shown: {hidden} more alternatives"] if hidden else []
    lines += [f"left out: {what}: {reason}" for what, reason in made.left_out.items()]
    return [*lines, *(f"warning: {line}" for line in made.warnings), made.sentence]
