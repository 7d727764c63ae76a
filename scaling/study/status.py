"""Where the runs of a study stand, those that train a model and those that measure one that others trained: what their
folders say, and, of those that wait for a job of SLURM, its queue.

What a launcher has returned or reported counts for nothing here: it may have lost it, or never have known.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.run import Run
from scaling.console.terminal import amount, note
from scaling.errors import InputError
from scaling.ptq.settings import lacking, settings_of
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder
from scaling.records.writer import Holder, holder, left_behind
from scaling.study.slurm import commands
from scaling.study.slurm.arrays import Task, arrays_of, has_ended, in_queue, latest_tasks
from scaling.study.slurm.commands import QueuedJob, UnavailableError
from scaling.study.slurm.watch import end

STATES = ("done", "running", "queued", "failed", "dead", "partial", "refused", "new")
"""`dead`: what trained it was killed, without a chance to say anything. `partial`: it was asked to stop, and did."""


class Standing(NamedTuple):
    """Where a run stands: one of `STATES`, and in a few words why, where, or how far it is."""

    state: str
    detail: str


def standings(runs: Sequence[Run | MeasuredRun]) -> dict[str, Standing]:
    """run_id -> where the run stands."""
    standing_of = {run.run_id: standing(run) for run in runs}
    unfinished = [run for run in runs if standing_of[run.run_id].state not in ("done", "refused")]
    arrays = arrays_of(RunFolder(runs[0]).path.parent) if unfinished else []
    cluster, jobs = _queue() if arrays else ("", [])
    tasks = latest_tasks(arrays, cluster, unfinished)
    there = in_queue(tasks.values(), jobs)
    for run in unfinished:
        who, task = holder(RunFolder(run).path), tasks.get(run.run_id)
        if who and has_ended(who, cluster, jobs, arrays):
            who = None  # its sign of life is younger than its end
        known = standing_of[run.run_id]
        if who:
            standing_of[run.run_id] = _running(run, known, who)
        elif task in there:
            standing_of[run.run_id] = _waiting(known, there[task])
        elif known.state != "failed" and (why := _end(run, task)):
            standing_of[run.run_id] = Standing("dead", _joined(known.detail, why))
    return standing_of


def _queue() -> tuple[str, list[QueuedJob]]:
    """The cluster that can be asked here, and this user's jobs there; no name where there is none."""
    try:
        return commands.cluster().name, commands.queue()
    except UnavailableError as fault:
        note(f"SLURM cannot be asked which jobs are there ({fault}); what waits for one is shown as new or partial")
        return "", []


def standing(run: Run | MeasuredRun) -> Standing:
    """What is on disk of a run, whoever may be at work on it."""
    folder = RunFolder(run)
    try:
        state = folder.state()
        reached = _progress(folder, state)
    except InputError as fault:
        return Standing("refused", str(fault))
    if state != "done" and folder.has_error():
        return Standing("failed", f"{reached}; {folder.last_error()}")
    if state == "done":
        return Standing("done", "diverged" if folder.result()["diverged"] else "")
    return Standing(state, reached if state == "partial" else "")


def _progress(folder: RunFolder, state: str) -> str:
    """Tokens that a run has trained; of a model that others trained, the quantizations that have a row.

    Raises:
        InputError: a file that says it is damaged.
    """
    run = folder.run
    if isinstance(run, MeasuredRun):
        settings = settings_of(run)
        return f"{len(settings) - len(lacking(folder))} of {len(settings)} quantizations"
    at = Checkpoint.load(folder.checkpoint_path).step * run.data.batch_tokens if state == "partial" else 0
    return f"{amount(at)} of {amount(run.D)} tokens"


def _running(run: Run | MeasuredRun, known: Standing, who: Holder) -> Standing:
    since = f" since {_clock(who.since)}" if isinstance(who.since, int | float) else ""
    reached = _reached(known)
    if isinstance(run, Run):
        at = int(RunFolder(run).curve_end().get("tokens", 0))  # later than the checkpoint, from which it would go on
        reached = f"{amount(at)} of {amount(run.D)} tokens" if at else ""
    return Standing("running", _joined(reached, f"{who}{since}"))


def _waiting(known: Standing, job: QueuedJob) -> Standing:
    if job.waits:
        return Standing("queued", _joined(_reached(known), f"SLURM job {job.id} waits ({job.reason})"))
    return Standing("running", _joined(_reached(known), f"SLURM job {job.id} on {job.nodes}, {job.state.lower()}"))


def _end(run: Run | MeasuredRun, task: Task | None) -> str:
    """What became of the job or process that had the run and has no more; empty where none was killed."""
    if task:
        return end(task)
    who = left_behind(RunFolder(run).path)
    return f"{who} has ended without a word" if who else ""


def _reached(known: Standing) -> str:
    return known.detail if known.state == "partial" else ""


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def cells(runs: Sequence[Run | MeasuredRun]) -> dict[tuple[int | None, int | None], list[Run | MeasuredRun]]:
    """(N, D) -> its runs, in ascending order; what is not known, as N of a model that others trained until it is
    measured, is None and comes last."""
    by_cell: dict[tuple[int | None, int | None], list[Run | MeasuredRun]] = {}
    for run in runs:
        by_cell.setdefault((_size(run), run.D), []).append(run)
    return dict(sorted(by_cell.items(), key=lambda cell: [(value is None, value or 0) for value in cell[0]]))


def _size(run: Run | MeasuredRun) -> int | None:
    if isinstance(run, Run):
        return run.N
    return (RunFolder(run).result() or {}).get("N")
