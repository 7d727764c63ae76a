"""What a run may say of its optimizer."""

import dataclasses

from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay, and the width rule of its learning rate."""

    lr: float
    """Peak learning rate at width `lr_width`."""
    lr_width: int
    """Width (d_model) for which `lr` is meant."""
    lr_exponent: float
    """Peak learning rate at width d is lr * (lr_width / d) ^ lr_exponent."""
    weight_decay: float
    """Each step multiplies every weight by 1 - lr_t * weight_decay."""
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    """Largest gradient norm of one model; longer gradients are scaled down to it."""

    def __post_init__(self):
        for field in ("lr", "clip", "epsilon"):
            if not getattr(self, field) > 0:
                raise InputError(f"{field}={getattr(self, field)}: must be above 0")
        if self.weight_decay < 0:
            raise InputError(f"weight_decay={self.weight_decay}: must be 0 or above")
        for field in ("beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)}: must be in [0, 1)")

    def peak(self, d_model: int) -> float:
        """Peak learning rate at width `d_model`."""
        return self.lr * (self.lr_width / d_model) ** self.lr_exponent
