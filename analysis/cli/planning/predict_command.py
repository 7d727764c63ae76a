"""The command `predict`: one loss, or those of a whole plan before it is trained. `predict --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import add_columns, add_question, csv_path, progress, said, table_of
from analysis.errors import InputError
from analysis.numbers import number

if TYPE_CHECKING:
    from analysis.planning.predict import Scatter

WHAT = {
    "loss": "loss after training",
    "gap": "added by quantization",
    "gap_qat": "added by training in low precision",
}


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `predict`."""
    parser = commands.add_parser(
        "predict",
        help="predict a loss, or a plan's losses",
        description="Predict a loss from FITS.json, or from the `paper`'s constants: of one model, or of each row of "
        "CELLS.csv, as `python -m scaling.sweep plan STUDY --out CELLS.csv` writes it.",
    )
    parser.add_argument("fits", metavar="FITS.json|paper")
    parser.add_argument("--N", type=number, help="non-embedding parameters")
    parser.add_argument("--D", type=number, help="training tokens")
    parser.add_argument(
        "--cells", metavar="CELLS.csv", type=Path, help="in place of --N and --D: a table of N, D, P_w, P_a, P_kv"
    )
    parser.add_argument("--filter", metavar="EXPR", help='rows of CELLS.csv to predict, e.g. "N > 4e5"; default all')
    parser.add_argument("--out", metavar="FILE.csv", type=Path, help="where the predictions for CELLS.csv are written")
    parser.add_argument(
        "--post", metavar="FORMAT", help="quantize after training: int4, e4m3, or bits; with --cells also several: 3,4"
    )
    for name in ("weights", "activations", "kv"):
        parser.add_argument(f"--{name}", metavar="FORMAT", help=f"{name} in training (default bf16)")
    add_question(parser)
    add_columns(parser)
    parser.add_argument(
        "--one-run", action="store_true", help="prediction intervals: of the loss of one more run, its scatter included"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print one prediction, or write those of many.

    Raises:
        InputError: options that do not belong together, or what `predict` and `predict_cells` raise.
    """
    from analysis.fitting import store
    from analysis.planning import predict

    stored = None if chosen.fits == "paper" else store.read(Path(chosen.fits))
    fits = predict.paper() if stored is None else stored.fits
    of_sizes = _scatter_of_sizes(Path(chosen.fits), stored.sha256) if stored and chosen.one_run else None
    if chosen.cells is not None:
        _many(chosen, fits, of_sizes)
        return
    if chosen.N is None or chosen.D is None or not (chosen.out is chosen.filter is None) or chosen.columns:
        raise InputError("expected --N and --D, or --cells and --out")
    formats = {"P_w": chosen.weights, "P_a": chosen.activations, "P_kv": chosen.kv}
    formats = {part: text or "bf16" for part, text in formats.items()}
    made = predict.predict(
        fits,
        N=chosen.N,
        D=chosen.D,
        widths={part: predict.bits_of(text) for part, text in formats.items()},
        post=None if chosen.post is None else predict.bits_of(chosen.post),
        law=chosen.law,
        formats=formats,
        at=said("at", chosen.at),
        one_run=chosen.one_run,
        scatter_of_sizes=of_sizes,
    )
    terms = ((made.loss, WHAT[made.loss.response]), (made.gap, WHAT["gap"]), (made.total, "loss"))
    for i, (term, what) in enumerate(terms):
        if term is not None and (i < 2 or term is not made.loss):
            interval = f"[{term.low:.4f}, {term.high:.4f}]" if term.low == term.low else "(constants without intervals)"
            print(f"{what:<22} {term.value:.4f} {interval} nats a token  ({term.law})")
    for warning in made.warnings:
        print(f"warning: {warning}")


def _scatter_of_sizes(fits: Path, sha256: str) -> "Scatter | None":
    """By how much sizes scatter about the gap law, from the table beside the fits, if it is the one they were made of
    and has gaps enough; else None, with a line that says so."""
    from analysis import table
    from analysis.planning.next_runs.components import fitted, scatter_of_sizes
    from analysis.planning.next_runs.rows import Choice, rows_of

    try:
        read = table.read(fits.with_name("runs.csv"), say=progress)
        if read.sha256 != sha256:
            raise InputError(f"{fits.with_name('runs.csv')}: not the table that the fits were made of")
        rows = rows_of(read.frame, Choice())
        return scatter_of_sizes(rows, fitted(rows))
    except InputError as fault:
        progress(f"prediction intervals are without the scatter of sizes about the law: {fault.brief}")
        return None


def _many(chosen: argparse.Namespace, fits: dict, of_sizes: "Scatter | None") -> None:
    from analysis import filters
    from analysis.files import replacing
    from analysis.planning import predict

    if chosen.out is None or not (chosen.N is chosen.D is chosen.weights is chosen.activations is chosen.kv is None):
        raise InputError("--cells: expected --out beside it, and none of --N, --D, --weights, --activations, --kv")
    csv_path(chosen.out)
    posts = [predict.bits_of(text) for text in chosen.post.split(",")] if chosen.post else []
    cells = filters.filtered(table_of(chosen.cells, chosen.columns).frame, chosen.filter)
    frame, lines = predict.predict_cells(
        fits, cells, posts, law=chosen.law, at=said("at", chosen.at), one_run=chosen.one_run, scatter_of_sizes=of_sizes
    )
    with replacing(chosen.out) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    for line in lines:
        print(f"warning: {line}")
    print(f"{chosen.out}: {len(frame)} rows")
