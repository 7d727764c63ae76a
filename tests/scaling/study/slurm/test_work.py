"""When a job asks to be queued again, and what it says. `scontrol` is a stand-in here; tests/slurm has the real one."""

import signal
from types import SimpleNamespace

import pytest

from scaling.console.cli import UnfinishedError
from scaling.study.slurm.arrays import folder_of
from scaling.study.slurm.work import Limits, Work, requeued

RECORD = "JobState={state} Requeue={requeue} BatchFlag={batch} RunTime={time} TimeLimit={limit}"


@pytest.fixture
def slurm(command, in_job):
    def answers(state="RUNNING", requeue=1, batch=1, time="00:10:00", limit="04:00:00", exit_=0):
        in_job("12", "3")
        record = RECORD.format(state=state, requeue=requeue, batch=batch, time=time, limit=limit)
        calls = command("scontrol", f'if [ "$1" = show ]; then echo "{record}"; else exit {exit_}; fi')
        return lambda: [line for line in calls.read_text().splitlines() if line.startswith("requeue")]

    return answers


def test_a_running_job_is_queued_again_alone_of_its_array(slurm):
    asked = slurm()
    assert requeued() == "saved for another job; SLURM has queued job 12_3 again"
    assert asked() == ["requeue 12_3"]


def test_time_limits_are_counted_and_preemptions_not(slurm, tmp_path):
    limits = Limits(path=tmp_path / "x.0.limits", most=2)
    asked = slurm()
    assert "for another job" in requeued(limits, within=180)
    asked = slurm(time="03:58:00")
    assert "at its time limit (1 of 2)" in requeued(limits, within=180)
    assert "at its time limit (2 of 2)" in requeued(limits, within=180)
    assert "as often as hydra.launcher.max_num_timeout=2 allows" in requeued(limits, within=180)
    assert len(asked()) == 3


def test_a_job_without_a_limit_is_never_at_it(slurm, tmp_path):
    slurm(limit="UNLIMITED")
    assert "for another job" in requeued(Limits(path=tmp_path / "x", most=0), within=180)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"state": "COMPLETING"}, "SLURM ends the job (it is COMPLETING)"),
        ({"state": "CANCELLED"}, "SLURM ends the job (it is CANCELLED)"),
        ({"requeue": 0}, "sent with --no-requeue"),
        ({"batch": 0}, "not a batch job"),
    ],
)
def test_who_must_not_come_back_does_not(slurm, answer, said):
    asked = slurm(**answer)
    assert said in requeued() and asked() == []


def test_a_job_that_slurm_ends_at_its_limit_comes_back(slurm, tmp_path):
    """It had not listened yet when it was warned."""
    asked = slurm(state="COMPLETING", time="04:00:01")
    assert "at its time limit (1 of 1)" in requeued(Limits(path=tmp_path / "x", most=1), within=180)
    assert asked() == ["requeue 12_3"]


def test_a_refusal_is_said(slurm):
    slurm(exit_=1)
    assert "could not be queued again (scontrol requeue: exit status 1); the same command goes on" in requeued()


def test_outside_of_slurm_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeued() == "interrupted; the same command goes on"


@pytest.fixture
def work(tmp_path):
    def make(function):
        return Work(function=function, study=tmp_path, name="mine.1f", max_num_timeout=1, signal_delay_s=120)

    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_the_work_and_the_job_is_queued_again(work, slurm, capsys, number, tmp_path):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    asked = slurm(time="03:59:00")
    try:
        with pytest.raises(SystemExit) as end:
            work(lambda config: signal.raise_signal(number))(str(tmp_path / "000.json"), 5)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert end.value.code == 130 and asked() == ["requeue 12_3"]
    assert "at its time limit (1 of 1)" in capsys.readouterr().err
    assert (folder_of(tmp_path) / "mine.1f.5.limits").read_text() == "1\n"


def test_work_that_is_not_done_is_a_failed_job(work):
    seen = []
    work(lambda config: seen.append(config.stack))("a.json", 0)
    assert seen == ["a.json"]

    def unfinished(config):
        raise UnfinishedError("1 of 2 runs not done")

    with pytest.raises(SystemExit) as end:
        work(unfinished)("a.json", 0)
    assert end.value.code == 1
    with pytest.raises(ZeroDivisionError):
        work(lambda config: 1 / 0)("a.json", 0)


def test_submitits_own_handler_sends_the_same_again(work):
    pytest.importorskip("submitit")
    delayed = work(lambda config: True).checkpoint("a.json", 3)
    assert delayed.args == ("a.json", 3) and isinstance(delayed.function, Work)
    assert SimpleNamespace(**vars(delayed)).function.name == "mine.1f"
