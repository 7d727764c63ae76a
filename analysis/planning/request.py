"""The request for a plan, checked: ranges of its budgets, and that these limit N and D.

Nothing heavy is imported here: `python -m analysis plan --help` shows the defaults.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from analysis.errors import InputError

FEWEST_DRAWS, MOST_DRAWS = 100, 100_000
LARGEST_BUDGET = 1e50  # powers of larger numbers leave the range of floats
FULL = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Budgets, which are ceilings, and what may be chosen under them."""

    flops: float | None = None
    """Operations of training, and of serving `serve_tokens`."""
    bytes: float | None = None
    """Of the served model."""
    tokens: float | None = None
    """Of training."""
    serve_tokens: float | None = None
    post: Sequence[str] | None = None
    """Formats that the model may be served in, `bf16` for none; None: any width in training, and int3 to int8 after it
    if serving is limited."""
    widths: Sequence[float] | None = None
    """Bits in training; None: all that save something."""
    group: float | None = None
    """Values that share a 16-bit scale in what is served below 16 bits."""
    fixed_bytes: float = 0.0
    """Of embeddings and all else that is never quantized."""
    law: str | None = None
    """Name of the law of losses; None: the one that knows most."""
    at: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    """Other variables of that law."""
    draws: int = 500
    """For intervals; 0: none."""
    seed: int = 0

    def __post_init__(self):
        for name, value in self.limits.items():
            if not 0 < value <= LARGEST_BUDGET:
                raise InputError(f"{name}={value:g}: expected a number above zero, at most {LARGEST_BUDGET:g}")
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"tokens={self.tokens:g}: expected at least one")
        if self.group is not None and not 1 <= self.group < float("inf"):
            raise InputError(f"group={self.group:g}: expected how many values share a scale, at least 1")
        if not 0 <= self.fixed_bytes < float("inf"):
            raise InputError(f"fixed_bytes={self.fixed_bytes:g}: expected bytes, at least zero")
        if self.bytes is not None and self.fixed_bytes >= self.bytes:
            raise InputError(f"fixed_bytes={self.fixed_bytes:g}: expected less than bytes={self.bytes:g}")
        if self.draws and not FEWEST_DRAWS <= self.draws <= MOST_DRAWS:
            raise InputError(f"draws={self.draws}: expected 0 (no intervals) or {FEWEST_DRAWS} to {MOST_DRAWS}")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: expected a number of 0 or above")
        for name, values in (("widths", self.widths), ("formats", self.post)):
            if values is not None and not len(values):
                raise InputError(f"{name}: expected at least one")
        for bits in self.widths or ():
            if not 1 <= bits <= FULL:
                raise InputError(f"widths={bits:g}: expected 1 to {FULL} bits")
        if self.flops is None and self.bytes is None:
            raise InputError("nothing limits N: expected flops, or bytes with tokens")
        if self.flops is None and self.serve_tokens is not None:
            raise InputError(f"serve_tokens={self.serve_tokens:g}: counts against flops; expected flops with it")
        if self.flops is None and self.tokens is None:
            raise InputError(f"bytes={self.bytes:g}: nothing limits D; expected flops or tokens with it")

    @property
    def limits(self) -> dict[str, float]:
        """The budgets that were given."""
        given = {name: getattr(self, name) for name in ("flops", "bytes", "tokens", "serve_tokens")}
        return {name: float(value) for name, value in given.items() if value is not None}

    @property
    def serving(self) -> bool:
        """Whether serving is limited."""
        return self.bytes is not None or self.serve_tokens is not None
