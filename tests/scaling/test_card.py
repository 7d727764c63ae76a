"""The tests that need a GPU, run once in their tiny form, so that none is seen to fail for the first time on a card."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, slow


def on_a_card(*arguments, which="cuda", **environment):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", which, "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        env={**{k: v for k, v in os.environ.items() if k != "CARD"}, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "which, cases, least", [("cuda and not slow", "first", 20), *slow(("cuda", "all", 200))], ids=["first", "all"]
)
def test_they_run_without_a_card(which, cases, least):
    done = on_a_card("tests/cuda", which=which, CARD="cpu", CASES=cases)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"\n(\d+) passed(, \d+ deselected)? in ", done.stdout)  # none is skipped
    assert passed and int(passed[1]) >= least, done.stdout[-300:]
    assert "test_synchronizations.py::test_of_a_step_of_the_loop: synchronizations a step: (0.0, {})" in done.stdout


@pytest.mark.slow
def test_without_a_card_they_are_skipped():
    path = "tests/cuda/test_synchronizations.py"
    done = on_a_card(path, "-rs", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0 and "no GPU here; CARD=cpu" in done.stdout
    assert re.search(r"^\d+ skipped in ", done.stdout, re.MULTILINE), done.stdout
    done = on_a_card(path, "-x", CARD="cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1 and "PyTorch sees no GPU" in done.stdout
