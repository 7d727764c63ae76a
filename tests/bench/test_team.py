import gc
import multiprocessing
import time

from bench.team import Team, _work
from bench.timing import UnavailableError
from bench.training import Ours

TINY = {"device": "cpu", "compiled": False, "dtype": "float32", "overrides": ("data.batch_tokens=128",)}


def test_processes_step_side_by_side_and_end_with_their_team():
    before = set(multiprocessing.active_children())  # workers that other tests have left waiting
    team = Team(Ours(model="2k", **TINY).make, size=2, threads=1, keep=False)

    def own():
        return set(multiprocessing.active_children()) - before

    assert len(own()) == 2
    for _ in range(3):
        team()
    team.wait()
    assert team.ordered == 0
    del team
    gc.collect()
    deadline = time.monotonic() + 20
    while own() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not own()


def test_a_process_that_cannot_build_its_step_says_so():
    near, far = multiprocessing.Pipe()
    _work(far, lambda: 1 / 0, threads=1, keep=False)
    assert "in a process of its own: ZeroDivisionError" in str(near.recv())


def test_what_cannot_be_measured_is_said_as_that():
    def make():
        raise UnavailableError("no compiler")

    near, far = multiprocessing.Pipe()
    _work(far, make, threads=1, keep=False)
    assert isinstance(near.recv(), UnavailableError)
