"""`hydra.launcher` of a study on SLURM (configs/hydra/launcher/submitit_slurm.yaml), as a checked value.

The names are those of Hydra's submitit launcher, which this project's own stands in for: that one waits for an
accounting daemon that not every cluster has, and calls failed jobs completed.
"""

import dataclasses
from typing import Annotated, Any

from omegaconf import DictConfig

from scaling.config.compose import plain_config
from scaling.config.from_dict import Settings, build
from scaling.config.limits import Above, AtLeast, Count, FolderName, Seconds

OF_JOBLIB = ("n_jobs", "backend", "prefer", "require", "verbose", "pre_dispatch", "batch_size", "temp_folder")
"""What a study may say to Hydra's joblib launcher."""

LATER = ("sh", "-c", 'trap "" TERM USR1 USR2; exec "$@"', "sh")
"""Goes in front of Python: a signal that comes before Python listens would end the job, and SLURM would call it failed.
One that is preempted then is queued again by SLURM itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmSettings(Settings):
    """What jobs ask for, and how the sweep that sends them goes on. null is the cluster's own default."""

    timeout_min: Count
    """Time limit of a job, in minutes."""
    signal_delay_s: Count
    """Seconds before the time limit at which a job gets the signal to save and to be queued again: more than its
    longest update and a checkpoint take. SLURM may send it up to a minute early."""
    max_num_timeout: Annotated[int, AtLeast(0)]
    """How often a job may reach its time limit and be queued again. Preemptions are not counted."""
    detach: bool
    """Send the jobs and leave; the same command later goes on."""
    poll_s: Seconds
    """Seconds between two looks at the queue."""
    array_parallelism: Count
    """Most jobs of the study that run at once."""
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    exclude: str | None
    """Nodes not to use."""
    comment: str | None
    cpus_per_task: Count | None
    """CPUs of a job, and its threads."""
    mem_gb: Annotated[float, Above(0)] | None
    """Memory of a job, in GB."""
    mem_per_cpu: str | None
    gpus_per_node: Count | None
    """GPUs of a job; it uses one."""
    gres: str | None
    """Such as gpu:a100:1."""
    gpus_per_task: Count | None
    cpus_per_gpu: Count | None
    mem_per_gpu: str | None
    name: Annotated[str, FolderName()]
    """Of the jobs in the queue; a code for the array is put behind it."""
    setup: tuple[str, ...] | None
    """Lines of shell before Python is started, such as module load."""
    additional_parameters: dict[str, Any]
    """More options of sbatch, such as {reservation: mine}."""
    submitit_folder: str
    """Folder of scripts and logs; its last part has a %j."""

    def of_submitit(self) -> dict[str, Any]:
        """The parameters of submitit's executor."""
        common = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
        own = ("max_num_timeout", "detach", "poll_s", "submitit_folder", "name")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        parameters = {
            name if name in common else f"slurm_{name}": value
            for name, value in fields.items()
            if name not in own and value is not None
        }
        parameters["slurm_additional_parameters"] = {"requeue": True, **self.additional_parameters}
        if self.setup is not None:
            parameters["slurm_setup"] = list(self.setup)
        # From SLURM 22.05 on srun does not ask for what sbatch got, and binds the job to one CPU.
        cpus = [] if self.cpus_per_task is None else [f"--cpus-per-task={self.cpus_per_task}"]
        parameters["slurm_srun_args"] = [*cpus, *LATER]
        return parameters


def is_slurm(launcher: DictConfig) -> bool:
    """Whether jobs of this launcher are sent to SLURM."""
    return launcher._target_.endswith(".SlurmLauncher")


def slurm_settings(launcher: DictConfig) -> SlurmSettings:
    """The settings, without those that a study's file has for joblib, from which the command line took it to SLURM.

    Raises:
        InputError: a value is none that its setting takes.
    """
    values = {name: value for name, value in plain_config(launcher).items() if name not in ("_target_", *OF_JOBLIB)}
    return build(SlurmSettings, values, "hydra.launcher")
