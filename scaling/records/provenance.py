"""What a result was made with: commit, versions, machine."""

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from scaling.config.limits import FORMULA
from scaling.console.allocation import cores, slurm_job

PACKAGES = ("torch", "numpy", "hydra-core", "safetensors")


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The checked-out commit, `+` appended where tracked files differ from it; None outside a repository. The
    environment variable SCALING_COMMIT says it where a copy without .git is run."""
    if stated := os.environ.get("SCALING_COMMIT"):
        return stated.lstrip(FORMULA)

    def git(*words: str) -> subprocess.CompletedProcess:
        folder = Path(__file__).parent
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def made_with(device: torch.device) -> dict[str, Any]:
    """Commit and machine of what is computed by this process on `device`."""
    machine: dict[str, Any] = {"host": platform.node(), "device": device_name(device), "cores": cores()}
    if device.type == "cuda":
        machine["gpus"] = torch.cuda.device_count()
    if job := slurm_job():
        machine["slurm_job"] = job.id
    return {"commit": commit(), "machine": machine}


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu {_processor()}"
    return device.type


def peak_memory(device: torch.device) -> float:
    """The most bytes that this process has had, of the GPU that it computes on or else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def has_compiler() -> bool:
    """Whether torch.compile can work on a CPU: it needs g++ and Python's headers."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which("g++") is not None and headers.exists()
