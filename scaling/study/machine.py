"""The memory that a job may take: of the machine or GPU that is here, or of one that a setting describes."""

import os
from pathlib import Path

import torch

from scaling.config.run import Run
from scaling.config.runtime import resolve_device
from scaling.errors import InputError
from scaling.study.memory import device_of

MARGIN = 0.1
"""Share of the memory that stays free: for what predictions miss, other processes, and pages of the corpus."""

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),  # version 1
)


def room(run: Run, jobs: int) -> float | None:
    """Bytes that each of `jobs` jobs at once may take where this run is computed; None where that is not known: on a
    device that is not here, without `runtime.memory_gb`."""
    device = device_of(run)
    there = run.runtime.memory_gb * 1e9 if run.runtime.memory_gb is not None else available(device)
    if device == "cuda":
        jobs = -(-jobs // max(1, torch.cuda.device_count()))  # each GPU has its share of them (`scaling.study.gpus`)
    return None if there is None else (1 - MARGIN) * there / jobs


def available(device: str) -> float | None:
    """Bytes that are free on a device here; None where it is not here or does not say."""
    if device == "cpu":
        free = [bytes_ for bytes_ in (_free_of_system(), _free_of_cgroup()) if bytes_ is not None]
        return min(free, default=None)
    if device == "cuda" and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    if device == "mps" and torch.backends.mps.is_available():
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def is_here(device: str) -> bool:
    """Whether this machine has the device."""
    try:
        return bool(resolve_device(device))
    except InputError:
        return False


def _free_of_system() -> float | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return None


def _free_of_cgroup() -> float | None:
    """What a container may still take: its limit less what it uses, of which cached pages of files can be had back."""
    for limit, held, stat in CGROUP_FILES:
        try:
            most = (CGROUP / limit).read_text(encoding="ascii").strip()
            lines = (CGROUP / stat).read_text(encoding="ascii").splitlines()
            cached = sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "active_file"))
            return None if most == "max" else float(max(0, int(most) - int((CGROUP / held).read_text()) + cached))
        except (OSError, ValueError, IndexError):
            continue
    return None
