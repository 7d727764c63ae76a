"""The command `python -m scaling.sweep`: a study before, during and after it is trained.

`plan` prints its cells and its jobs, what they take, how long that will be here and what it would be on a GPU;
`status` what is done, running and where, queued, failed, dead or new; `collect` writes the table of all finished runs;
`publish` sends it with fits and figures to W&B.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scaling.config.compose import CONFIG_DIR, with_folder
from scaling.console.cli import guarded
from scaling.errors import InputError, nearest_names

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scaling.config.pretrained.measured_run import MeasuredRun
    from scaling.config.run import Run
    from scaling.study.cost import Price


class Study(NamedTuple):
    """The runs of a study's file, and the settings of the launcher that it names."""

    runs: list["Run"]
    launcher: "DictConfig"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scaling.sweep",
        description="Plan a study, watch it, and gather its table.",
        epilog="An override (model=24k, data.tokens=1e6,2e6) replaces what the study's file says of that setting.",
    )
    parser.add_argument("command", choices=("plan", "status", "collect", "publish"), help="before, during, after")
    parser.add_argument("study", help="a file of sweeps/, without .yaml; but for plan also a folder of outputs/")
    parser.add_argument("overrides", nargs="*", metavar="setting=value", help="as for python -m scaling.train")
    parser.add_argument("--ids", action="store_true", help="list every run (plan, status)")
    parser.add_argument("--device", default="h100", help="GPU whose hours are counted (plan); h100 if not given")
    parser.add_argument("--mfu", default="0.4", help="share of its peak that is reached (plan); 0.4 is assumed")
    parser.add_argument("--price-per-hour", help="of that GPU, in dollars (plan)")
    parser.add_argument(
        "--out",
        type=Path,
        help="a table: of finished runs (collect; RESULTS/STUDY/runs.csv if not given), "
        "or of planned N, D and bits (plan; none if not given)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="where studies have folders (collect, publish)",
    )
    parser.add_argument(
        "--add",
        type=Path,
        action="append",
        default=[],
        metavar="TABLE",
        help="a table of the same study from another machine, whose other runs are put into this one (collect)",
    )
    parser.add_argument(*CONFIG_DIR, metavar="FOLDER", help="where choices and studies (its sweeps/) are found as well")
    parser.add_argument("--prune", action="store_true", help="leave out runs that the study does not name (collect)")

    def app():
        given = parser.parse_intermixed_args(arguments)
        with with_folder(given.config_dir):
            _run(given)

    guarded(app, "scaling.sweep")


def _run(given: argparse.Namespace) -> None:
    if given.command == "collect":
        out = given.out or given.results / given.study / "runs.csv"
        _collect(given.study, given.overrides, out, given.add, given.prune)
    elif given.command == "publish":
        _publish(given.study, given.overrides, given.results / given.study)
    elif given.command == "status":
        _status(_runs(given.study, given.overrides), given.ids)
    else:
        price = _price(given)
        _plan(load(given.study, given.overrides), given.ids, price, given.out)


def _price(given: argparse.Namespace) -> "Price":
    from scaling.numbers import number
    from scaling.study.cost import Price

    def option(name: str) -> float | None:
        text = getattr(given, name.replace("-", "_"))
        try:
            return None if text is None else number(text)
        except ValueError:
            raise InputError(f"--{name} {text}: expected a number") from None

    return Price(device=given.device, mfu=option("mfu"), per_hour=option("price-per-hour"))


