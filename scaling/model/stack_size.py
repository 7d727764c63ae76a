"""How many models are computed fastest together."""

from scaling.config.run import Run

CACHE_VALUES = 2**17
"""Float32 values of one activation tensor that still fit a core's cache together with those that it meets (0.5 MB)."""


GPU_MEMBERS = 64


def best_size(run: Run, device: str, threads: int) -> int:
    """How many models of this shape and batch are computed fastest together.

    A GPU is kept busy by many small models. A CPU core is limited by memory traffic once activations leave its cache:
    eager steps of 2,048 tokens took, for each model in stacks of 1, 2, 4 and 8, 19, 21, 24 and 26 ms at d = 32 and
    39, 41, 42 and 51 ms at d = 48 (one thread, side by side).
    """
    if device != "cpu":
        return GPU_MEMBERS
    return max(1, threads * CACHE_VALUES // (run.tokens_at_once * run.model.d_model))
