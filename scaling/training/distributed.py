"""The processes that train one run together, each on a share of every batch (torchrun).

Every process has the whole models and takes the same steps: gradients are summed over the processes, so weights stay
equal bit for bit, and so does everything that is decided from them. What a process could decide by itself is decided
by all (`any`) or by the first (`from_first`). The first process alone writes run folders, W&B and messages; what it
does between two steps the others wait for at their next sum.

A process that fails cannot inform the others, which wait for it in an all-reduce: it exits, their all-reduce fails, and
they exit.
"""

import contextlib
import dataclasses
import datetime
import gc
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scaling.config.batching import coupled_part
from scaling.config.run import Run
from scaling.config.runtime import resolve_device
from scaling.console.torchrun import Place, place
from scaling.errors import InputError

T = TypeVar("T")

TIMEOUT = datetime.timedelta(hours=6)
"""The others wait while the first process measures a model in all its quantizations. A process that dies is noticed at
once all the same."""

LOST = re.compile(r"closed by peer|reset by peer|Broken pipe|Connection closed|gloo|NCCL", re.IGNORECASE)


class Processes:
    """This process and its peers, if it has any: without any, everything here is free of cost."""

    def __init__(self, where: Place):
        self.rank, self.size, self.local_rank, self.local_size = where
        self.alone, self.first = self.size == 1, self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which share of each batch this process takes, of how many."""
        return self.rank, self.size

    def agreed(self, make: Callable[[], T]) -> T:
        """`make()`, in every process. What one cannot use, none uses.

        Raises:
            InputError: in all processes that of the first one which raised one.
        """
        if self.alone:
            return make()
        value, fault = None, None
        try:
            value = make()
        except InputError as error:
            fault = str(error)
        faults = [None] * self.size
        dist.all_gather_object(faults, fault)
        for line in faults:
            if line is not None:
                raise InputError(line)
        return value

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make()` returns, or raises, in the first process; the others do not call it."""
        value = [self.agreed(lambda: make() if self.first else None)]
        if not self.alone:
            dist.broadcast_object_list(value)
        return value[0]

    def in_turn(self, make: Callable[[], T]) -> T:
        """`make()` in the first process of every machine, and then in the others, which find what that one made."""
        early = self.agreed(lambda: make() if self.local_rank == 0 else None)
        late = self.agreed(lambda: make() if self.local_rank > 0 else None) if not self.alone else None
        return early if self.local_rank == 0 else late

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.alone:
            return flag
        count = torch.tensor([float(flag)])
        dist.all_reduce(count)
        return count.item() > 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, in place."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def copy_from_first_(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors if not self.alone else ():
            dist.broadcast(tensor.detach(), src=0)

    def device(self, name: str) -> torch.device:
        """The device of this process: on a machine with several GPUs, each process has its own.

        Raises:
            InputError: it is not there, or not for several processes.
        """
        kind = resolve_device(name)
        if self.alone:
            return torch.device(kind)
        if kind == "mps":
            raise InputError("runtime.device=mps: only for one process; use cpu, or leave torchrun away")
        if kind == "cpu":
            return torch.device(kind)
        if self.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"--nproc-per-node={self.local_size}: this machine has {torch.cuda.device_count()} GPUs; use at most "
                "as many processes"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device(kind, self.local_rank)

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, with the gradients of each backward pass summed over the processes.

        Summed and not averaged: each process takes the loss of its share as a part of the batch's mean, so that what
        flows backward has the size that it has in one process, and is quantized alike.
        """
        if self.alone:
            return module
        # Weights are equal already, and gradients that live in the buckets are not held twice.
        wrapped = DistributedDataParallel(module, init_sync=False, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, _sum)
        return wrapped

    def is_loss_of_peer(self, fault: Exception) -> bool:
        """Whether the fault says that another process has ended."""
        return not self.alone and isinstance(fault, RuntimeError) and LOST.search(str(fault)) is not None

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Progress and notes of the first process only."""
        with contextlib.nullcontext() if self.first else contextlib.redirect_stderr(io.StringIO()):
            yield


ALONE = Processes(Place())


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Meet the processes that torchrun started; `ALONE` where it started none or one."""
    where = place()
    if where.size == 1:
        yield ALONE
        return
    # Decisions and objects travel over gloo in any case, gradients over NCCL where they lie on GPUs.
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    yield Processes(where)
    # Only at a good end: after a fault the peers may be gone (`scaling.console.torchrun.leaving`). A wrapped module
    # that waits to be collected would hold the group until the interpreter goes, which then aborts.
    gc.collect()
    dist.destroy_process_group()


def _sum(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def divided(run: Run, processes: int) -> Run:
    """The run with `runtime.micro_batch_tokens` as so many processes compute it: the same identity.

    Raises:
        InputError: a batch cannot be shared out evenly, or not without making another run of it.
    """
    if processes == 1:
        return run
    if run.batch_size % processes:
        raise InputError(
            f"data.batch_tokens={run.data.batch_tokens}: its {run.batch_size} sequences cannot be shared out evenly "
            f"among {processes} processes"
        )
    share = run.data.batch_tokens // processes
    at_once = min(run.tokens_at_once, share)
    part = coupled_part(run.precision)
    if part and at_once < run.tokens_at_once:
        raise InputError(
            f"runtime.micro_batch_tokens={run.runtime.micro_batch_tokens or 'null'}: the quantization of {part} "
            f"couples the sequences that are computed together, and {processes} processes have {share} tokens each; "
            f"use {share} or a divisor of it, which makes it part of the run's identity"
        )
    if share % at_once:
        raise InputError(
            f"runtime.micro_batch_tokens={at_once}: must divide the {share} tokens that each of {processes} processes "
            "has of a batch"
        )
    return dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, micro_batch_tokens=at_once))