def load(name: str, overrides: Sequence[str]) -> Study:
    """Read a study from sweeps/, with overrides laid over it.

    Raises:
        InputError, HydraException, OmegaConfBaseException: no such study, or a point of its grid cannot be used.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from scaling.config.compose import BEHAVIOUR, CONFIGS, study_file
    from scaling.study.grid import study_runs, up_to

    study_file(name)
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"{override}: expected setting=value")
    about_hydra = [o for o in overrides if o.lstrip("+~").startswith(("hydra.", "hydra/"))]
    arguments = [f"sweeps={name}", *(o for o in overrides if o not in about_hydra)]
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        config = compose("train", [f"sweeps={name}", *about_hydra], return_hydra_config=True).hydra
        loader = GlobalHydra.instance().config_loader()
        asked = config.sweeper
        runs = up_to(asked.get("largest_N"), study_runs(asked.params or {}, asked.grids, arguments, loader))
    return Study(runs, config.launcher)


def _plan(study: Study, ids: bool, price: "Price", out: Path | None) -> None:
    from scaling.records.run_folder import RunFolder
    from scaling.records.table import planned
    from scaling.study.plan import JOB_HEADINGS, Plan, forecast, job_rows
    from scaling.study.status import cells
    from scaling.study.sweeper import remaining

    todo, refused = remaining(study.runs)
    waiting = {run.run_id for run in todo}
    rows = [
        (
            *(f"{n:,}", f"{d:,}", f"{d / n:,.0f}"),
            len({run.precision for run in cell}),
            len({(run.seed_init, run.seed_data) for run in cell}),
            len(cell),
            sum(run.run_id in waiting for run in cell),
            f"{sum(run.flops for run in cell):.1e}",
        )
        for (n, d), cell in cells(study.runs).items()
    ]
    headings = ("N", "D", "D/N", "precisions", "seeds", "runs", "to train", "FLOPs (6ND)")
    _print_table(f"{study.runs[0].study}: {len(study.runs)} runs", headings, rows)
    for line in [run.run_id for run in study.runs] if ids else []:
        print(line)
    for line in refused:
        print(f"refused: {line}")
    if out is not None:
        print(f"{out}: {planned(study.runs, out)} rows")
    if not todo:
        print("nothing to train")
        return
    plan = Plan.of(study.launcher, todo)
    _print_table("jobs", JOB_HEADINGS, job_rows(plan))
    finished = [(run, result) for run in study.runs if (result := RunFolder(run).result())]
    for line in forecast(plan, finished, price):
        print(line)


def _runs(name: str, overrides: Sequence[str]) -> Sequence["Run | MeasuredRun"]:
    """The runs that a study's file names. Those in its folder where it has no file, such as a grid of the command line
    or models that others trained; what cannot be read there is named."""
    from dataclasses import replace

    from scaling.config.compose import groups, study_file
    from scaling.console.terminal import note
    from scaling.records.run_folder import RunFolder, stored_run

    if study_file(name) is not None:
        return load(name, overrides).runs
    single = _single(name, overrides)
    folder = RunFolder(single).path.parent
    runs: list[Run | MeasuredRun] = []
    for path in sorted(folder.glob("*/config.yaml")):
        try:
            runs.append(stored_run(path.parent))
        except InputError as fault:
            note(f"refused {path.parent.name}  {fault}")
    if not runs:
        known = [*groups("train")["sweeps"], *(path.name for path in folder.parent.glob("*/"))]
        raise InputError(f"{name}: has no file in sweeps/, and no run in {folder}{nearest_names(name, known)}")
    return [replace(r, study=name, runtime=replace(r.runtime, out=single.runtime.out)) for r in runs]


def _status(runs: Sequence["Run | MeasuredRun"], ids: bool) -> None:
    from scaling.study.status import STATES, cells, standings

    standings_by_run = standings(runs)
    counts = Counter(s.state for s in standings_by_run.values())
    shown = [state for state in STATES if counts[state]]
    rows = []
    for (n, d), cell in cells(runs).items():
        in_cell = Counter(standings_by_run[run.run_id].state for run in cell)
        size = ("" if value is None else f"{value:,}" for value in (n, d))
        rows.append((*size, len(cell), *(in_cell[state] or "" for state in shown)))
    _print_table(runs[0].study, ("N", "D", "runs", *shown), rows)
    for run_id, (state, detail) in standings_by_run.items():
        if ids or (state != "new" and detail):
            print(f"{state:8}{run_id}  {detail}".rstrip())
    if lost := counts["dead"] + counts["failed"]:
        print(f"{lost} runs are with nobody, and not done: the command that began them goes on with them")
    print(f"{len(standings_by_run)} runs: " + ", ".join(f"{counts[state]} {state}" for state in shown))


def _collect(name: str, overrides: Sequence[str], out: Path, others: Sequence[Path], prune: bool) -> None:
    from scaling.config.compose import study_file
    from scaling.console.terminal import note
    from scaling.ptq.settings import settings_of
    from scaling.records.run_folder import RunFolder
    from scaling.records.table import collect

    named = None
    if study_file(name) is not None:
        runs = load(name, overrides).runs
        named = {run.run_id for run in runs}
        folder = RunFolder(runs[0]).path.parent
        missing = sum(RunFolder(run).result() is None for run in runs)
        if missing:
            note(f"{missing} of the {len(runs)} runs of {name} are not done, and not in the table")
    elif prune:
        raise InputError(f"--prune: {name} has no file in sweeps/ that names its runs")
    else:
        folder = RunFolder(_single(name, overrides)).path.parent
    rows = collect(
        folder, out, others, lambda run: [setting.key for setting in settings_of(run)], named=named, prune=prune
    )
    print(f"{out}: {rows} rows")


def _publish(name: str, overrides: Sequence[str], results: Path) -> None:
    from scaling.config.compose import study_file
    from scaling.console.tracking.publish import TABLE, publish
    from scaling.records.merge import verify
    from scaling.records.run_folder import RunFolder

    if (results / TABLE).exists():
        verify(results / TABLE)
    run = load(name, overrides).runs[0] if study_file(name) is not None else _single(name, overrides)
    done = publish(name, results, RunFolder(run).path.parent, run.tracking)
    state = {"online": "uploaded", "offline": "written for `wandb sync`"}[done.mode]
    print(f"{done.artifact}: {done.files} files, {state if done.new else 'published already'} ({done.digest})")
    if done.workspace:
        print(f"workspace: {done.workspace}")


def _single(study: str, overrides: Sequence[str]) -> "Run":
    """Any run of a study that has no file, for the place where its runs lie."""
    from scaling.config.compose import composed
    from scaling.config.run import build_run

    return build_run(composed([*overrides, f"study={study}"]))


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if Console().is_terminal else 120).print(table)


if __name__ == "__main__":
    main()
