import math

import pytest

from scaling.study.slurm import commands
from scaling.study.slurm.commands import Cluster, JobRecord, QueuedJob, UnavailableError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:30", 30), ("01:02:03", 3723), ("2-03:04:05", 183845), ("10:00", 600), ("1-00:00:00", 86400)],
)
def test_durations(text, seconds):
    assert commands.seconds(text) == seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "INVALID", "", "Partition_Limit"])
def test_no_duration_is_no_limit(text):
    assert commands.seconds(text) == math.inf


def test_the_queue_is_read(command):
    calls = command("squeue", "printf '12_3|PENDING|Resources||a|b.1f\\n7|RUNNING|None|node1|x.22\\nnonsense\\n'")
    waiting, running = commands.queue()
    assert waiting == QueuedJob("12_3", "a|b.1f", "PENDING", "Resources", "")
    assert (waiting.task, waiting.waits) == (3, True)
    assert running == QueuedJob("7", "x.22", "RUNNING", "None", "node1")
    assert (running.task, running.waits) == (0, False)
    assert "--array" in calls.read_text()


def test_a_record_is_read(command):
    text = (
        "JobId=13 ArrayJobId=12 JobName=x y JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1 "
        "RunTime=00:01:05 TimeLimit=04:00:00 TimeMin=N/A Command=/a/b c"
    )
    command("scontrol", f"echo '{text}'")
    assert commands.record("12_3") == JobRecord("RUNNING", 65, 14400, True, True)


@pytest.mark.parametrize(("said", "most"), [("MaxArraySize            = 5", 5), ("x = 1", 1001), ("", 1001)])
def test_the_cluster_is_read(command, said, most):
    command("scontrol", f"printf 'ClusterName             = west\\n{said}\\n'")
    assert commands.cluster() == Cluster("west", most)


def test_without_slurm_a_line_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError, match=r"^squeue: not on this machine"):
        commands.queue()


def test_what_slurm_refuses_is_passed_on(command):
    command("scontrol", "echo first >&2; echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    with pytest.raises(UnavailableError, match="scontrol requeue: slurm_load_jobs error: Invalid job id specified"):
        commands.requeue("12_3")


def test_a_controller_that_does_not_answer_is_given_up(command, monkeypatch):
    monkeypatch.setattr(commands, "SECONDS", 0.2)
    command("squeue", "exec sleep 5")
    with pytest.raises(UnavailableError, match="no answer from SLURM"):
        commands.queue()
