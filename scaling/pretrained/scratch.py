"""Tensors that lie in files which the system maps into memory, and takes back when it needs the room: the matrices of
a model as they were, and the statistics of their inputs. So a model is quantized within its own size plus one layer."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from scaling.errors import InputError


class Scratch:
    """A folder of such tensors. Use as a context: the folder is deleted at its end."""

    def __init__(self, cache: Path):
        self.cache, self.count = cache, 0

    def __enter__(self) -> "Scratch":
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix=".scratch-", dir=self.cache)
        except OSError as fault:
            raise InputError(f"{self.cache}: cannot be written to ({fault.strerror}); name another cache") from None
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of zeros on the CPU."""
        path = Path(self._folder.name) / f"{self.count}.bin"
        self.count += 1
        numel = torch.Size(shape).numel()
        try:
            # Reserved now: a disk that is found to be full when a page is written kills the process.
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, numel * dtype.itemsize)
        except OSError as fault:
            raise InputError(f"{path}: cannot be written ({fault.strerror}); name another cache") from None
        return torch.from_file(str(path), shared=True, size=numel, dtype=dtype).view(shape)

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """What is made while it lasts is deleted at its end."""
        before, self._folder = self._folder, tempfile.TemporaryDirectory(dir=self._folder.name)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._folder.cleanup()
            self._folder = before

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same values."""
        return self.zeros(tuple(tensor.shape), tensor.dtype).copy_(tensor)
