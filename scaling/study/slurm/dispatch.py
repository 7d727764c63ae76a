"""A study's waves of runs given to SLURM: what is not with it yet is sent, and then waited for or left alone."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from scaling.config.run import Run
from scaling.console.cli import UnfinishedError
from scaling.console.terminal import note
from scaling.records.run_folder import RunFolder
from scaling.records.writer import holder, release
from scaling.study.jobs import stacks, with_memory, with_threads, write_stack
from scaling.study.slurm import commands
from scaling.study.slurm.arrays import Task, arrays_of, has_ended, in_queue, latest_tasks
from scaling.study.slurm.commands import QueuedJob, UnavailableError
from scaling.study.slurm.settings import SlurmSettings
from scaling.study.slurm.submission import send
from scaling.study.slurm.watch import wait


def dispatch(planned: Sequence[Sequence[Run]], settings: SlurmSettings, function: Callable) -> None:
    """Train waves of runs on SLURM. Jobs that were sent before, by whomever, are found again; all waves are sent at
    once, each to begin when the one before it has ended.

    Returns where no job is left to wait for, whatever became of them, or at once with `settings.detach`.

    Raises:
        InputError: SLURM cannot be asked, or is not here.
        UnfinishedError: SLURM has refused jobs; those that it took have ended, or go on with `settings.detach`.
    """
    runs = [run for wave in planned for run in wave]
    if not runs:
        return
    study = RunFolder(runs[0]).path.parent.absolute()
    cluster, there = commands.cluster(), commands.queue()
    free_folders(study, runs, cluster.name, there)
    known = latest_tasks(arrays_of(study), cluster.name, runs)
    sent_already = in_queue(known.values(), there)
    queued = {run_id: task for run_id, task in known.items() if task in sent_already}
    if queued:
        note(f"{runs[0].study}: {len(queued)} runs are in {len(sent_already)} jobs that SLURM has already")
    tasks, before, refusal = list(sent_already), [], ""
    for wave in planned:
        fresh = [run for run in wave if run.run_id not in queued and holder(RunFolder(run).path) is None]
        jobs = stacks(with_memory(fresh, settings.mem_gb), workers=1)
        files = [(write_stack(with_threads(stack, settings.cpus_per_task)), stack) for stack in jobs]
        sent, refusal = send(files, settings, cluster, function, before) if files else ([], "")
        tasks += sent
        mine = {queued[run.run_id] for run in wave if run.run_id in queued}
        before = sorted({task.array.job for task in sent} | {sent_already[task].id for task in mine})
        if refusal:
            break
    if settings.detach:
        _leave(runs[0].study, tasks)
    else:
        _wait(runs, tasks, settings.poll_s)
        with contextlib.suppress(UnavailableError):
            free_folders(study, runs, cluster.name, commands.queue())
    if refusal:
        raise UnfinishedError(f"SLURM has refused jobs: {refusal}")


def free_folders(study: Path, runs: Sequence[Run], cluster: str, there: Sequence[QueuedJob]) -> None:
    """Free the folders of runs whose writer was a job that SLURM no longer has."""
    arrays = arrays_of(study)
    for run in runs:
        path = RunFolder(run).path
        if (who := holder(path)) and has_ended(who, cluster, there, arrays):
            release(path, who)


def _leave(study: str, tasks: Sequence[Task]) -> None:
    note(
        f"{study}: {len(tasks)} jobs are with SLURM; python -m scaling.sweep status {study} says how they fare, "
        "the same command goes on"
    )


def _wait(runs: Sequence[Run], tasks: Sequence[Task], every: float) -> None:
    by_id = {run.run_id: run for run in runs}

    def is_done(run_id: str) -> bool:
        return run_id not in by_id or RunFolder(by_id[run_id]).result() is not None

    try:
        wait(tasks, is_done, every)
    except KeyboardInterrupt:
        _leave(runs[0].study, [task for task in tasks if not all(map(is_done, task.run_ids))])
        raise
