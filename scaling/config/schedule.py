"""What a run may say of its learning rate over time: the names of schedules and their settings. Their rates are in
`scaling.training.schedule`."""

import dataclasses
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
