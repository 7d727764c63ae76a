"""Settings of the optimizer of a run."""

import dataclasses
from typing import Annotated

from scaling.config.from_dict import Settings
from scaling.config.limits import Above, AtLeast, AtMost, Below, Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """AdamW with decoupled weight decay, and the width rule of its learning rate."""

    lr: Annotated[float, Above(0)]
    """Peak learning rate at width `lr_width`."""
    lr_width: Count
    """Width (d_model) for which `lr` is meant."""
    lr_exponent: Annotated[float, AtLeast(-10), AtMost(10)]
    """Peak learning rate at width d is lr * (lr_width / d) ^ lr_exponent."""
    weight_decay: Annotated[float, AtLeast(0)]
    """Each step multiplies every weight by 1 - lr_t * weight_decay."""
    beta1: Annotated[float, AtLeast(0), Below(1)]
    beta2: Annotated[float, AtLeast(0), Below(1)]
    epsilon: Annotated[float, Above(0)]
    clip: Annotated[float, Above(0)]
    """Largest gradient norm of one model; longer gradients are scaled down to it."""

    def peak(self, d_model: int) -> float:
        """Peak learning rate at width `d_model`."""
        return self.lr * (self.lr_width / d_model) ** self.lr_exponent
