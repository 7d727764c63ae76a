"""What this process was given of a machine: its cores, and the job of SLURM that it belongs to.

SLURM is not called here: what it passes to its processes are environment variables.
"""

import os
from typing import NamedTuple


class SlurmJob(NamedTuple):
    """A job of SLURM, or one task of an array. Its id stays when it is queued again."""

    id: str
    """12, or 12_3 for task 3 of an array: what `scontrol` takes for this one alone."""
    restarts: int
    """How often it was queued again before."""
    cluster: str
    """Jobs of two clusters may have the same id."""


def slurm_job() -> SlurmJob | None:
    """The job that this process belongs to; None outside of SLURM."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID") if task is None else f"{os.environ.get('SLURM_ARRAY_JOB_ID')}_{task}"
    if not job:
        return None
    return SlurmJob(job, _number("SLURM_RESTART_COUNT") or 0, os.environ.get("SLURM_CLUSTER_NAME", ""))


def cores() -> int:
    """CPU cores that this process may use.

    SLURM does not bind processes to what it gave them on every cluster, so what it says counts as well.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = _number("SLURM_CPUS_PER_TASK") or _number("SLURM_CPUS_ON_NODE") or here
    return max(1, min(here, given))


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
