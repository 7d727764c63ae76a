"""The command `next`: which run next. `python -m analysis next --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cli.arguments import add_columns, aligned, progress, table_of
from analysis.errors import InputError

DRAWS = 200  # of fits beside the numbers that are priced

if TYPE_CHECKING:
    from analysis.planning.next_runs.advice import Advice

CLAIMS = {"tokens": "gamma_D", "size": "gamma_N", "bits": "gamma_post", "one-power": "curvature"}
"""Claims of the report whose rule asks for a constant of the gap law -> that constant. Others are priced by the units
that their numbers rest on (`analysis.report.price`)."""
MODELS = "overtraining"
"""The study whose table those claims are about."""


def add_parser(commands) -> None:
    """Register `next` with argparse's subparsers."""
    parser = commands.add_parser(
        "next",
        help="which run next: the cells that narrow an interval most",
        description="What other rows of the table say without a run, what no number of runs can mend, and the runs "
        "within a budget that give the narrowest interval of a target, from the scatter of the table's own gaps. "
        "Targets: gamma_D, gamma_N, gamma_post, C, curvature, slope:D=6e7, gap:N=1e6,D=1e8,P=4, law:NAME.",
    )
    parser.add_argument(
        "table", metavar="TABLE.csv|FITS.json|FOLDER", type=Path, help="a table, its fits, or its folder"
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--target", metavar="NAME", help="what is to be known")
    asked.add_argument("--claim", metavar="KEY", help="a claim of the report, by its anchor there, such as tokens")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--flops", type=float, help="budget, 6 N D a run")
    budget.add_argument("--hours", type=float, help="budget, in hours of the machine that the table's seconds are of")
    parser.add_argument("--out", metavar="STUDY.yaml", type=Path, help="write the runs as a study file")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--ptq", default="rtn", help="quantizer, default rtn; any: all")
    rows.add_argument("--granularity", default="channel", help="default channel; any: all")
    rows.add_argument("--bits", type=float, nargs=2, default=(4.0, 5.0), metavar=("LOW", "HIGH"), help="default 4 5")
    rows.add_argument("--gap-below", type=float, metavar="NATS", help="rows with a larger predicted gap are left out")
    rows.add_argument("--filter", metavar="EXPR", help='rows to use, e.g. "D > 3e6"')
    add_columns(rows)
    cells = parser.add_argument_group("candidates")
    cells.add_argument("--sizes", metavar="NAME[=N],...", help="default those of the table and of the ladder near it")
    cells.add_argument("--octaves", type=int, default=1, help="that the axis of D is extended by, default 1")
    cells.add_argument("--least-ratio", type=float, default=10.0, metavar="D/N", help="default 10")
    cells.add_argument("--least-tokens", type=float, default=4e6, metavar="D", help="default 4e6")
    cells.add_argument("--most", type=int, default=8, metavar="RUNS", help="to add to a cell, default 8")
    cells.add_argument(
        "--trunks", type=float, metavar="SHARE", help="runs of one size and seed share a trunk; their own share of cost"
    )
    lack = parser.add_argument_group("what the law lacks (default: as large as the table's own)")
    lack.add_argument("--curvature", type=float, help="of ln gap in (ln D)^2")
    lack.add_argument("--bits-by-size", type=float, help="of ln gap in P x ln N")
    parser.add_argument(
        "--second-look", action="store_true", help="the table was the first of two looks: 1%% and 4%% in place of 5%%"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the advice, and write the study.

    Raises:
        InputError: as `advise` and `study_file.write`; an unknown claim.
    """
    from analysis.planning.next_runs import study_file
    from analysis.planning.next_runs.advice import Request, advise
    from analysis.planning.next_runs.candidates import Limits
    from analysis.planning.next_runs.rows import Choice

    if chosen.claim is not None and chosen.claim not in CLAIMS:
        return _price(chosen)
    limits = Limits(ratio=chosen.least_ratio, tokens=chosen.least_tokens, octaves=chosen.octaves, most=chosen.most)
    anything = {
        name: None if getattr(chosen, name) == "any" else getattr(chosen, name) for name in ("ptq", "granularity")
    }
    choice = Choice(bits=tuple(chosen.bits), filter=chosen.filter, gap_below=chosen.gap_below, **anything)
    names = ("flops", "hours", "sizes", "curvature", "bits_by_size", "trunks", "second_look")
    request = Request(
        target=chosen.target or CLAIMS[chosen.claim],
        choice=choice,
        limits=limits,
        **{name: getattr(chosen, name) for name in names},
    )
    frame = table_of(_table(chosen.table), chosen.columns).frame
    made = advise(frame, request, progress=progress)
    if chosen.out is not None:
        study_file.write(chosen.out, made, frame, _command(chosen))
    for line in report(made):
        print(line)
    if chosen.out is not None:
        print(f"study: {chosen.out}")


def _price(chosen: argparse.Namespace) -> None:
    """What it would cost to decide a claim whose numbers rest on pairs, chains or seeds."""
    from analysis.report import more_seeds
    from analysis.report.build import CLAIMS as ALL
    from analysis.report.evidence.studies import STUDIES
    from analysis.report.evidence.tables import Tables
    from analysis.report.price import lines, prices

    claims = {claim.key: claim for claim in ALL if not claim.follows}
    if chosen.claim not in claims:
        raise InputError(f"claim {chosen.claim!r}: unknown; expected one of {', '.join({**CLAIMS, **claims})}")
    if not chosen.table.is_dir() or (chosen.table / "runs.csv").exists():
        raise InputError(f"{chosen.table}: this claim needs the folder of all studies, such as results")
    tables = Tables(chosen.table, STUDIES, draws=DRAWS, seed=0, progress=progress)
    made = prices(claims[chosen.claim], tables, hours_=chosen.hours, flops=chosen.flops)
    unit = "hours" if chosen.hours is not None else "FLOPs"
    for line in lines(made, unit):
        print(line)
    if chosen.out is not None:
        study, more = made.studies[0], max((price.affordable for price in made.prices), default=0)
        if not more:
            raise InputError(
                f"--out {chosen.out}: within this budget no more seeds would narrow a number of this claim"
            )
        about = [f"Question  {made.claim.title}?", f"Command   make sweep S={chosen.out.stem}"]
        about.append(f"Cost      about {chosen.hours or chosen.flops:.3g} {unit}: {more} more units")
        about.append(f"Expected  what python -m analysis next --claim {made.claim.key} says, if the estimate stays")
        more_seeds.write(chosen.out, chosen.out.with_name(f"{study}.yaml"), tables.frames[study], more, about)
        print(f"study: {chosen.out}")


def _command(chosen: argparse.Namespace) -> str:
    """What was asked, without what is as usual."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    usual = vars(parser.parse_args(["next", str(chosen.table), "--target", "", "--flops", "0"]))
    words = ["python", "-m", "analysis", "next", str(chosen.table)]
    for name, value in vars(chosen).items():
        asked = name in ("target", "flops") or (name in usual and value != usual[name])
        if not asked or value is None or name in ("table", "run", "out", "command"):
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        words += [
            "--" + name.replace("_", "-"),
            *([] if value is True else (f"{v:g}" if isinstance(v, float) else str(v) for v in values)),
        ]
    return shlex.join(words)


def _table(path: Path) -> Path:
    """The table itself, or `runs.csv` in a folder or beside a file of fits; of the folder of all studies the one of
    `MODELS`."""
    if path.is_dir():
        own = path / "runs.csv"
        return own if own.exists() else path / MODELS / "runs.csv"
    return path.with_name("runs.csv") if path.suffix == ".json" else path


def report(made: "Advice") -> list[str]:
    """The advice as lines."""
    from analysis.planning.next_runs.advice import sentences

    unit = f" {made.target.unit}" if made.target.unit else ""
    now, later = made.now, made.chosen.width
    sizes = len(made.rows.sizes)
    runs = int(made.cells.runs.sum())
    lines = [
        f"{made.target.name}: {made.value:.3f} +- {now.half:.3f}{unit} from {runs} runs of {sizes} sizes "
        f"({made.request.choice.text}); bias at most {now.bias:.3f}",
        f"scatter of ln gap: {made.components.text}",
        f"the law lacks: {made.lack.curvature:.3f} (ln D)^2, {made.lack.bits_by_size:.3f} P ln N",
    ]
    lines += [f"left out: {count} rows, {reason}" for reason, count in made.rows.left_out.items()]
    lines += ["", "without a run: other rows of the table (a look at all of them; none is evidence for being narrow)"]
    each = [("rows", "value", "+-")]
    each += [(o.choice.text, "" if o.why else f"{o.value:.3f}", o.why or f"{o.half:.3f}") for o in made.others]
    lines += [f"  {line}" for line in aligned(each)]
    cost = "hours" if made.request.hours else "FLOPs"
    lines += ["", "half-width"]
    table = [
        ("now", f"{now.half:.3f}", "", ""),
        ("every cell as often again", f"{made.repeated.width.half:.3f}", f"{made.repeated.cost:.3g}", cost),
        ("every cell for ever", f"{made.repeated_for_ever.half:.3f}", "", ""),
        ("any number of runs at these sizes", f"{made.these_sizes.half:.3f}", "", ""),
        ("the runs below", f"{later.half:.3f}", f"{made.chosen.cost:.3g}", f"{cost}; bias at most {later.bias:.3f}"),
    ]
    lines += [f"  {line}" for line in aligned(table)]
    table = [("model", "D", "D/N", "runs there", "to add", "FLOPs each")]
    table += [
        (name, f"{D:.3g}", f"{D / N:.3g}", str(there), str(count), f"{6 * N * D:.2g}")
        for name, N, D, there, count in made.runs
    ]
    return [*lines, "", *aligned(table), "", *sentences(made)]
