"""The options of a fit and their defaults."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from analysis.errors import InputError

OBJECTIVES = ("huber", "squares", "loss_squares")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to fit. Bits and gap_below apply to gap laws, objective and huber_delta to loss laws."""

    objective: Literal["huber", "squares", "loss_squares"] = "huber"
    """`huber`: sum of Huber's function of ln(prediction / loss). `squares`: the same with an infinite delta.
    `loss_squares`: squares of prediction - loss, in nats."""
    huber_delta: float | None = None
    """In log loss. None: 1.345 times the scatter between seeds where the table has replicates, else 1e-3."""
    bootstrap: int = 1000
    """Draws; 0: no intervals."""
    seed: int = 0
    filter: str | None = None
    """A pandas query expression that rows must satisfy."""
    bits: tuple[float, float] = (3.0, 6.0)
    """Widths after quantization that a gap law is fitted on."""
    gap_below: float = 0.5
    """Nats. Rows with a larger predicted gap are not fitted: gaps saturate there."""
    weights: str | None = None
    """A column of how much each row counts, relative to the others."""
    hold: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Parameters that are not fitted, and their values."""
    base: str | None = None
    """The scheme of runs that are not quantized, where the table names it in a way of its own."""

    def __post_init__(self):
        if self.huber_delta is not None and not self.huber_delta > 0:
            raise InputError(f"huber_delta={self.huber_delta}: expected a number above zero")
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise InputError(f"bootstrap={self.bootstrap}: expected 0 (no intervals) or at least 2 draws")
        if not self.gap_below > 0:
            raise InputError(f"gap_below={self.gap_below}: expected nats above zero")
        if not 0 < self.bits[0] <= self.bits[1]:
            raise InputError(f"bits={self.bits[0]:g} {self.bits[1]:g}: expected the lowest and the highest width")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective={self.objective}: use one of {', '.join(OBJECTIVES)}")
        if bad := [symbol for symbol, value in self.hold.items() if not math.isfinite(value)]:
            raise InputError(f"hold={bad[0]}={self.hold[bad[0]]}: expected a finite number")
