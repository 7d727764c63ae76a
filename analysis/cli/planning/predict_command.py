"""The command `predict`: one loss, or those of a whole plan before it is trained. `predict --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.cli.arguments import add_columns, add_question, csv_path, said, table_of
from analysis.errors import InputError

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
    parser.add_argument("--N", type=float, help="non-embedding parameters")
    parser.add_argument("--D", type=float, help="training tokens")
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

    fits = predict.paper() if chosen.fits == "paper" else store.read(Path(chosen.fits)).fits
    if chosen.cells is not None:
        _many(chosen, fits)
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
    )
    terms = ((made.loss, WHAT[made.loss.response]), (made.gap, WHAT["gap"]), (made.total, "loss"))
    for i, (term, what) in enumerate(terms):
        if term is not None and (i < 2 or term is not made.loss):
            interval = f"[{term.low:.4f}, {term.high:.4f}]" if term.low == term.low else "(constants without intervals)"
            print(f"{what:<22} {term.value:.4f} {interval} nats a token  ({term.law})")
    for warning in made.warnings:
        print(f"warning: {warning}")


def _many(chosen: argparse.Namespace, fits: dict) -> None:
    from analysis import filters
    from analysis.files import replacing
    from analysis.planning import predict

    if chosen.out is None or not (chosen.N is chosen.D is chosen.weights is chosen.activations is chosen.kv is None):
        raise InputError("--cells: expected --out beside it, and none of --N, --D, --weights, --activations, --kv")
    csv_path(chosen.out)
    posts = [predict.bits_of(text) for text in chosen.post.split(",")] if chosen.post else []
    cells = filters.filtered(table_of(chosen.cells, chosen.columns).frame, chosen.filter)
    frame, lines = predict.predict_cells(
        fits, cells, posts, law=chosen.law, at=said("at", chosen.at), one_run=chosen.one_run
    )
    with replacing(chosen.out) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    for line in lines:
        print(f"warning: {line}")
    print(f"{chosen.out}: {len(frame)} rows")
