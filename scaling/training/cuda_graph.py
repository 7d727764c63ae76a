"""A training step recorded on a GPU once and launched as one from then on.

Small models keep a card busy for less time than the host takes to launch their thousand kernels. A CUDA graph is the
list of them with the addresses that they work on, and is launched in one call. What it needs is that a step is the same
operations on the same memory each time and waits for nothing, which `steps` promises on every device.

Not tried on a GPU yet: off unless `runtime.cuda_graph` asks for it.
"""

from collections.abc import Callable

import torch

from scaling.config.run import Run
from scaling.errors import InputError
from scaling.model.transformer import Weights
from scaling.training.distributed import Processes

WARM_UP = 3
"""Real steps before the recording, on a stream of their own: code is compiled, and libraries take their memory."""


class CudaGraph:
    """Called in place of a step, which leaves no gradients behind. The first steps are taken as they are; then one is
    recorded, which takes none, and launched."""

    def __init__(self, step: Callable[[], None], weights: Weights):
        self.step, self.weights = step, weights
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = 0

    def __call__(self) -> None:
        if self.warm < WARM_UP:
            self.warm += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step()
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:
            # Gradients that are there would be added to, at addresses outside the graph's memory.
            assert all(w.grad is None for w in self.weights.values())
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        self.graph.replay()


def is_wanted(runs: list[Run], device: torch.device, processes: Processes) -> bool:
    """Whether `runtime.cuda_graph` asks for recorded steps here.

    Raises:
        InputError: it says `on` where steps cannot be recorded.
    """
    wish = runs[0].runtime.cuda_graph
    if wish == "off":
        return False
    obstacle = None
    if device.type != "cuda":
        obstacle = f"steps are recorded on a CUDA device only, and this is {device.type}"
    elif not processes.alone:
        obstacle = "not with several processes"
    elif any(run.schedule.kind == "average" for run in runs):
        obstacle = "not with schedule=average, which reads the weights after each step"
    if obstacle and wish == "on":
        raise InputError(f"runtime.cuda_graph=on: {obstacle}; use off or auto")
    return obstacle is None
