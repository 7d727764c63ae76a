"""Which job of SLURM trains which runs.

    <out>/<study>/slurm/
        <name>.json         an array: its name in the queue, its id once SLURM has given one, and the runs of each task
        <name>.<i>.limits   how often task i has reached its time limit
        12_3/               script, pickle and log of task 3 of array 12, by submitit

The file of an array is written before its jobs are sent, and the name in the queue is unique: so whoever sends them may
die at any moment, and the next one finds them.
"""

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.run import Run
from scaling.records.files import write_text
from scaling.records.writer import Holder
from scaling.study.slurm.commands import QueuedJob


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """Jobs that were sent together; one that is alone is a plain job for SLURM."""

    name: str
    """In the queue."""
    job: str | None
    """SLURM's id, which nobody could write down if the sender died."""
    cluster: str
    user: int
    """Who has sent it: the queue shows everybody his own jobs."""
    sent: float
    """Seconds since the epoch."""
    folder: str
    """Of the logs, as submitit takes it."""
    tasks: tuple[tuple[str, ...], ...]
    """run_ids of each task."""


class Task(NamedTuple):
    """One job of an array."""

    array: Array
    index: int

    @property
    def id(self) -> str | None:
        """As `scontrol` takes it; None where it was not written down."""
        if self.array.job is None or len(self.array.tasks) == 1:
            return self.array.job
        return f"{self.array.job}_{self.index}"

    @property
    def run_ids(self) -> tuple[str, ...]:
        return self.array.tasks[self.index]

    @property
    def log(self) -> Path:
        """What its processes say on stderr. Its id is known."""
        assert self.id is not None
        return Path(self.array.folder.replace("%j", self.id)) / f"{self.id}_0_log.err"


def folder_of(study: Path) -> Path:
    """Where files about jobs of SLURM are stored in the folder of a study."""
    return study / "slurm"


def write_array(study: Path, array: Array) -> Path:
    """Write the file of an array, or write it anew; returns its path."""
    path = folder_of(study) / f"{array.name}.json"
    write_text(path, json.dumps(dataclasses.asdict(array), indent=1) + "\n")
    return path


def arrays_of(study: Path) -> list[Array]:
    """What was sent for a study, in that order; files that are damaged are passed over."""
    return sorted(filter(None, map(_read, folder_of(study).glob("*.json"))), key=lambda array: array.sent)


def latest_tasks(arrays: Sequence[Array], cluster: str, runs: Collection[Run | MeasuredRun]) -> dict[str, Task]:
    """run_id -> the job that was sent for it last, of those that this user has sent to this cluster; runs for which
    none was are left out. Of other jobs its queue says nothing."""
    wanted = {run.run_id for run in runs}
    return {
        run_id: Task(array, index)
        for array in arrays
        if (array.cluster, array.user) == (cluster, os.getuid())
        for index, run_ids in enumerate(array.tasks)
        for run_id in run_ids
        if run_id in wanted
    }


def has_ended(who: Holder, cluster: str, jobs: Sequence[QueuedJob], arrays: Sequence[Array]) -> bool:
    """Whether a writer was one of the jobs of these arrays, and the queue has it no more."""
    mine = {array.job for array in arrays if (array.cluster, array.user) == (cluster, os.getuid())}
    sent = who.job is not None and who.cluster == cluster and who.job.partition("_")[0] in mine
    return sent and who.job not in {job.id for job in jobs}


def in_queue(tasks: Collection[Task], jobs: Sequence[QueuedJob]) -> dict[Task, QueuedJob]:
    """Those of the tasks that wait or run."""
    there = {(job.name, job.task): job for job in jobs}
    return {task: job for task in set(tasks) if (job := there.get((task.array.name, task.index)))}


def _read(path: Path) -> Array | None:
    """The array of a file; None where the file is damaged: nothing is known of its jobs then."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tasks = tuple(tuple(map(str, run_ids)) for run_ids in values["tasks"])
        return Array(**{**values, "tasks": tasks, "sent": float(values["sent"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def new_array(name: str, cluster: str, folder: str, tasks: Sequence[Sequence[Run]]) -> Array:
    """An array that is about to be sent to a cluster. Its name begins as is said, and is used once."""
    return Array(
        name=f"{name}.{secrets.token_hex(4)}",
        job=None,
        cluster=cluster,
        user=os.getuid(),
        sent=time.time(),
        folder=folder,
        tasks=tuple(tuple(run.run_id for run in runs) for runs in tasks),
    )
