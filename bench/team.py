"""Training steps in processes of their own, for what belongs to a whole process: its threads, its allocator."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from bench.timing import Step, UnavailableError
from scaling.model.allocator import keep_memory


class Team:
    """Processes that train side by side, as a step to time: a call orders one more step of each, and `wait` returns
    when all have done what was ordered. Between calls they sleep. They end when nothing holds the team any longer.

    Args:
        make: what each process builds; it is sent there.
        size: how many processes.
        threads: of each process.
        keep: whether each keeps its freed memory (`scaling.model.allocator`).

    Raises:
        UnavailableError: what is asked for cannot be had here.
        RuntimeError: a process failed to build its step.
    """

    def __init__(self, make: Callable[[], Step], *, size: int, threads: int, keep: bool):
        # Not forked: a process that has used its threads cannot be.
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        for _ in range(size):
            pipe, far_end = context.Pipe()
            context.Process(target=_work, args=(far_end, make, threads, keep), daemon=True).start()
            far_end.close()
            self.pipes.append(pipe)
        self.ordered = 1  # each reports once when it is ready
        self.wait()

    def __call__(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        self.ordered += 1

    def wait(self) -> None:
        ordered, self.ordered = self.ordered, 0
        for pipe in self.pipes:
            for _ in range(ordered):
                fault = pipe.recv()
                if fault is not None:
                    raise fault


def _work(pipe: Connection, make: Callable[[], Step], threads: int, keep: bool) -> None:
    """What a process does, until the other end of the pipe is gone."""
    try:
        if keep and not keep_memory():
            raise UnavailableError("the memory of glibc alone can be kept")
        torch.set_num_threads(threads)
        step = make()
        pipe.send(None)
        while True:
            pipe.recv()
            step()
            pipe.send(None)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return
    except UnavailableError as fault:
        pipe.send(fault)
    except Exception as fault:
        # Not the exception itself: some cannot be sent.
        pipe.send(RuntimeError(f"in a process of its own: {type(fault).__name__}: {fault}"))
