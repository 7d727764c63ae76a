"""Where and how a run is computed: the settings of `runtime`, and the device that they name."""

import dataclasses
from typing import Annotated, Literal

import torch

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtLeast, AtMost, Count
from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig(Settings):
    """Where and how a run is computed. Nothing here changes its numbers but `dtype`, and `micro_batch_tokens` where
    the sequences of a batch depend on each other: there both are part of the run's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    """auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"]
    """Matmul inputs under autocast; weights and optimizer stay float32. auto: bfloat16 on cuda, float32 elsewhere."""
    compile: Literal["off", "on", "auto"]
    """torch.compile. auto: only where a compiler is there and the run is long enough to pay for it."""
    cuda_graph: Literal["off", "on", "auto"] = "off"
    """Record a training step on a GPU and launch it as one: what small models are limited by there is launching. auto:
    wherever that is possible. Not tried on a GPU yet."""
    threads: Annotated[Count, AtMost(10_000)] | None
    """CPU threads of this process; null: all cores, shared out among the processes that torchrun started here. The
    sweeper sets cores / concurrent jobs."""
    micro_batch_tokens: Count | None = None
    """Most tokens of one forward and backward pass; the gradients of a batch are summed over its passes. null: the
    whole batch at once. See `scaling.config.batching` for when this changes a run."""
    checkpoint_activations: bool = False
    """Keep only the inputs of each block for the backward pass, which computes the block a second time."""
    loss_tokens: Count | None = None
    """Most tokens whose logits are there at once; the backward pass computes them a second time. null: all of a pass.
    For large vocabularies."""
    checkpoint_seconds: Annotated[float, AtLeast(0)]
    """A killed run loses at most this much work."""
    max_members: Count | None
    """Largest number of models trained together as one stack; null: what is fastest on the device."""
    memory_gb: Annotated[float, Above(0)] | None = None
    """Memory, in 10^9 bytes, of the machine or of the GPU that a study's jobs share, where it is not here; null: what
    is free here. Stacks are made no larger than fits into it (`scaling.study.machine`)."""
    cache: str
    """Folder of tokenized corpora."""
    out: str
    """Folder of studies; a run is stored in <out>/<study>/<run_id>."""


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
