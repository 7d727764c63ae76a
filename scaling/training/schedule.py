"""The learning rate at every update under each schedule. A new one: its name and settings in `scaling.config.schedule`,
its rate here, a file in configs/schedule/; `families` learns from the rates where runs part."""

import math

from scaling.config.run import Run


def learning_rate(run: Run, step: int) -> float:
    """Learning rate of update `step` (counted from 0 at fresh weights, through the parent of a branch).

    Warm-up is linear and reaches the peak with its last update. The decays are functions of the tokens seen before the
    update, so that the first update after the warm-up has the peak rate and none is spent at the very end.
    """
    schedule, batch = run.schedule, run.data.batch_tokens
    peak, end = run.lr_peak, run.lr_peak * run.schedule.end_fraction
    seen = step * batch
    if seen < schedule.warmup_tokens:
        return peak * min(1.0, (seen + batch) / schedule.warmup_tokens)
    if not schedule.falls:
        return peak
    start = run.D - schedule.decay_tokens if schedule.kind == "wsd" else schedule.warmup_tokens
    if seen < start:
        return peak
    progress = min(1.0, (seen - start) / max(run.D - start, 1))
    if schedule.kind == "cosine":
        return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return peak + (end - peak) * progress
