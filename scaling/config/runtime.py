"""Where and how a run is computed: the settings of `runtime`, and the device that they name."""

import dataclasses
from typing import Literal

import torch

from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how a run is computed. Nothing here changes its numbers but `dtype`, and `micro_batch_tokens` where
    the sequences of a batch depend on each other: there both are part of the run's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    """auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"]
    """Matmul inputs under autocast; weights and optimizer stay float32. auto: bfloat16 on cuda, float32 elsewhere."""
    compile: Literal["off", "on", "auto"]
    """torch.compile. auto: only where a compiler is there and the run is long enough to pay for it."""
    threads: int | None
    """CPU threads of this process; null: all cores, shared out among the processes that torchrun started here. The
    sweeper sets cores / concurrent jobs."""
    micro_batch_tokens: int | None = None
    """Most tokens of one forward and backward pass; the gradients of a batch are summed over its passes. null: the
    whole batch at once. See `scaling.config.batching` for when this changes a run."""
    checkpoint_activations: bool = False
    """Keep only the inputs of each block for the backward pass, which computes the block a second time."""
    loss_tokens: int | None = None
    """Most tokens whose logits are there at once; the backward pass computes them a second time. null: all of a pass.
    For large vocabularies."""
    checkpoint_seconds: float
    """A killed run loses at most this much work."""
    max_members: int | None
    """Largest number of models trained together as one stack; null: what is fastest on the device."""
    memory_gb: float | None = None
    """Memory, in 10^9 bytes, of the machine or of the GPU that a study's jobs share, where it is not here; null: what
    is free here. Stacks are made no larger than fits into it (`scaling.study.machine`)."""
    cache: str
    """Folder of tokenized corpora."""
    out: str
    """Folder of studies; a run lies in <out>/<study>/<run_id>."""

    def __post_init__(self):
        for field in ("threads", "max_members", "micro_batch_tokens", "loss_tokens"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InputError(f"{field}={value}: must be at least 1")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise InputError(f"memory_gb={self.memory_gb}: must be above 0, or null for what is free here")
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds={self.checkpoint_seconds}: must be 0 or above")


def resolve_device(name: str) -> str:
    """`auto` to what this machine has.

    Raises:
        InputError: a device that is asked for by name is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise InputError(
            f"runtime.device={name}: not on this machine; it has {', '.join(d for d in there if there[d])}"
        )
    return name
