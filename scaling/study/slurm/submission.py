"""Sends stacks to SLURM as arrays of jobs.

An array has at most as many tasks as the cluster allows (MaxArraySize), and its own limit of how many run at once; a
study that needs several arrays shares its limit out among them, and where it is smaller than their number, one array
follows another.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scaling.config.run import Run
from scaling.console.terminal import note
from scaling.errors import InputError
from scaling.study.slurm.arrays import Task, new_array, write_array
from scaling.study.slurm.commands import Cluster
from scaling.study.slurm.settings import SlurmSettings
from scaling.study.slurm.work import Work

Stack = tuple[Path, Sequence[Run]]
"""The file of a stack, and its runs."""


def send(
    stacks: Sequence[Stack],
    settings: SlurmSettings,
    cluster: Cluster,
    function: Callable,
    after: Sequence[str] = (),
) -> tuple[list[Task], str]:
    """Send a job for each stack.

    Args:
        cluster: where to.
        function: takes the config of a job, `stack` alone, and raises where a run of it is not done.
        after: ids of jobs that have to end first, however they end.

    Returns:
        What was sent, and why the rest was not; empty where all was.

    Raises:
        InputError: submitit or SLURM is not here.
    """
    executor = _executor(settings)
    sent: list[Task] = []
    at_once, lanes, arrays = shares(len(stacks), cluster.largest_array, settings.array_parallelism)
    first = 0
    for number, size in enumerate(arrays):
        part = stacks[first : first + size]
        first += size
        # The array before it in its lane, which has the same share of the limit.
        before = [sent[sum(arrays[: number - lanes])].array.job] if number >= lanes else []
        try:
            sent += _sent(executor, part, settings, cluster.name, function, [*after, *before], at_once)
        except _faults() as fault:
            return sent, " ".join(str(fault).split())
    return sent, ""


def shares(jobs: int, largest: int, at_once: int) -> tuple[int, int, list[int]]:
    """How so many jobs become arrays of at most `largest` tasks, of which `at_once` run at once: the limit of each
    array, how many arrays run beside each other, and the sizes of all."""
    count = -(-jobs // largest)
    sizes = [jobs // count + (i < jobs % count) for i in range(count)]
    lanes = min(count, at_once)
    return at_once // lanes, lanes, sizes


def _sent(
    executor,
    part: Sequence[Stack],
    settings: SlurmSettings,
    cluster: str,
    function: Callable,
    after: Sequence[str],
    at_once: int,
) -> list[Task]:
    """Send one array."""
    study = part[0][0].parents[1]
    folder = str(Path(settings.submitit_folder).absolute())
    array = new_array(settings.name, cluster, folder, [runs for _, runs in part])
    write_array(study, array)
    work = Work(
        function=function,
        study=study,
        name=array.name,
        max_num_timeout=settings.max_num_timeout,
        signal_delay_s=settings.signal_delay_s,
    )
    dependency = {"slurm_dependency": "afterany:" + ":".join(after)} if after else {}
    executor.update_parameters(name=array.name, slurm_array_parallelism=at_once, **dependency)
    with _outside_of_jobs():
        # A fault leaves the array's file: a controller that was too slow to answer may have the jobs all the same.
        jobs = executor.map_array(work, [str(path) for path, _ in part], range(len(part)))
    array = dataclasses.replace(array, job=jobs[0].job_id.partition("_")[0])
    write_array(study, array)
    count = f"{len(part)} jobs" if len(part) > 1 else "one job"
    note(f"{part[0][1][0].study}: {count} sent to SLURM as {array.job} ({array.name})")
    return [Task(array, index) for index in range(len(part))]


def _executor(settings: SlurmSettings):
    try:
        import submitit
    except ImportError:
        raise InputError(
            "hydra/launcher=submitit_slurm: needs submitit; pip install 'precision-scaling[slurm]'"
        ) from None
    try:
        executor = submitit.AutoExecutor(
            folder=settings.submitit_folder, cluster="slurm", slurm_max_num_timeout=settings.max_num_timeout
        )
        executor.update_parameters(**settings.of_submitit())
    except RuntimeError as fault:
        raise InputError(f"hydra/launcher=submitit_slurm: {fault}") from None
    return executor


def _faults() -> tuple[type[Exception], ...]:
    """What submitit raises where sbatch refuses, or is not there."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    return FailedJobError, FailedSubmissionError, OSError


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Let sbatch not see that it may be called in a job: the new ones would inherit its number of CPUs and what they
    are bound to. What says where SLURM is, and what a person has chosen for sbatch, stays."""
    from submitit.helpers import clean_env

    stays = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env():
        os.environ.update(stays)
        yield
