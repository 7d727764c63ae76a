"""What SLURM's own commands say. No accounting daemon (slurmdbd) is asked, as not every cluster has one.

squeue lists the jobs that wait or run; of one that has ended SLURM itself knows nothing for long.
"""

import os
import re
import subprocess
from typing import NamedTuple

from scaling.errors import InputError

SECONDS = 60
"""That a command may take: the controller of a busy cluster answers late."""
LARGEST_ARRAY = 1001
"""SLURM's default of MaxArraySize."""


class UnavailableError(InputError):
    """SLURM cannot be asked: there is none here, it does not answer, or it refuses."""


class Cluster(NamedTuple):
    """What SLURM is set to."""

    name: str
    largest_array: int
    """Most tasks of one array (MaxArraySize)."""


class QueuedJob(NamedTuple):
    """A job that waits or runs, or one task of an array."""

    id: str
    """12, or 12_3 for task 3 of array 12."""
    name: str
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it waits."""
    nodes: str

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")

    @property
    def task(self) -> int:
        """Its number in its array; 0 where it is not in one."""
        return int(self.id.rpartition("_")[2]) if "_" in self.id else 0


class JobRecord(NamedTuple):
    """What SLURM knows of a job that runs."""

    state: str
    seconds: float
    """Since it was started."""
    limit: float
    """Seconds that it may run; inf where there is no limit."""
    is_batch: bool
    may_requeue: bool


def queue() -> list[QueuedJob]:
    """The jobs of this user that wait or run."""
    text = _said("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r|%N|%j")
    fields = [line.strip().split("|", 4) for line in text.splitlines() if line.count("|") >= 4]
    return [QueuedJob(id_, name, state, reason, nodes) for id_, state, reason, nodes, name in fields]


def record(job: str) -> JobRecord:
    """What SLURM knows of a job that runs, or ran a moment ago."""
    text = _said("scontrol", "show", "job", "--oneliner", job)

    def field(name: str) -> str:
        match = re.search(rf"(?:^|\s){name}=(\S*)", text)
        return match[1] if match else ""

    return JobRecord(
        state=field("JobState"),
        seconds=seconds(field("RunTime")),
        limit=seconds(field("TimeLimit")),
        is_batch=field("BatchFlag") == "1",
        may_requeue=field("Requeue") == "1",
    )


def requeue(job: str) -> None:
    """Queue a job again, which ends it where it runs."""
    _said("scontrol", "requeue", job)


def cluster() -> Cluster:
    """The cluster that is asked."""
    text = _said("scontrol", "show", "config")

    def value(name: str) -> str:
        match = re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE)
        return match[1] if match else ""

    most = value("MaxArraySize")
    return Cluster(value("ClusterName"), max(1, int(most)) if most.isdecimal() else LARGEST_ARRAY)


def seconds(duration: str) -> float:
    """SLURM's 2-03:04:05, 03:04:05 or 04:05; inf for what is none, such as UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", duration)
    if not match:
        return float("inf")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]}: not on this machine; use one from which SLURM's jobs are sent") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]}: no answer from SLURM in {SECONDS} s; try again later") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UnavailableError(f"{' '.join(command[:2])}: {lines[-1]}")
    return done.stdout
