"""A prediction from fitted laws or published constants: N, D and formats in, loss with its interval out.

The loss of training comes from a loss law, what quantization after training adds from a gap law (`choose_law` says
which), and their errors are taken as independent. An interval of a gap is made on its logarithm, so that it stays above
zero.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import Interval
from analysis.fitting.store import published
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import gap_law, loss_law, outside
from analysis.table import numbers

PAPER = ("kumar_neff_tied", "kumar_ptq")  # the laws whose published constants are one paper's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term(Interval):
    """One law's share, in nats a token."""

    law: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """`loss` after training, `gap` from quantization after it (None if not asked for), and their sum."""

    loss: Term
    gap: Term | None
    total: Term
    warnings: list[str]


def paper() -> dict[str, Fit]:
    """The laws of Kumar et al. 2024 with the constants of their Table 2."""
    return {name: published(name) for name in PAPER}


def bits_of(text: str) -> float:
    """P of a format name: `int4`, `e2m1` (sign, exponent and mantissa bits), `mxfp4`, `bf16`, or a number of bits; at
    most 16. Block scales come on top of P, and a rotation (`-hadamard`) does not change it.

    Raises:
        InputError: it is none of these.
    """
    name = text.lower().removesuffix("-hadamard")
    bits = {"ternary": 2.0, "binary": 1.0}.get(name, 0.0)
    if match := re.fullmatch(r"(?:u?int|bf|fp|nf|mxfp|mxint|nvfp)?(\d+(?:\.\d+)?)", name):
        bits = float(match[1])
    elif match := re.fullmatch(r"(?:mxfp\d_)?e(\d+)m(\d+)", name):
        bits = 1.0 + int(match[1]) + int(match[2])
    if not 1 <= bits <= 32:
        raise InputError(f"{text}: not a format; expected 1 to 32 bits or a name such as int4, e4m3 or bf16")
    return min(bits, FULL_BITS)


def predict(
    fits: Mapping[str, Fit], *, N: float, D: float, widths: Mapping[str, float], post: float | None
) -> Prediction:
    """Loss at N parameters and D tokens, trained at `widths` (P_w, P_a, P_kv; absent: 16), quantized to `post` bits.

    Raises:
        InputError: no law in `fits` answers the question, or the law leaves no effective parameters there.
    """
    for symbol, value in (("N", N), ("D", D)):
        if not 0 < value < np.inf:
            raise InputError(f"{symbol}={value:g}: expected a number above zero")
    low = {part: bits for part, bits in widths.items() if bits < FULL_BITS}
    asked = ", ".join(f"{part}={bits:g}" for part, bits in low.items())
    at = {"N": N, "D": D, **{part: widths.get(part, FULL_BITS) for part in PARTS}}
    fit = loss_law(fits, low)
    loss = _term(fit, at)
    if np.isnan(loss.value):
        raise InputError(f"{asked}: {fit.law.name} leaves no effective parameters there, f(P) <= 0; ask for more bits")
    if post is None or post >= FULL_BITS:
        return Prediction(loss=loss, gap=None, total=loss, warnings=outside(fit, at))
    if low and post >= min(low.values()):
        raise InputError(f"post={post:g}: not below {asked} in training; no law knows what that adds")
    try:
        after = gap_law(fits, low)
    except InputError as fault:
        raise InputError(f"post: {fault}") from None
    at["P_post"] = post
    gap = _term(after, at)
    value = loss.value + gap.value
    down = np.hypot(loss.value - loss.low, gap.value - gap.low)
    up = np.hypot(loss.high - loss.value, gap.high - gap.value)
    total = Term(law=f"{loss.law} + {gap.law}", value=value, low=float(value - down), high=float(value + up))
    return Prediction(loss=loss, gap=gap, total=total, warnings=outside(fit, at) + outside(after, at))


def predict_cells(
    fits: Mapping[str, Fit], cells: pd.DataFrame, posts: Sequence[float]
) -> tuple[pd.DataFrame, list[str]]:
    """What `predict` says of each row of `cells` (N, D and, where they are there, P_w, P_a, P_kv), after training and
    quantized to each of `posts`: columns N, D, P_w, P_a, P_kv, P_post, loss, loss_low, loss_high, and gap, gap_low,
    gap_high where P_post is below 16. Also a line for each question that has no answer or lies outside the rows of the
    fits, each once.

    Raises:
        InputError: N or D is missing, or something is no number above zero; or no question has an answer.
    """
    asked = {name: numbers(cells, name, positive=True) for name in ("N", "D", *PARTS) if name in cells or name in "ND"}
    rows, lines = [], {}
    for cell in pd.DataFrame(asked).to_dict("records"):
        widths = {part: cell.get(part, FULL_BITS) for part in PARTS}
        for post in (FULL_BITS, *posts):
            row = {"N": cell["N"], "D": cell["D"], **widths, "P_post": post}
            try:
                made = predict(fits, N=cell["N"], D=cell["D"], widths=widths, post=post)
            except InputError as fault:
                lines[str(fault)] = None
                continue
            lines |= dict.fromkeys(made.warnings)
            terms = {"loss": made.total} if made.gap is None else {"loss": made.total, "gap": made.gap}
            for name, term in terms.items():
                row |= {name: term.value, f"{name}_low": term.low, f"{name}_high": term.high}
            rows.append(row)
    if not rows:
        raise InputError(f"nothing could be predicted: {'; '.join(lines)}")
    return pd.DataFrame(rows), list(lines)


def _term(fit: Fit, at: Mapping[str, float]) -> Term:
    frame = pd.DataFrame({name: [number] for name, number in at.items()})
    value, reach = float(fit.predict(frame)[0]), float(fit.predict_se(frame)[0]) * fit.bootstrap.t
    sides = np.array([-1.0, 1.0])
    if fit.law.response == "gap" and value > 0:
        with np.errstate(over="ignore"):
            ends = value * np.exp(sides * reach / value)
    else:
        ends = value + sides * reach
    return Term(law=fit.law.name, value=value, low=float(ends[0]), high=float(ends[1]))
