"""How a tensor is quantized: format, granularity, scale rule, rounding and estimator, resolved and checked once.

What is asked for and what comes into effect differ: `auto` is the format's own scale rule, and a format with blocks of
its own keeps those. A `QuantSpec` holds what is in effect; what quantizes, counts bytes or estimates errors takes one.
"""

import dataclasses
import re
from typing import Literal, get_args

from scaling.errors import InputError, named, nearest_names
from scaling.quantization.formats import Format, parse
from scaling.quantization.rounding import family
from scaling.quantization.scale_rules import check_rule, scale_rule

Rounding = Literal["nearest_even", "stochastic"]
Estimator = Literal["straight_through", "clipped"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """How a tensor is quantized, as `QuantSpec.of` has resolved and checked it."""

    format: Format
    granularity: str
    """Values that share a scale: `tensor`, `block<k>`, `block<r>x<k>` (k neighbours in each of r rows), or a row along
    the last axis, named as it was asked for."""
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
        tiles: bool = True,
        keys: tuple[str, str, str] = ("fmt", "granularity", "scale_rule"),
    ) -> "QuantSpec":
        """Resolve and check what was asked for; arguments as for `scaling.quantization.fake_quantize.fake_quantize`.

        Args:
            rows: names that a scale for each row has here.
            tiles: whether blocks of several rows make sense here.
            keys: names of the first three arguments in messages.

        Raises:
            InputError: no such format, granularity, rule, rounding or estimator, or a rule that is not for the format.
        """
        chosen = fmt if isinstance(fmt, Format) else named(keys[0], parse, fmt)
        named(keys[1], lambda: check_granularity(granularity, *rows, tiles=tiles))
        rule = named(keys[2], check_rule, scale_rule, chosen)
        for name, value, known in (("rounding", rounding, Rounding), ("estimator", estimator, Estimator)):
            if value not in get_args(known):
                raise InputError(f"{name}={value}: no such {name}; use {' or '.join(get_args(known))}")
        granularity = chosen.granularity(granularity)
        return cls(format=chosen, granularity=granularity, scale_rule=rule, rounding=rounding, estimator=estimator)

    @property
    def block(self) -> int | None:
        """Values in a block along a row, None where a scale is not one of a block."""
        return int(self._block[-1]) if self._block else None

    @property
    def block_rows(self) -> int:
        """Rows that share a scale within a block's width."""
        return int(self._block[0]) if len(self._block) > 1 else 1

    @property
    def _block(self) -> list[str]:
        return self.granularity.removeprefix("block").split("x") if self.granularity.startswith("block") else []

    @property
    def scale_bits(self) -> tuple[int, int]:
        """Bits that a scale takes: for each group (with its zero point), and once a tensor."""
        return scale_rule(self.scale_rule).stored_bits(self.format)

    @property
    def program(self) -> tuple[str, str, str, bool | str]:
        """What has to be equal for tensors to be quantized as one stack, rounding and estimator apart: family of
        formats, granularity, scale rule, rotation."""
        rotation = "random" if self.format.random_signs else self.format.hadamard
        return family(self.format), self.granularity, self.scale_rule, rotation

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
        self._check_short(missing, "width", width, block)
        return missing

    def row_padding(self, rows: int) -> int:
        """Rows of zeros that fill up the last blocks of a matrix of so many.

        Raises:
            InputError: the rule must not count the zeros.
        """
        missing = -rows % self.block_rows
        self._check_short(missing, "height", rows, self.block_rows)
        return missing

    def _check_short(self, missing: int, side: str, size: int, block: int | None) -> None:
        if missing and scale_rule(self.scale_rule).counts_zeros:
            raise InputError(
                f"{self.format.name}: {self.scale_rule}: a {side} of {size} leaves a short block of {block}, whose "
                "scale would count zeros; use auto, absmax or mse"
            )


def check_granularity(granularity: str, *rows: str, tiles: bool = False) -> None:
    """Raise InputError unless `granularity` is tensor, block<k>, one of the names that `rows` have here, or, where
    `tiles` of several rows make sense, block<r>x<k>."""
    pattern = r"block[1-9]\d*(x[1-9]\d*)?" if tiles else r"block[1-9]\d*"
    if granularity not in ("tensor", *rows) and not re.fullmatch(pattern, str(granularity)):
        known = ("tensor", *rows)
        two = ", or block<r>x<k> such as block16x16" if tiles else ""
        near = nearest_names(str(granularity), (*known, "block16", *(["block16x16"] if tiles else [])), 1)
        raise InputError(
            f"{granularity}: no such granularity; use {', '.join(known)}, or block<k> such as block16{two}{near}"
        )
