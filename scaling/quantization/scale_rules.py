"""The names of the rules by which scales are chosen. `scaling.quantization.scales` computes them.

| rule | scale s of a group, for an element format whose largest value is Q |
|---|---|
| `absmax` | max abs(x) / Q, so that nothing is clipped (arXiv 2411.04330, Appendix D) |
| `pow2_floor` | 2^(floor(log2 max abs(x)) - floor(log2 Q)), that of OCP Microscaling v1.0; clips values above s Q |
| `pow2_even` | the same of max abs(x) rounded to the mantissa bits of the element format |
| `pow2_ceil_peak` | the same with max abs(x) rounded up to a power of two |
| `pow2_ceil`, `pow2_nearest` | the power of two that is next above, or nearest (in log) to, the absmax scale |
| e<x>m<y> | the absmax scale rounded to that format, in units that map the tensor's largest onto it (NVFP4: `e4m3`) |
| e<x>m<y>_single | the same without units: the tensor has no second scale (arXiv 2601.19026) |
| e<x>m<y>_4over6 | a group's largest becomes 6 or 4, whichever errs less (arXiv 2512.02010); also `_single_4over6` |
| `mse` | least squared error over absmax scales shrunk by 2^(-k / 16), k = 0 to 48 |
| `gaussian` | root mean square of x, times what is best for normally distributed values (QuEST, arXiv 2502.05003) |
| `percentile<p>` | the p-th percentile of abs(x), divided by Q |
| `absmean` | mean abs(x) / sqrt(Q) (BitNet b1.58, arXiv 2402.17764, for Q = 1; BitNet a4.8, 2411.04965, for others) |

torchao calls `pow2_floor` FLOOR, `pow2_even` EVEN, `pow2_ceil_peak` CEIL and `pow2_ceil` RCEIL.

With a zero point (`uint4`) the range is that from the least to the largest value, zero included; the rules are `absmax`
(all of the range) and `mse`.
"""

import dataclasses
import re
from functools import cache

from scaling.errors import InputError, nearest_names
from scaling.quantization.formats import Format, parse

POWERS = ("pow2_floor", "pow2_even", "pow2_ceil_peak", "pow2_ceil", "pow2_nearest")
"""Rules whose scales are powers of two, stored as OCP's E8M0."""
NAMED = ("absmax", *POWERS, "mse", "gaussian", "absmean")
SINGLE, FOUR_OVER_SIX = "_single", "_4over6"
RULES = (
    "absmax, pow2_floor, pow2_even, pow2_ceil_peak, pow2_ceil, pow2_nearest, mse, gaussian, absmean, percentile<p> "
    "such as percentile99.9, or a format of scales such as e4m3, with _single behind it (the tensor has no second "
    "scale), _4over6 (largest values become 6 or 4), or both; auto takes the format's own"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleRule:
    """One rule, taken apart."""

    name: str
    """The one name that it has, however it was spelled."""
    share: float | None = None
    """Of `percentile<p>`: p / 100."""
    format: Format | None = None
    """Which scales are rounded to."""
    second: bool = False
    """Whether the tensor has a scale of its own, in units of which those of its groups are rounded."""
    four_over_six: bool = False

    @property
    def counts_zeros(self) -> bool:
        """Whether zeros that are added to a group change its scale."""
        return self.name in ("gaussian", "absmean") or self.share is not None

    @property
    def from_all(self) -> bool:
        """Whether every value of a group counts, not only its largest."""
        return self.name == "mse" or self.four_over_six or self.counts_zeros

    def stored_bits(self, fmt: Format) -> tuple[int, int]:
        """Bits that a scale takes for values of a format: for each group (with its zero point), and once a tensor."""
        if self.format is not None:
            return self.format.bits, 32 if self.second else 0
        return (8 if self.name in POWERS else 16) + (fmt.bits if fmt.zero_point else 0), 0


def check_rule(given: str, fmt: Format) -> str:
    """The name of the rule in effect for a format: `auto` is the format's own.

    Raises:
        InputError: no such rule, or not one for this format.
    """
    name = str(given).strip().lower()
    rule = scale_rule(fmt.scale_rule if name == "auto" else name)
    if rule is None:
        near = nearest_names(name, (*NAMED, "auto", "e4m3", f"e4m3{SINGLE}", f"e4m3{FOUR_OVER_SIX}"))
        raise InputError(f"{given}: no such scale rule; use {RULES}{near}")
    if rule.format is not None and rule.format.name == "e8m0":
        raise InputError(f"{given}: does not say how the power of two is chosen; use {' or '.join(POWERS)}")
    if fmt.zero_point and rule.name not in ("absmax", "mse"):
        raise InputError(f"{rule.name}: not for {fmt.name}, which has a zero point; use absmax or mse")
    if rule.four_over_six and fmt.quantizes and fmt.max_value != 6:
        raise InputError(f"{rule.name}: not for {fmt.name}, whose largest value is not 6; use it with e2m1 or nvfp4")
    return rule.name


@cache
def scale_rule(name: str) -> ScaleRule | None:
    """The rule of that name, `auto` apart; None if there is none."""
    if name in NAMED:
        return ScaleRule(name=name)
    if match := re.fullmatch(r"percentile(\d+(?:\.\d+)?)", name):
        percent = float(match[1])
        return ScaleRule(name=f"percentile{percent:.12g}", share=percent / 100) if 0 < percent <= 100 else None
    match = re.fullmatch(rf"(e\d+m\d+)({SINGLE})?({FOUR_OVER_SIX})?", name)
    try:
        fmt = parse(match[1]) if match else None
    except InputError:
        return None
    if fmt is None:
        return None
    behind = "".join(part or "" for part in match.groups()[1:])
    return ScaleRule(name=fmt.name + behind, format=fmt, second=not match[2], four_over_six=bool(match[3]))
