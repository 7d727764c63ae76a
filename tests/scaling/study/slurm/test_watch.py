"""Which job trains which run, and what becomes of it. `squeue` is a stand-in here; tests/slurm has the real one."""

import dataclasses
import json
import os

import pytest

from scaling.records.run_folder import RunFolder
from scaling.records.writer import Holder
from scaling.study.slurm.arrays import (
    Array,
    Task,
    arrays_of,
    folder_of,
    has_ended,
    in_queue,
    latest_tasks,
    new_array,
    write_array,
)
from scaling.study.slurm.commands import QueuedJob
from scaling.study.slurm.watch import end, wait


@pytest.fixture
def runs(make_run):
    return [make_run(f"seed={seed}") for seed in range(3)]


def array(tmp_path, runs, code="1f", job="12", **changes):
    made = new_array("mine", "west", str(tmp_path / "slurm" / "%j"), [[run] for run in runs])
    return dataclasses.replace(made, name=f"mine.{code}", job=job, **changes)


def test_the_latest_job_of_a_run_counts(tmp_path, runs):
    first, second = array(tmp_path, runs, sent=100.0), array(tmp_path, runs[1:2], "2f", "13", sent=200.0)
    for each in (second, first):
        write_array(tmp_path, each)
    (folder_of(tmp_path) / "damaged.json").write_text("{")
    (folder_of(tmp_path) / "other.json").write_text(json.dumps({"tasks": 3}))
    found = latest_tasks(arrays_of(tmp_path), "west", runs)
    assert found == {
        runs[0].run_id: Task(first, 0),
        runs[1].run_id: Task(second, 0),
        runs[2].run_id: Task(first, 2),
    }
    assert [found[run.run_id].id for run in runs] == ["12_0", "13", "12_2"]
    assert latest_tasks(arrays_of(tmp_path), "west", runs[:1]).keys() == {runs[0].run_id}
    assert latest_tasks(arrays_of(tmp_path), "east", runs) == {}


def test_a_writer_has_ended_if_it_was_a_job_of_ours_that_the_queue_has_no_more(tmp_path, runs):
    ours, others = array(tmp_path, runs), array(tmp_path, runs, user=os.getuid() + 1)
    who = Holder("n1", 7, 1.0, "12_1", "west")
    there = [QueuedJob("12_2", "mine.1f", "RUNNING", "None", "n1")]
    assert has_ended(who, "west", there, [ours])
    assert not has_ended(who._replace(job="12_2"), "west", there, [ours])
    for other in (who._replace(cluster="east"), who._replace(job="13_1"), who._replace(job=None)):
        assert not has_ended(other, "west", there, [ours])
    assert not has_ended(who, "west", there, [others])


def test_jobs_are_found_in_the_queue_by_name(tmp_path, runs):
    """Their number may never have been written down."""
    sent = array(tmp_path, runs, job=None)
    tasks = [Task(sent, i) for i in range(3)]
    jobs = [
        QueuedJob("44_2", "mine.1f", "RUNNING", "None", "n1"),
        QueuedJob("45_0", "mine.2f", "PENDING", "Resources", ""),
        QueuedJob("44_0", "mine.1f", "PENDING", "Resources", ""),
    ]
    assert in_queue(tasks, jobs) == {tasks[2]: jobs[0], tasks[0]: jobs[2]}


def test_a_job_that_leaves_the_queue_without_a_result_is_dead(command, tmp_path, runs, capsys):
    """It is reported once, with the last line of its log; the others are waited for."""
    sent = array(tmp_path, runs)
    tasks = [Task(sent, i) for i in range(3)]
    log = tasks[1].log
    log.parent.mkdir(parents=True)
    log.write_text("first\nOut of memory\nsrun: error: n1: task 0: Killed\nslurmstepd: error: x\n")
    looks = tmp_path / "looks"
    # Task 1 is gone from the second look on, task 0 from the fourth, task 2 is done.
    command(
        "squeue",
        f'echo x >> {looks}\nn=$(wc -l < {looks})\n[ $n -lt 4 ] && echo "12_0|RUNNING|None|n1|mine.1f"\n'
        '[ $n -lt 2 ] && echo "12_1|RUNNING|None|n1|mine.1f"\ntrue',
    )
    wait(tasks, lambda run_id: run_id == runs[2].run_id, every=0.01)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"SLURM job 12_1 has left the queue: Out of memory ({log}) (1 of its 1 runs are not done)",
        f"SLURM job 12_0 has left the queue: it has said nothing (no log in {tasks[0].log.parent}) "
        "(1 of its 1 runs are not done)",
    ]
    assert looks.read_text().count("x") == 5


def test_a_controller_that_is_silent_kills_nobody(command, tmp_path, runs, capsys):
    sent = array(tmp_path, runs[:1])
    looks = tmp_path / "looks"
    command(
        "squeue",
        f"echo x >> {looks}\nn=$(wc -l < {looks})\n[ $n -gt 4 ] && exit 0\n[ $n -gt 1 ] && exit 1\n"
        'echo "12|RUNNING|None|n1|mine.1f"',
    )
    wait([Task(sent, 0)], lambda run_id: False, every=0.01)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in said] == [
        "SLURM does not say which jobs are there",
        "SLURM job 12 has left the queue: it has said nothing",
    ]
    assert looks.read_text().count("x") == 6


def test_a_number_that_was_lost_is_said(tmp_path, runs):
    assert "its number was lost" in end(Task(array(tmp_path, runs, job=None), 0))


def test_array_files_survive_a_round_trip(tmp_path, runs):
    sent = array(tmp_path, runs)
    path = write_array(tmp_path, sent)
    values = json.loads(path.read_text())
    assert Array(**{**values, "tasks": tuple(map(tuple, values["tasks"]))}) == sent
    assert path.parent == folder_of(tmp_path) and RunFolder(runs[0]).path.name in path.read_text()
