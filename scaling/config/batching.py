"""How the batch of a step is divided, and when that changes what is computed.

A batch is computed in equal pieces, one after the other (`runtime.micro_batch_tokens`) or on several processes at once
(torchrun). Losses and gradients are sums over the pieces, so for most runs the division changes rounding alone, and it
is not part of their identity.

It does change what is computed where sequences of a batch depend on each other in the forward or the backward pass,
because something is taken over all that is computed together:

- scales of granularity `tensor` on activations, keys, values, queries or gradients, and the second scale of formats
  such as nvfp4;
- scales that run along the tokens, which are those of the two operands of dw = dy^T x;
- stochastic rounding of any of these: its noise depends on the place in the tensor.

There the tokens of one piece are a setting like any other, as they are for whoever trains so on real hardware: they
are part of the run's identity where they are fewer than the batch. Which process computes a piece does not matter, so
two processes with half a batch each train the run that one process trains in two pieces.
"""

from scaling.config.data import DataConfig
from scaling.config.precision import KEYS, Precision
from scaling.config.runtime import RuntimeConfig
from scaling.errors import InputError

ALONG_TOKENS = ("dw_gradients", "dw_activations")
TOKENWISE = ("activations", "kv", KEYS, "queries", "dx_gradients", *ALONG_TOKENS)
"""The parts that are computed from tokens; the others are weights."""


def coupled_part(precision: Precision) -> str | None:
    """The first part whose quantization makes sequences of a batch depend on each other; None where none does."""
    for part in TOKENWISE:
        spec = precision.spec(part)
        if not spec.format.quantizes:
            continue
        scale_of_scales = spec.scale_bits[1] > 0
        if part in ALONG_TOKENS or spec.granularity == "tensor" or scale_of_scales or spec.rounding == "stochastic":
            return part
    return None


def check_division(data: DataConfig, tokens_at_once: int) -> None:
    """Raise InputError unless a batch is a whole number of pieces, and a piece one of sequences."""
    if data.batch_tokens % tokens_at_once or tokens_at_once % data.sequence_length:
        raise InputError(
            f"runtime.micro_batch_tokens={tokens_at_once}: must be a multiple of "
            f"data.sequence_length={data.sequence_length} that divides data.batch_tokens={data.batch_tokens}"
        )


class Batched:
    """What is computed at once of a run that has these settings."""

    data: DataConfig
    precision: Precision
    runtime: RuntimeConfig

    @property
    def tokens_at_once(self) -> int:
        """Tokens of one forward pass: the batch, or a micro-batch of it."""
        return min(self.runtime.micro_batch_tokens or self.data.batch_tokens, self.data.batch_tokens)

    def evaluated_at_once(self, precision: Precision) -> int:
        """Sequences of one forward pass of an evaluation in some precision: as in training, and no fewer where that
        would change the loss of a model whose identity does not say how its batches are divided."""
        free = coupled_part(precision) is None or coupled_part(self.precision) is not None
        return (self.tokens_at_once if free else self.data.batch_tokens) // self.data.sequence_length
