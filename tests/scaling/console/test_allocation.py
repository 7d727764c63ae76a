import os

import pytest

from scaling.console.allocation import SlurmJob, cores, slurm_job

HERE = len(os.sched_getaffinity(0))


@pytest.fixture
def says(monkeypatch):
    """says(SLURM_JOB_ID="7", ...): all that SLURM passes to this process."""

    def say(**variables):
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return say


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, SlurmJob("7", 0, "")),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3", "SLURM_CLUSTER_NAME": "west"}, SlurmJob("7", 3, "west")),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, SlurmJob("7_2", 0, "")),
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, SlurmJob("7_0", 0, "")),
    ],
)
def test_the_job_of_a_process(says, variables, job):
    says(**variables)
    assert slurm_job() == job


def test_cores_are_those_that_were_given(says):
    says()
    assert cores() == HERE
    says(SLURM_CPUS_ON_NODE="1")
    assert cores() == 1
    says(SLURM_CPUS_PER_TASK="1", SLURM_CPUS_ON_NODE="64")
    assert cores() == 1
    says(SLURM_CPUS_ON_NODE="1000")
    assert cores() == HERE  # bound to fewer
    says(SLURM_CPUS_ON_NODE="8(x2)")
    assert cores() == HERE
