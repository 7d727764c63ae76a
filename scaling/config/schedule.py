"""Settings of the learning rate over time: the names of schedules, their settings and their rates."""

import dataclasses
import math
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import AtLeast, Count, Share
from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Settings):
    """Learning rate against tokens. All end points are in tokens, so that schedules do not depend on the batch."""

    kind: Literal["cosine", "linear", "constant", "wsd", "average"]
    """After the warm-up: half a cosine, a straight line, nothing, constant and then a straight line (WSD), or nothing
    and at the end the mean of the last weights."""
    warmup_tokens: Annotated[int, AtLeast(0)]
    """Linear from 0 to the peak over the first tokens of the run."""
    decay_tokens: Count | None
    """Tokens at the end of the run over which the rate falls to the end (wsd), or over whose updates the weights are
    averaged in place of a decay (average: what is evaluated at the end is the mean; snapshots are of the weights
    themselves)."""
    end_fraction: Share
    """Learning rate at the end as a share of the peak (cosine, linear, wsd)."""

    def __post_init__(self):
        super().__post_init__()
        if (self.kind in ("wsd", "average")) != (self.decay_tokens is not None):
            raise InputError(
                f"decay_tokens={self.decay_tokens}: a number of tokens for kind=wsd and average, null for the others"
            )

    @property
    def falls(self) -> bool:
        """Whether the rate is ever below its peak once the warm-up is over."""
        return self.kind not in ("constant", "average")


def rate_at(schedule: ScheduleConfig, peak: float, seen: int, batch: int, horizon: int) -> float:
    """Learning rate of the update on `batch` tokens that comes after `seen` of `horizon`.

    Warm-up is linear and reaches the peak with its last update. The decays are functions of the tokens seen before the
    update, so that the first update after the warm-up has the peak rate and none is spent at the very end.
    """
    end = peak * schedule.end_fraction
    if seen < schedule.warmup_tokens:
        return peak * min(1.0, (seen + batch) / schedule.warmup_tokens)
    if not schedule.falls:
        return peak
    start = horizon - schedule.decay_tokens if schedule.kind == "wsd" else schedule.warmup_tokens
    if seen < start:
        return peak
    progress = min(1.0, (seen - start) / max(horizon - start, 1))
    if schedule.kind == "cosine":
        return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return peak + (end - peak) * progress


def share_of_peak(schedule: ScheduleConfig, tokens: int, batch: int, horizon: int) -> float:
    """The rate of the update that made the model behind so many tokens, as a share of the peak."""
    return rate_at(schedule, 1.0, max(0, tokens - batch), batch, horizon)
