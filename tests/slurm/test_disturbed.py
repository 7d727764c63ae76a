"""What a cluster does to jobs: preempted, out of time, killed, cancelled. The losses stay those of undisturbed runs."""

import os
import signal

from tests.slurm.cluster import GRACE
from tests.slurm.conftest import ended, eventually


def test_a_preempted_job_saves_is_queued_again_and_goes_on(study, cluster):
    mine = study("seed=0,1", "runtime.checkpoint_seconds=1e6")
    sweep = mine.start()
    eventually(mine.is_training)
    cluster.preempt()
    job = eventually(lambda: [job for job, state in cluster.states().items() if state == "PENDING"])
    reached = mine.saved_at()
    assert all(0 < step < 1000 for step in reached), "saved before its grace time ended, as no other checkpoint is due"
    assert "2 queued" in mine.status()
    cluster.hurry()
    status, said = ended(sweep)
    assert status == 0, said
    assert f"saved for another job; SLURM has queued job {job[0]} again" in mine.log()
    assert mine.status().splitlines()[-1] == "2 runs: 2 done"
    mine.check()


def test_a_job_that_is_preempted_before_it_listens_comes_back_too(study, cluster, steps_in):
    mine = study(f"data.tokens={128 * steps_in(2 * GRACE)}")  # it is at work still when its grace time ends
    sweep = mine.start()
    eventually(lambda: "RUNNING" in cluster.states().values())
    cluster.preempt()
    eventually(lambda: "PENDING" in cluster.states().values())
    cluster.hurry()
    status, said = ended(sweep)
    assert status == 0, said
    mine.check()


def test_a_job_goes_on_behind_its_time_limit_as_often_as_it_may(study, cluster, steps_in):
    # SLURM looks at its limits every half minute: it warns behind 10 to 40 of the 60 seconds.
    mine = study(f"data.tokens={128 * steps_in(60)}")
    limit = ("timeout_min=1", "signal_delay_s=50", "max_num_timeout=1")
    sweep = mine.start(*(f"hydra.launcher.{setting}" for setting in limit))
    eventually(lambda: "PENDING" in cluster.states().values() and "at its time limit (1 of 1)" in mine.log())
    first = mine.saved_at()
    cluster.hurry()
    eventually(lambda: mine.is_training(since=first))
    cluster.ask("scancel", "--signal=USR2", *cluster.states())
    status, said = ended(sweep)
    assert status == 1
    assert "time limit reached, as often as hydra.launcher.max_num_timeout=1 allows; the same command goes on" in said
    assert said.count("left the queue") == 1 and "run again to go on" in said.splitlines()[-1]
    assert mine.saved_at() > first and "1 partial" not in mine.status()
    status, said = mine.train()
    assert status == 0, said
    assert "torch.compile" not in mine.log()
    mine.check()


def test_a_job_that_is_killed_is_noticed_and_sent_again(study, cluster):
    mine = study("seed=0,1", "runtime.checkpoint_seconds=0.5")
    sweep = mine.start()
    eventually(mine.is_training)
    eventually(lambda: all(folder.checkpoint_path.exists() for folder in mine.folders()))
    cluster.ask("scancel", "--signal=KILL", "--full", *cluster.states())
    status, said = ended(sweep, seconds=20)
    assert status == 1 and "has left the queue" in said and "(2 of its 2 runs are not done)" in said
    assert said.splitlines()[-1].endswith("; run again to go on")
    status = mine.status()
    assert status.splitlines()[-1] == "2 runs: 2 dead" and "the command that began them goes on" in status
    status, said = mine.train()
    assert status == 0 and "all 2 runs are done" in said
    mine.check()


def test_a_job_that_is_cancelled_saves_and_stays_away(study, cluster):
    mine = study("runtime.checkpoint_seconds=1e6")
    sweep = mine.start()
    eventually(mine.is_training)
    cluster.ask("scancel", *cluster.states())
    status, said = ended(sweep)
    assert status == 1 and "interrupted; SLURM ends the job" in said
    assert mine.saved_at()[0] > 0 and cluster.states() == {}
    assert mine.train()[0] == 0
    mine.check()


def test_a_measurement_does_not_keep_a_job_from_saving(study, cluster):
    """GPTQ in all formats takes longer than the grace time here, and a scheduler does not wait for it."""
    gptq = ("ptq=gptq", "ptq.formats=[int2,int3,int4,int5,int6,int7,int8,e2m1,e3m2,e4m3,nf4,mxfp4]")
    mine = study("data.tokens=25600", "model=83k", "data.eval_windows=256", *gptq, "runtime.checkpoint_seconds=1e6")
    sweep = mine.start()
    (folder,) = eventually(mine.folders)
    eventually(lambda: (folder.path / "metrics.jsonl").exists() and '"tokens": 25600' in _curve(folder))
    cluster.preempt()
    eventually(lambda: "PENDING" in cluster.states().values())
    assert "saved for another job" in mine.log() and mine.saved_at() == [200]
    cluster.hurry()
    assert ended(sweep)[0] == 0
    mine.check()


def _curve(folder) -> str:
    return (folder.path / "metrics.jsonl").read_text()


def test_whoever_waits_may_be_stopped_and_the_jobs_go_on(study, cluster, steps_in):
    mine = study("seed=0,1", f"data.tokens={128 * steps_in(60)}")
    sweep = mine.start()
    eventually(mine.is_training)
    os.kill(sweep.pid, signal.SIGTERM)
    status, said = ended(sweep)
    assert status == 130 and "mine: 1 jobs are with SLURM" in said
    status = mine.status()
    assert "2 running" in status and f"on {cluster.host} (SLURM job " in status and " since " in status
    status, said = mine.train()
    assert status == 0 and "2 runs are in 1 jobs that SLURM has already" in said and "sent to SLURM" not in said
    mine.check()
