"""Settings of a run for Weights & Biases."""

import math
import os
from dataclasses import dataclass
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import AtLeast, Count, Longest, NotEmpty, Seconds
from scaling.errors import InputError

Mode = Literal["off", "offline", "online"]
PROJECT = "precision-scaling"
_ENVIRONMENT: dict[str, Mode] = {"disabled": "off", "offline": "offline", "online": "online"}


def _is_first(per_doubling: int, step: int) -> bool:
    """Whether a step is the first of its interval, of which there are so many while steps double."""
    interval = [int(per_doubling * math.log2(s)) for s in (step, max(step - 1, 1))]
    return step == 1 or interval[0] > interval[1]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(Settings):
    """Where the metrics of a run go, apart from its own folder. Not part of a run's identity."""

    mode: Literal["offline", "online", "off"]
    """`offline` writes W&B files for `wandb leet` and `wandb sync`, `online` also uploads them, `off` never imports
    W&B. The environment variable WANDB_MODE (online, offline, disabled) replaces `offline`, the default; `online` and
    `off` were asked for in this program's own words and stand."""

    project: Annotated[str, NotEmpty()] | None
    """W&B project; null: the environment variable WANDB_PROJECT, or `precision-scaling` without it."""

    entity: str | None
    """W&B user or team; null is the account's default."""

    group: Annotated[str, NotEmpty(), Longest(128)] | None = None
    """W&B group; null: the environment variable WANDB_RUN_GROUP, or the study without it."""

    name: Annotated[str, NotEmpty(), Longest(128)] | None = None
    """What W&B shows as the run's name; null: what the study varies (`N=24k w=int4`), or the run id where a run is
    trained by itself. The W&B id is the run id in any case."""

    job_type: Annotated[str, NotEmpty(), Longest(64)] | None = None
    """W&B job type."""

    tags: tuple[Annotated[str, NotEmpty(), Longest(64)], ...] = ()
    """W&B tags."""

    notes: str | None = None
    """W&B notes, a text of any length."""

    points_per_doubling: Count
    """How many points the training curve gets while its tokens double. Points are spaced in log tokens, as loss
    curves are read, so that their number barely depends on a run's length: 50 gives some 230 points in 1,000 steps,
    530 in 60,000."""

    val_windows: Annotated[int, AtLeast(0)] = 0
    """On so many of the held-out windows, always the same, the loss is measured while a run is trained; 0: not at all.
    It is a curve to look at: what counts is measured on all windows, at snapshots and at the end."""

    val_points_per_doubling: Count = 2
    """How many of these points there are while a run's tokens double, at most. Where all of them would cost more than
    2% of the run's training there are none."""

    init_timeout: Seconds
    """Seconds that the first online run waits for the server before the process goes on offline."""

    finish_timeout: Seconds
    """Seconds that a finished online run may take to upload the rest. What is late stays on disk for `wandb sync`."""

    def is_point(self, step: int) -> bool:
        """Whether the training curve has a point after `step` updates: the first of each interval in log tokens."""
        return _is_first(self.points_per_doubling, step)

    def is_val_point(self, step: int) -> bool:
        """Whether a loss on held-out windows may be measured after `step` updates, if at all."""
        return _is_first(self.val_points_per_doubling, step)

    def in_project(self) -> str:
        """The W&B project: see `project`."""
        return self.project or os.environ.get("WANDB_PROJECT") or PROJECT

    def in_group(self, study: str) -> str:
        """The W&B group of a run of this study: see `group`."""
        return self.group or os.environ.get("WANDB_RUN_GROUP") or study

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
