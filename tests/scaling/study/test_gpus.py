"""GPUs shared out, by their names alone: no card is needed, and none was tried."""

import os

import pytest
from joblib import Parallel, delayed

from scaling.study import gpus
from scaling.study.gpus import VISIBLE, offered, shares, visible


@pytest.mark.parametrize(
    ("there", "processes", "found"),
    [
        (["0", "1", "2", "3"], 4, ["0", "1", "2", "3"]),
        (["0", "1", "2", "3"], 2, ["0", "1"]),
        (["0", "1"], 5, ["0", "1", "0", "1", "0"]),
        (["GPU-a", "MIG-b"], 2, ["GPU-a", "MIG-b"]),
        ([], 3, []),
    ],
)
def test_each_process_has_one_and_they_are_spread(there, processes, found):
    assert shares(there, processes) == found


@pytest.mark.parametrize(
    ("text", "names"), [("0,2", ["0", "2"]), ("GPU-1f, MIG-2/3", ["GPU-1f", "MIG-2/3"]), ("", []), ("-1", ["-1"])]
)
def test_what_is_visible_goes_by_the_names_that_were_given(monkeypatch, text, names):
    monkeypatch.setenv(VISIBLE, text)
    assert visible() == names


def _took(seconds):
    """What a process of a pool shows of its GPU, which it keeps from job to job."""
    import time

    from scaling.study.gpus import take

    take()
    time.sleep(seconds)
    take()
    return os.getpid(), os.environ.get(VISIBLE)


def test_the_processes_of_a_pool_take_one_each_and_keep_it(monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    with offered(shares(["3", "5"], 2)):
        found = Parallel(n_jobs=2, backend="loky")(delayed(_took)(0.2) for _ in range(6))
    by_process = {pid: {name for other, name in found if other == pid} for pid, _ in found}
    assert all(len(names) == 1 for names in by_process.values())
    if len(by_process) == 2:
        assert set.union(*by_process.values()) == {"3", "5"}
    assert gpus.FOLDER not in os.environ


def test_where_none_is_offered_none_is_taken(monkeypatch):
    monkeypatch.setenv(VISIBLE, "7")
    with offered([]):
        gpus.take()
    assert os.environ[VISIBLE] == "7" and gpus._kept == []
