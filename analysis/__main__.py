"""The command line: `python -m analysis laws | fit | compare | figures | predict | plan`.

Nothing heavier than argparse is imported before a command runs, so that `--help` is quick. Bad input is one line on
stderr and status 1.
"""

import argparse
import os
import sys
from pathlib import Path

from analysis import compare, plan
from analysis.errors import InputError

PROG = "python -m analysis"
DRAWS = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as fault:
        print(f"{PROG} {chosen.command}: {fault}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="Fit precision scaling laws to a tidy table of runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    laws = commands.add_parser("laws", help="list the laws", description="List the laws, their parameters and sources.")
    laws.set_defaults(run=_laws)

    fit = commands.add_parser(
        "fit",
        help="fit one law to a table",
        description="Fit LAW to TABLE.csv (columns N, D, loss and what LAW needs).",
    )
    fit.add_argument("law", metavar="LAW", help="a name from `laws`")
    fit.add_argument("table", metavar="TABLE.csv", type=Path)
    fit.add_argument(
        "--out", metavar="FITS.json", type=Path, required=True, help="fits of the same table are kept in it"
    )
    fit.add_argument("--objective", default="huber", help="huber (default) or squares, of ln(prediction / loss)")
    fit.add_argument(
        "--huber-delta", type=float, help="in log loss; default 1.345 x the scatter between seeds, else 1e-3"
    )
    fit.add_argument(
        "--bits",
        type=float,
        nargs=2,
        default=(3, 6),
        metavar=("LOW", "HIGH"),
        help="P_post that a gap law is fitted on",
    )
    fit.add_argument(
        "--gap-below", type=float, default=0.5, metavar="NATS", help="largest predicted gap that is fitted"
    )
    fit.add_argument("--filter", metavar="EXPR", help="rows to use, e.g. \"N > 1e5 and ptq == 'rtn'\"")
    _draws(fit)
    fit.set_defaults(run=_fit)

    figures = commands.add_parser(
        "figures",
        help="fit all laws of a study and draw its figures",
        description="From results/STUDY/runs.csv make results/STUDY/fits.json (if stale) and results/STUDY/figures/.",
    )
    figures.add_argument("study", metavar="STUDY")
    figures.add_argument("--results", metavar="FOLDER", type=Path, default=Path("results"))
    _draws(figures)
    figures.set_defaults(run=_figures)

    predict = commands.add_parser(
        "predict", help="predict a loss", description="Predict a loss from FITS.json, or from the `paper`'s constants."
    )
    predict.add_argument("fits", metavar="FITS.json|paper")
    predict.add_argument("--N", type=float, required=True, help="non-embedding parameters")
    predict.add_argument("--D", type=float, required=True, help="training tokens")
    predict.add_argument("--post", metavar="FORMAT", help="quantize after training: int4, e4m3, or bits")
    for name in ("weights", "activations", "kv"):
        predict.add_argument(f"--{name}", metavar="FORMAT", default="bf16", help=f"{name} in training (default bf16)")
    predict.set_defaults(run=_predict)
    compare.add_parser(commands)
    plan.add_parser(commands)
    return parser


def _draws(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap", type=int, default=DRAWS, metavar="DRAWS", help=f"default {DRAWS}; 0: no intervals"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _laws(_: argparse.Namespace) -> None:
    from analysis.laws import LAWS

    for law in LAWS.values():
        print(f"{law.name}  ({law.response})\n    {law.equation}\n    {law.source}")
        for p in law.ordered:
            known = "" if p.published is None else f", published {p.published:.5g}"
            print(f"    {p.symbol:<10} {p.unit}{known}")


def _fit(chosen: argparse.Namespace) -> None:
    from analysis import fits, table
    from analysis.fitting import fit

    frame = table.load(chosen.table)
    made = fit(
        chosen.law,
        frame,
        progress=_progress,
        objective=chosen.objective,
        huber_delta=chosen.huber_delta,
        bits=tuple(chosen.bits),
        gap_below=chosen.gap_below,
        filter=chosen.filter,
        bootstrap=chosen.bootstrap,
        seed=chosen.seed,
    )
    sha = table.digest(chosen.table)
    others = {}
    if chosen.out.exists():
        stored = fits.read(chosen.out)
        if stored.sha256 != sha:
            raise InputError(
                f"{chosen.out}: holds fits of another table ({stored.name}); choose another --out or delete it"
            )
        others = stored.fits
    fits.write(
        chosen.out,
        fits.Fits(name=chosen.table.name, sha256=sha, rows=len(frame), fits=others | {made.law.name: made}),
    )
    _show(made)
    print(f"fit: {chosen.out}")


def _show(fit) -> None:
    print(f"{fit.law.name}: {fit.law.equation}")
    print(
        f"  {fit.rows} rows, R2 {fit.r2:.4f}, status {fit.status}, {fit.starts_at_optimum} of {fit.starts} starts agree"
    )
    for symbol, value in fit.params.items():
        low, high = fit.interval(symbol)
        print(f"  {symbol:<10} {value:.5g}" + (f"  [{low:.5g}, {high:.5g}]" if low == low else ""))
    for reason, count in fit.left_out.items():
        print(f"  left out: {count} rows, {reason}")
    for warning in fit.warnings:
        print(f"  warning: {warning}")


def _figures(chosen: argparse.Namespace) -> None:
    from analysis.options import Options
    from analysis.study import make

    Options(bootstrap=chosen.bootstrap)  # refuse bad values before anything is read
    made = make(chosen.results / chosen.study, draws=chosen.bootstrap, seed=chosen.seed, progress=_progress)
    for name, reason in made.skipped.items():
        print(f"skipped {name}: {reason}")
    for fit in made.fits.fits.values():
        for warning in fit.warnings:
            print(f"warning {fit.law.name}: {warning}")
    for path in made.figures:
        if path.suffix == ".png":
            print(f"figure: {path}")
    print(f"fits: {made.stored}")
    print(f"table: {made.table}")
    if fit := made.fits.fits.get("kumar_ptq"):
        low, high = fit.interval("gamma_D")
        interval = f"[{low:.3f}, {high:.3f}]" if low == low else "(no interval: too few runs)"
        print(f"gamma_D = {fit.params['gamma_D']:.3f} {interval}")


def _predict(chosen: argparse.Namespace) -> None:
    from analysis import fits, predict

    found = predict.paper() if chosen.fits == "paper" else fits.read(Path(chosen.fits)).fits
    widths = {"P_w": chosen.weights, "P_a": chosen.activations, "P_kv": chosen.kv}
    made = predict.predict(
        found,
        N=chosen.N,
        D=chosen.D,
        widths={part: predict.bits_of(text) for part, text in widths.items()},
        post=None if chosen.post is None else predict.bits_of(chosen.post),
    )
    for term, what in ((made.loss, "loss after training"), (made.gap, "added by quantization"), (made.total, "loss")):
        if term is not None:
            interval = f"[{term.low:.4f}, {term.high:.4f}]" if term.low == term.low else "(constants without intervals)"
            print(f"{what:<22} {term.value:.4f} {interval} nats a token  ({term.law})")
    for warning in made.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    # Matrices here are tiny: more than one BLAS thread only adds waiting, and could change the last digit.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    sys.exit(main())
