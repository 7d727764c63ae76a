"""How a study gets to a cluster: arrays, inherited settings, senders that leave or die, jobs that fail, groups of
processes."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.slurm.cluster import MAX_ARRAY_SIZE
from tests.slurm.conftest import ended, eventually

QUICK = ("data.tokens=5120", "runtime.max_members=1")


def test_more_stacks_than_an_array_may_have_tasks(study):
    mine = study(*QUICK, "seed=0,1,2,3,4,5,6")
    status, said = mine.train("hydra.launcher.array_parallelism=1")
    assert status == 0, said
    assert len(mine.runs()) == 7 > MAX_ARRAY_SIZE
    assert "mine: 4 jobs sent to SLURM as" in said and "mine: 3 jobs sent to SLURM as" in said
    mine.check()


def test_waves_wait_for_each_other_in_the_queue(study, cluster):
    """Sent at once, and left: branches begin when their parents have ended."""
    mine = study("schedule=constant", "snapshots=[12800]", "data.tokens=25600")
    assert mine.train()[0] == 0
    (trunk,) = mine.runs()
    mine.check()
    wave = study(
        *("schedule=linear", "data.tokens=25600", f"branch.parent={trunk.run_id}", "branch.tokens=12800"), "seed=0"
    )
    assert wave.train()[0] == 0


def test_a_job_has_its_own_cpus_when_it_is_sent_from_another(study, cluster):
    """The sender is bound to one CPU, and SLURM says so in variables that sbatch and srun would read."""
    if cluster.cpus < 2:
        pytest.skip("needs two CPUs")
    mine = study("data.tokens=25600", "runtime.threads=null")
    inside = ("srun", "--partition=high", "--ntasks=1", "--cpus-per-task=1", "--cpu-bind=mask_cpu:0x1")
    # One CPU remains for the job, so the sender leaves before it begins.
    status, said = ended(mine.start("hydra.launcher.cpus_per_task=2", "hydra.launcher.detach=true", command=inside))
    assert status == 0, said
    eventually(lambda: cluster.states() == {})
    (folder,) = mine.folders()
    assert folder.result()["threads"] == 2
    mine.check()
    other = study("data.tokens=25600", "runtime.threads=null", "seed=1")
    assert ended(other.start("hydra.launcher.detach=true", command=inside))[0] == 0
    eventually(lambda: cluster.states() == {})
    assert sorted(folder.result()["threads"] for folder in other.folders()) == [1, 2]


def test_submit_and_leave(study, cluster):
    mine = study("seed=0,1")
    taken = subprocess.Popen(
        ["srun", "--partition=high", f"--ntasks={cluster.cpus}", "sleep", "600"], env=cluster.environment
    )
    eventually(lambda: "RUNNING" in cluster.states().values())
    detached = "hydra.launcher.detach=true"
    status, said = mine.train(detached)
    assert status == 0 and "mine: 1 jobs are with SLURM" in said
    status = mine.status()
    assert "2 queued" in status and "waits (Resources)" in status
    status, said = mine.train(detached)
    assert status == 0 and "2 runs are in 1 jobs that SLURM has already" in said
    taken.terminate()
    taken.wait()
    eventually(mine.is_training)
    status = mine.status()
    assert "2 running" in status and f"on {cluster.host} (SLURM job " in status
    cluster.ask("scancel", "--signal=KILL", "--full", *cluster.states())
    eventually(lambda: cluster.states() == {})
    assert "2 dead" in mine.status()
    status, said = mine.train(detached)
    assert status == 0 and "one job sent to SLURM" in said
    eventually(lambda: cluster.states() == {})
    assert mine.status().splitlines()[-1] == "2 runs: 2 done"
    assert mine.train(detached)[1].splitlines()[-1] == "mine: all 2 runs are done, 0 of them now"
    mine.check()


def test_a_sender_that_dies_between_sbatch_and_its_answer(study, cluster, tmp_path):
    """SLURM has the job, and nobody has its number. submitit had no time to give it its work either."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.write_text('#!/bin/sh\nPATH=${PATH#*:}\nsbatch --hold "$@"\nkill -9 $PPID\n')
    fake.chmod(0o755)
    mine = study("seed=0,1", "data.tokens=25600")
    sweep = mine.start(PATH=f"{tmp_path / 'bin'}:{cluster.environment['PATH']}")
    sweep.communicate()
    assert sweep.returncode == -9 and len(cluster.states()) == 1
    assert "2 queued" in mine.status()
    cluster.empty()
    status = mine.status()
    assert "2 dead" in status and "its number was lost" in status
    status, said = mine.train()
    assert status == 0, said
    mine.check()


