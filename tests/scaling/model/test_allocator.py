"""Freed memory is kept: counted in page faults, which do not depend on how busy the machine is."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from scaling.model.allocator import keep_memory
def step():
    return [torch.ones(2**20) for _ in range(16)]  # 64 MB
def faults():
    step(), step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
assert keep_memory()
print(faults(), given_back)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_a_step_frees_serves_the_next():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert 5 * kept < given_back
