"""The GPUs of one machine, divided among the processes that a launcher starts on it: each is shown one.

Hydra's launchers leave all of them to every process, and all would take the first. Which process of a pool gets which
job nobody knows beforehand, so each takes a GPU when it starts its first job, and keeps it until it ends: there is a
file for each process that may run at once, and whoever locks it has the GPU that it names.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOLDER = "SCALING_GPUS"
"""Environment variable that names the folder of these files."""
_kept: list[int] = []
"""The lock of this process, which ends with it."""


def shares(gpus: Sequence[str], processes: int) -> list[str]:
    """The GPU of each of so many processes: one of its own, or, where there are fewer GPUs, one that it shares with as
    few others as can be."""
    return [gpus[i % len(gpus)] for i in range(processes)] if gpus else []


def visible() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    if (names := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in names.split(",") if name.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


@contextlib.contextmanager
def offered(names: Sequence[str]) -> Iterator[None]:
    """Let each of the processes that are started meanwhile take one of the names, which `shares` found."""
    if not names:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="scaling-gpus-") as folder:
        for i, name in enumerate(names):
            (Path(folder) / f"{i:04}").write_text(name, encoding="utf-8")
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def take() -> None:
    """Take a GPU for this process, where some are offered and it has none. To be called before CUDA is used."""
    if _kept or FOLDER not in os.environ:
        return
    for path in sorted(Path(os.environ[FOLDER]).iterdir()):
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        os.environ[VISIBLE] = path.read_text(encoding="utf-8")
        _kept.append(handle)
        return