def test_what_fails_in_a_job_is_said_and_no_success(study, cluster):
    """For Hydra such a job has been completed, and its log does not say why it was not."""
    mine = study(*QUICK, "seed=0,1")
    mine.train("hydra.launcher.detach=true", "hydra.launcher.setup=[exit 3]")  # its folders are known, and empty
    cluster.empty()
    broken, _ = mine.folders()
    (broken.path / "metrics.jsonl").mkdir(parents=True)
    status, said = mine.train()
    assert status == 1 and f"1 of 2 runs not done: {broken.run.run_id}" in said.splitlines()[-1]
    assert "IsADirectoryError" in said and "(1 of its 1 runs are not done)" in said
    status = mine.status()
    assert status.splitlines()[-1] == "2 runs: 1 done, 1 failed" and "IsADirectoryError" in status
    job = next(line for line in said.splitlines() if "has left the queue" in line).split()[2]
    assert "JobState=FAILED" in cluster.ask("scontrol", "show", "job", job)
    (broken.path / "metrics.jsonl").rmdir()
    assert mine.train()[0] == 0
    mine.check()


def test_a_job_that_never_comes_to_python(study, cluster):
    mine = study(*QUICK)
    status, said = mine.train("hydra.launcher.setup=[exit 3]")
    assert status == 1 and "has left the queue: it has said nothing" in said
    assert mine.status().splitlines()[-1] == "1 runs: 1 dead"
    assert mine.train()[0] == 0
    mine.check()


def test_what_sbatch_refuses_is_one_line(study):
    mine = study(*QUICK)
    status, said = mine.train("hydra.launcher.partition=nowhere")
    assert status == 1
    assert said.splitlines()[-1].startswith("scaling.train: SLURM has refused jobs: sbatch: error: ")
    assert "invalid partition specified: nowhere" in said and "Traceback" not in said


def test_a_group_of_processes_in_a_job_is_the_run_of_one(study, cluster):
    """torchrun in a batch script of one's own, which is preempted and queued again too."""
    mine = study("data.tokens=256000", "runtime.checkpoint_seconds=1e6")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    where = f"runtime.out={mine.folder / 'outputs'}"
    script = mine.folder / "job.sh"
    arguments = " ".join(f"'{setting}'" for setting in (*mine.settings, where))
    script.write_text(
        "#!/bin/bash\n"
        f"#SBATCH --partition=low --ntasks=1 --cpus-per-task={cluster.cpus} --requeue --signal=TERM@60 --time=10\n"
        f"#SBATCH --open-mode=append --output={mine.folder}/job.log --chdir={REPOSITORY}\n"
        f"srun --cpus-per-task={cluster.cpus} {' '.join(torchrun)} scaling.train {arguments}\n"
    )
    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run(["sbatch", str(script)], env=environment, check=True)
    path = mine.folder / "outputs" / "mine"
    eventually(lambda: any(curve.read_text().count("\n") > 5 for curve in path.glob("*/metrics.jsonl")))
    cluster.preempt()
    eventually(lambda: "PENDING" in cluster.states().values())
    assert list(path.glob("*/checkpoint.safetensors")), "saved, as no other checkpoint was due"
    cluster.hurry()
    eventually(lambda: cluster.states() == {})
    log = (mine.folder / "job.log").read_text()
    assert "SLURM has queued job" in log and log.count(": loss ") == 1
    undisturbed, alone = mine.folder / "undisturbed", mine.folder / "alone"
    for out, command in ((undisturbed, torchrun), (alone, [sys.executable, "-m"])):
        command = [*command, "scaling.train", *mine.settings, f"runtime.out={out}"]
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    two, same, one = (_evaluated(out) for out in (mine.folder / "outputs", undisturbed, alone))
    assert two == same
    assert two == pytest.approx(one, rel=1e-4)


def _evaluated(out) -> list[float]:
    (path,) = out.glob("*/*/result.json")
    return [evaluation["loss"] for evaluation in json.loads(path.read_text())["evaluations"]]
