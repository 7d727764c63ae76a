"""How many kernels a step launches, and for how long they keep the card busy."""

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

STEPS = 3


def launches(step: Callable[[], object]) -> dict[str, float]:
    """A step's mean over a few: `launches` of kernels (copies and fills are some) and `busy` seconds of the card; the
    operations that a CPU was asked for where there is no card."""
    step()
    if not torch.cuda.is_available():
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            step()
        return {"operations": float(sum(event.name.startswith("aten::") for event in seen.events()))}
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    kernels = [event for event in seen.events() if event.device_type == DeviceType.CUDA]
    return {
        "launches": len(kernels) / STEPS,
        "busy": sum(event.time_range.elapsed_us() for event in kernels) / STEPS / 1e6,
    }
