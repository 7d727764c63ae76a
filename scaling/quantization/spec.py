"""How a tensor is quantized: format, granularity, scale rule, rounding and estimator, resolved and checked once.

What is asked for and what comes into effect differ: `auto` is the format's own scale rule, and a format with blocks of
its own keeps those. A `QuantSpec` holds what is in effect; what quantizes, counts bytes or estimates errors takes one.
"""

import dataclasses
import re
from typing import Literal, get_args

from scaling.errors import InputError, named
from scaling.quantization.formats import Format, parse
from scaling.quantization.rounding import family
from scaling.quantization.scales import check_rule, counts_zeros, stored_bits

Rounding = Literal["nearest_even", "stochastic"]
Estimator = Literal["straight_through", "clipped"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """How a tensor is quantized, as `QuantSpec.of` has resolved and checked it."""

    format: Format
    granularity: str
    """Values that share a scale: `tensor`, `block<k>`, or a row along the last axis, named as it was asked for."""
    scale_rule: str
    rounding: Rounding
    estimator: Estimator

    @classmethod
    def of(
        cls,
        fmt: str | Format,
        granularity: str = "channel",
        scale_rule: str = "auto",
        rounding: Rounding = "nearest_even",
        estimator: Estimator = "straight_through",
        *,
        rows: tuple[str, ...] = ("channel", "token"),
        keys: tuple[str, str, str] = ("fmt", "granularity", "scale_rule"),
    ) -> "QuantSpec":
        """Resolve and check what was asked for; arguments as for `scaling.quantization.fake_quantize.fake_quantize`.

        Args:
            rows: names that a scale for each row has here.
            keys: names of the first three arguments in messages.

        Raises:
            InputError: no such format, granularity, rule, rounding or estimator, or a rule that is not for the format.
        """
        chosen = fmt if isinstance(fmt, Format) else named(keys[0], parse, fmt)
        named(keys[1], check_granularity, granularity, *rows)
        rule = named(keys[2], check_rule, scale_rule, chosen)
        for name, value, known in (("rounding", rounding, Rounding), ("estimator", estimator, Estimator)):
            if value not in get_args(known):
                raise InputError(f"{name}={value}: no such {name}; use {' or '.join(get_args(known))}")
        granularity = chosen.granularity(granularity)
        return cls(format=chosen, granularity=granularity, scale_rule=rule, rounding=rounding, estimator=estimator)

    @property
    def block(self) -> int | None:
        """Values in a block, None where a scale is not one of a block."""
        return int(self.granularity.removeprefix("block")) if self.granularity.startswith("block") else None

    @property
    def scale_bits(self) -> tuple[int, int]:
        """Bits that a scale takes: for each group (with its zero point), and once a tensor."""
        return stored_bits(self.scale_rule, self.format)

    @property
    def program(self) -> tuple[str, str, str, bool]:
        """What has to be equal for tensors to be quantized as one stack, rounding and estimator apart: family of
        formats, granularity, scale rule, rotation."""
        return family(self.format), self.granularity, self.scale_rule, self.format.hadamard

    def padding(self, width: int) -> int:
        """Zeros that fill up the last block of a row of `width` values.

        Raises:
            InputError: rows of this width cannot be quantized so: rotations need an even one, blocks that are not the
                format's own have to divide it, and the rule must not count the zeros.
        """
        name, block = self.format.name, self.block
        if self.format.hadamard and width % 2:
            raise InputError(f"{name}: a width of {width} is odd; rotations need an even one")
        missing = -width % block if block else 0
        if missing and self.format.block is None:
            raise InputError(f"{name}: {self.granularity}: does not divide a width of {width}")
        if missing and counts_zeros(self.scale_rule):
            raise InputError(
                f"{name}: {self.scale_rule}: a width of {width} leaves a short block of {block}, whose scale would "
                "count zeros; use auto, absmax or mse"
            )
        return missing


def check_granularity(granularity: str, *rows: str) -> None:
    """Raise InputError unless `granularity` is tensor, block<k>, or one of the names that `rows` have here."""
    if granularity not in ("tensor", *rows) and not re.fullmatch(r"block[1-9]\d*", str(granularity)):
        known = ", ".join(("tensor", *rows))
        raise InputError(f"{granularity}: no such granularity; use {known}, or block<k> such as block16")
