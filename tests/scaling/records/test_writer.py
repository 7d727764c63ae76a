"""One writer a run folder: who is one, who is not, and what becomes of a writer that has died or was taken over."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from scaling.records import writer
from scaling.records.files import replacing, write_new
from scaling.records.writer import HeldError, Holder, Writer, holder, left_behind, release
from tests.conftest import REPOSITORY

HOLD = (
    "import sys, time; from pathlib import Path; from scaling.records.writer import Writer;"
    "w = Writer.take(Path(sys.argv[1])); print(w.token, flush=True); time.sleep(60)"
)


@pytest.fixture
def elsewhere(tmp_path):
    """A process that holds the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_folder_has_one_writer_until_it_is_killed(tmp_path, elsewhere):
    with pytest.raises(HeldError, match=f"process {elsewhere.pid} on {socket.gethostname()} is writing to it"):
        Writer.take(tmp_path)
    assert str(holder(tmp_path)) == f"process {elsewhere.pid} on {socket.gethostname()}"
    elsewhere.send_signal(signal.SIGKILL)
    elsewhere.wait()
    assert holder(tmp_path) is None
    with closing(Writer.take(tmp_path)) as mine:
        assert json.loads((tmp_path / "writer.json").read_text())["token"] == mine.token
        with pytest.raises(HeldError):
            Writer.take(tmp_path)  # not even this process, a second time
    assert (tmp_path / "lock").exists() and not (tmp_path / "writer.json").exists()
    assert holder(tmp_path) is None


@pytest.mark.parametrize(("age", "held"), [(5.0, True), (writer.STALE + 5, False)])
def test_a_writer_on_another_machine_counts_as_long_as_it_gives_signs(tmp_path, age, held):
    """Its lock is not seen here, as on some network file systems."""
    other = {"host": "elsewhere", "pid": 1, "token": "x", "heartbeat": time.time() - age}
    (tmp_path / "writer.json").write_text(json.dumps(other))
    (tmp_path / "lock").touch()
    assert (holder(tmp_path) is not None) == held
    if held:
        with pytest.raises(HeldError, match="process 1 on elsewhere"):
            Writer.take(tmp_path)
    else:
        Writer.take(tmp_path).close()


def sign(folder, **values):
    """The sign of a writer on another machine, fresh, whose lock is not seen here."""
    values = {"host": "elsewhere", "pid": 1, "token": "x", "heartbeat": time.time(), **values}
    (folder / "writer.json").write_text(json.dumps(values))
    (folder / "lock").touch()


@pytest.mark.parametrize(
    ("job", "restarts", "cluster", "free"),
    [
        ("12_3", 1, "west", True),
        ("12_3", 0, "west", False),
        ("12_3", 1, "east", False),
        ("12_4", 1, "west", False),
        (None, 0, "", False),
    ],
)
def test_a_job_that_was_queued_again_has_its_folder_at_once(tmp_path, monkeypatch, job, restarts, cluster, free):
    """On another node, behind a kill: of one id there is one job, so its earlier start has ended."""
    sign(tmp_path, job="12_3", cluster="west", restarts=0, since=7.0)
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", "99")
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job.partition("_")[0])
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", job.partition("_")[2])
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        monkeypatch.setenv("SLURM_CLUSTER_NAME", cluster)
    if not free:
        with pytest.raises(HeldError, match=r"process 1 on elsewhere \(SLURM job 12_3\) is writing to it"):
            Writer.take(tmp_path)
        return
    with closing(Writer.take(tmp_path)):
        values = json.loads((tmp_path / "writer.json").read_text())
        assert (values["job"], values["restarts"]) == ("12_3", 1)
        assert holder(tmp_path).job == "12_3" and abs(holder(tmp_path).since - time.time()) < 60


def test_a_folder_is_freed_of_a_writer_that_has_ended_and_of_no_other(tmp_path):
    sign(tmp_path, job="12", cluster="west", restarts=0)
    who = holder(tmp_path)
    assert who == Holder("elsewhere", 1, None, "12", "west")
    release(tmp_path, who._replace(job="13"))
    assert holder(tmp_path) == who
    release(tmp_path, who)
    assert holder(tmp_path) is None and not (tmp_path / "writer.json").exists()
    release(tmp_path, who)
    with closing(Writer.take(tmp_path)) as mine:
        release(tmp_path, holder(tmp_path))
        mine.check()  # who holds the lock is alive


def test_a_writer_that_was_killed_leaves_its_name(tmp_path, elsewhere):
    assert left_behind(tmp_path) is None
    elsewhere.kill()
    elsewhere.wait()
    assert left_behind(tmp_path).pid == elsewhere.pid
    Writer.take(tmp_path).close()
    assert left_behind(tmp_path) is None


@pytest.mark.parametrize("fault", writer._NO_LOCKS)
def test_without_locks_a_living_process_here_counts(tmp_path, monkeypatch, elsewhere, fault):
    def flock(*_):
        raise OSError(fault, "no locks")

    monkeypatch.setattr(writer.fcntl, "flock", flock)
    with pytest.raises(HeldError, match=f"process {elsewhere.pid} "):
        Writer.take(tmp_path)
    elsewhere.kill()
    elsewhere.wait()
    with closing(Writer.take(tmp_path)), pytest.raises(HeldError):
        Writer.take(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"heartbeat": "soon"}', "\x00" * 40])
def test_a_damaged_sign_holds_nothing(tmp_path, text):
    (tmp_path / "writer.json").write_text(text)
    with closing(Writer.take(tmp_path)) as mine:
        mine.check()


def test_a_writer_that_was_taken_over_writes_no_more(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    mine = Writer.take(tmp_path)
    (tmp_path / "writer.json").write_text(json.dumps({"host": "b", "pid": 2, "token": "y", "heartbeat": time.time()}))
    with pytest.raises(HeldError, match="process 2 on b"), replacing(path, mine.check) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    mine.close()
    assert json.loads((tmp_path / "writer.json").read_text())["token"] == "y", "another's sign was deleted"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "result.json", "writer.json"]


def test_signs_of_life_are_given_while_a_folder_is_held(tmp_path, monkeypatch):
    mine = Writer.take(tmp_path)
    first = json.loads((tmp_path / "writer.json").read_text())["heartbeat"]
    naps = iter([None])
    monkeypatch.setattr(writer.time, "sleep", lambda _: next(naps))
    with pytest.raises(StopIteration):
        writer._give_signs()
    assert json.loads((tmp_path / "writer.json").read_text())["heartbeat"] > first
    mine.close()


def test_of_two_who_write_a_new_file_one_does(tmp_path):
    path = tmp_path / "a" / "000.json"
    assert write_new(path, "first") and not write_new(path, "second")
    assert path.read_text() == "first" and len(list(path.parent.iterdir())) == 1
