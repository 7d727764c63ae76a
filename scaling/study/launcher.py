"""How a machine is divided among the jobs of a launcher (basic, joblib, submitit): how many run at once, and with how
many threads each. `runtime.threads` overrides it."""

from omegaconf import DictConfig

from scaling.console.allocation import cores
from scaling.study.slurm.settings import is_slurm


def workers(launcher: DictConfig) -> int | None:
    """Jobs that the launcher runs at once on this machine; None where every job is started at once (submitit), be it
    here or each on a machine of its own: such jobs are whole stacks, split by `runtime.max_members` alone."""
    if is_slurm(launcher):
        return None
    if launcher._target_.endswith(".BasicLauncher"):
        return 1
    if "n_jobs" in launcher:
        # joblib's -1 is all cores, -2 all but one.
        return launcher.n_jobs if launcher.n_jobs > 0 else max(1, cores() + 1 + launcher.n_jobs)
    return None


def threads_per_job(launcher: DictConfig, jobs: int) -> int | None:
    """CPU threads for each of so many jobs; None where the job itself has to see what its machine has."""
    if is_slurm(launcher):
        return launcher.cpus_per_task
    return max(1, cores() // min(jobs, workers(launcher) or jobs))
