"""Signals: when they wait, when they do not, and whose handlers are in force afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from scaling.console import interrupt
from scaling.console.interrupt import OF_SCHEDULERS, Interrupt, Interrupted
from tests.conftest import REPOSITORY

ALL = (signal.SIGINT, *OF_SCHEDULERS)


@pytest.fixture(autouse=True)
def handlers_are_left_as_they_were():
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    assert {number: signal.getsignal(number) for number in ALL} == before


@pytest.mark.parametrize("number", ALL)
def test_a_signal_waits_for_the_end_of_the_step(number):
    with Interrupt() as now:
        interrupt.check()
        signal.raise_signal(number)
        assert now.asked and now.number == number
        with pytest.raises(Interrupted) as end:
            interrupt.check()
    assert end.value.number == number and end.value.by_scheduler == (number != signal.SIGINT)
    interrupt.check()  # nobody is asked any more


@pytest.mark.parametrize("number", OF_SCHEDULERS)
def test_a_scheduler_that_repeats_itself_waits_too(number):
    """SLURM and srun both send it, and torchrun passes it on: a step that is cut short could not be saved."""
    with Interrupt() as now:
        now.came = -1e9
        for _ in range(5):
            signal.raise_signal(number)
        assert now.asked


def test_a_second_ctrl_c_of_a_person_does_not_wait(monkeypatch):
    with Interrupt() as now:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same one, passed on
        now.came -= interrupt.IMPATIENT
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_a_measurement_is_ended_at_once():
    with Interrupt():
        with pytest.raises(Interrupted) as end, interrupt.at_once():
            signal.raise_signal(signal.SIGUSR2)
            raise AssertionError("not reached")
        assert end.value.number == signal.SIGUSR2
        signal.raise_signal(signal.SIGTERM)  # while the checkpoint is saved
        with pytest.raises(Interrupted), interrupt.at_once():
            raise AssertionError("not begun, as one was asked for before")


def test_outside_of_training_measurements_are_nothing_special():
    with interrupt.at_once():
        interrupt.check()


@pytest.mark.parametrize("number", OF_SCHEDULERS)
def test_outside_of_training_a_scheduler_is_obeyed_at_once(number):
    with pytest.raises(Interrupted) as end, interrupt.raising():
        signal.raise_signal(number)
    assert end.value.number == number and isinstance(end.value, KeyboardInterrupt)


def test_other_threads_leave_handlers_alone():
    found = []

    def run():
        with Interrupt() as now, interrupt.raising():
            found.append((now.before, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [({}, signal.getsignal(signal.SIGTERM))]


def test_a_worker_does_not_outlive_its_parent():
    code = """
import multiprocessing, time
from scaling.console.interrupt import end_with_parent

def work():
    end_with_parent(every=0.02)
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

multiprocessing.get_context("fork").Process(target=work).start()
end_with_parent(every=0.02)  # the parent is no worker: it stays
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.1)
        assert parent.poll() is None
        os.kill(worker, 0)
        parent.kill()
        parent.communicate(timeout=10)  # the worker holds the other end of the pipe as well
