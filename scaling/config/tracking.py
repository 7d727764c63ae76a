"""What a run may say of Weights & Biases."""

import math
import os
from dataclasses import dataclass
from typing import Literal

from scaling.errors import InputError

Mode = Literal["off", "offline", "online"]
_ENVIRONMENT: dict[str, Mode] = {"disabled": "off", "offline": "offline", "online": "online"}


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where the metrics of a run go besides its own folder. Not part of a run's identity."""

    mode: Literal["offline", "online", "off"]
    """`offline` writes W&B files for `wandb leet` and `wandb sync`, `online` also uploads them, `off` never imports
    W&B. The environment variable WANDB_MODE (online, offline, disabled) replaces `offline`, the default; `online` and
    `off` were asked for in this program's own words and stand."""

    project: str
    """W&B project. The W&B group is the study, the W&B id the run id."""

    entity: str | None
    """W&B user or team; null is the account's default."""

    points_per_doubling: int
    """How many points the training curve gets while its tokens double. Points are spaced in log tokens, as loss
    curves are read, so that their number barely depends on a run's length: 50 gives some 230 points in 1,000 steps,
    530 in 60,000."""

    init_timeout: float
    """Seconds that the first online run waits for the server before the process goes on offline."""

    finish_timeout: float
    """Seconds that a finished online run may take to upload the rest. What is late stays on disk for `wandb sync`."""

    def __post_init__(self):
        if not self.project:
            raise InputError("project='': expected the name of a W&B project")
        if self.points_per_doubling < 1:
            raise InputError(f"points_per_doubling={self.points_per_doubling}: must be at least 1")
        for name in ("init_timeout", "finish_timeout"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name}={value}: expected a number of seconds above 0")

    def is_point(self, step: int) -> bool:
        """Whether the training curve has a point after `step` updates: the first of each interval in log tokens."""
        interval = [int(self.points_per_doubling * math.log2(s)) for s in (step, max(step - 1, 1))]
        return step == 1 or interval[0] > interval[1]

    def wanted(self) -> Mode:
        """`mode` as the environment has it: see there.

        Raises:
            InputError: WANDB_MODE is not one that W&B and this program share.
        """
        user = os.environ.get("WANDB_MODE")
        if self.mode != "offline" or not user:
            return self.mode
        if user not in _ENVIRONMENT:
            raise InputError(f"WANDB_MODE={user}: use one of {', '.join(_ENVIRONMENT)}")
        return _ENVIRONMENT[user]
