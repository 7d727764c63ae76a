"""Waits for jobs of SLURM, and says which have ended without having done their work.

Whether a run is done its folder says. Whether a job still waits or runs the queue says; one that left it without a
result was killed, was cancelled or has failed. The second look that does not find it decides, because a job that
is queued again may be missing from one, and a network file system may show a result late.
"""

import time
from collections.abc import Callable, Sequence

from scaling.console.terminal import note
from scaling.study.slurm import commands
from scaling.study.slurm.arrays import Task, in_queue
from scaling.study.slurm.commands import UnavailableError

LOOKS = 2
"""In a row that do not find a job, until it counts as dead."""
OTHERS = ("srun:", "slurmstepd", "submitit ")
"""Programs whose lines in a log say how a job ended, and not why."""
LAST = 300
"""Characters of a log's last line that are shown."""


def wait(tasks: Sequence[Task], is_done: Callable[[str], bool], every: float) -> None:
    """Wait until no job of these waits or runs.

    Args:
        is_done: whether a run is done, by its id.
        every: seconds between two looks at the queue.
    """
    missed = dict.fromkeys(tasks, 0)
    silent = False
    while missed:
        try:
            there = in_queue(missed, commands.queue())
            silent = False
        except UnavailableError as fault:
            # A controller that does not answer says nothing about its jobs.
            if not silent:
                note(f"SLURM does not say which jobs are there ({fault}); asking again")
            there, silent = {}, True
        for task in list(missed):
            missed[task] = 0 if task in there else missed[task] + (not silent)
            if all(map(is_done, task.run_ids)):
                del missed[task]
            elif missed[task] >= LOOKS:
                del missed[task]
                note(dead(task, sum(not is_done(run_id) for run_id in task.run_ids)))
        if missed:
            time.sleep(every)


def dead(task: Task, left: int) -> str:
    """A job that has left the queue, in words."""
    return f"{end(task)} ({left} of its {len(task.run_ids)} runs are not done)"


def end(task: Task) -> str:
    """What is known of a job that is not in the queue: the last line of its log, of its own if there is one."""
    if task.id is None:
        return f"{task.array.name}: SLURM has refused it, or its number was lost, and it is not in the queue"
    try:
        lines = task.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    own = [line for line in lines if not line.startswith(OTHERS)] or lines
    said = f"{own[-1][:LAST]} ({task.log})" if own else f"it has said nothing (no log in {task.log.parent})"
    return f"SLURM job {task.id} has left the queue: {said}"
