"""Freed memory is kept: counted in page faults, which do not depend on how busy the machine is."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from scaling.model.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
def step():
    return [torch.ones(2**20) for _ in range(16)]  # 64 MB
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(choice: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, choice], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_a_step_frees_serves_the_next():
    assert 5 * faults("keep") < faults("give back")
