"""What a job of SLURM does: it trains a stack, and at a signal it saves and is queued again.

SLURM ends a job in three ways that it announces. When a job of higher priority needs the place it sends SIGTERM, and
waits for the grace time of the partition. Before the time limit it sends what `sbatch --signal` named. When a person
cancels the job it sends SIGTERM as well, and such a job must not come back: its state shows that, which is no longer
RUNNING. Whatever ended after a warning without being queued again counts for SLURM as failed or completed, although it
was neither: so a job asks for it itself.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

from scaling.console import interrupt
from scaling.console.allocation import slurm_job
from scaling.console.interrupt import Interrupted
from scaling.console.job import is_done
from scaling.console.terminal import note
from scaling.records.files import write_text
from scaling.study.slurm import commands
from scaling.study.slurm.arrays import folder_of
from scaling.study.slurm.commands import UnavailableError

EARLY = 60.0
"""Seconds by which SLURM may send a signal before it is due."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What submitit pickles for the jobs of one array, and calls in each."""

    function: Callable
    """Takes a config with `stack`, and raises where a run of it is not done."""
    study: Path
    name: str
    """Of the array."""
    max_num_timeout: int
    signal_delay_s: int

    def __call__(self, stack: str, index: int) -> None:
        """Train a stack. Ends the process with a status other than 0 if a run of it is not done."""
        try:
            with interrupt.raising():
                done = is_done(self.function, OmegaConf.create({"stack": stack}))
        except Interrupted:
            interrupt.ignore()
            note(requeued(self._limits(index), within=self.signal_delay_s + EARLY))
            sys.exit(130)
        if not done:
            sys.exit(1)

    def checkpoint(self, stack: str, index: int):
        """What submitit's own handler of signals calls, which is in force until `__call__` is: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, stack, index)

    def _limits(self, index: int) -> "Limits":
        path = folder_of(self.study) / f"{self.name}.{index}.limits"
        return Limits(path=path, most=self.max_num_timeout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How often a job has reached its time limit, and may."""

    path: Path
    most: int

    def count(self) -> int:
        """Count one more, and return how many there were."""
        try:
            known = int(self.path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            known = 0
        write_text(self.path, f"{known + 1}\n")
        return known + 1


def requeued(limits: Limits | None = None, within: float = 0.0) -> str:
    """Queue this job again, where it can be and should; what became of it, in words.

    Args:
        limits: of its time limits; None: as often as it likes.
        within: seconds before the time limit in which a signal announces it.
    """
    again = "the same command goes on"
    job = slurm_job()
    if job is None:
        return f"interrupted; {again}"
    try:
        known = commands.record(job.id)
        if not known.is_batch:
            return f"interrupted; not a batch job, which alone SLURM can queue again; {again}"
        at_limit = known.seconds >= known.limit - within
        if known.state != "RUNNING" and known.seconds < known.limit:
            return f"interrupted; SLURM ends the job (it is {known.state}); {again}"
        if not known.may_requeue:
            return f"interrupted; the job was sent with --no-requeue; {again}"
        why = "for another job"
        if at_limit and limits is not None:
            count = limits.count()
            if count > limits.most:
                return f"time limit reached, as often as hydra.launcher.max_num_timeout={limits.most} allows; {again}"
            why = f"at its time limit ({count} of {limits.most})"
        commands.requeue(job.id)
    except UnavailableError as fault:
        return f"interrupted; the job could not be queued again ({fault}); {again}"
    return f"saved {why}; SLURM has queued job {job.id} again"
