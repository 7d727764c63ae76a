"""A prediction from fitted laws or published constants: N, D and formats in, loss with its interval out.

The loss of training comes from a loss law, what quantization after training adds from a gap law (`choose_law` says
which), and their errors are taken as independent. An interval of a gap is made on its logarithm, so that it stays above
zero. Intervals are those of the laws; a prediction interval is for one more run, and has the scatter of runs in it.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import notebook
from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import Interval
from analysis.fitting.store import published
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import Value, asked_law, gap_law, loss_law, outside, question
from analysis.table import numbers

RESPONSES = ("loss", "gap_qat")  # of laws that can be asked by their name
PAPER = ("kumar_neff_tied", "kumar_ptq")  # the laws whose published constants are one paper's


Scatter = Callable[[float, float], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term(Interval):
    """One law's share of the `response`, in nats a token."""

    law: str
    response: str = "loss"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """`loss` after training, `gap` from quantization after it (None if not asked for), and their sum. Where a law of
    what low precision in training adds was asked, all three are that."""

    loss: Term
    gap: Term | None
    total: Term
    warnings: list[str]

    def to_frame(self) -> pd.DataFrame:
        """A row each of `loss`, `gap` (if asked for) and `total`: value, its 95% interval low to high, law."""
        terms = {"loss": self.loss, "gap": self.gap, "total": self.total}
        known = {name: dataclasses.asdict(term) for name, term in terms.items() if term is not None}
        return pd.DataFrame.from_dict(known, orient="index")[["value", "low", "high", "law"]]

    def __repr__(self) -> str:
        return self.to_frame().to_string(float_format="{:.4g}".format)

    def _repr_html_(self) -> str:
        return notebook.page("nats a token", self.to_frame(), self.warnings)


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


Laws = Mapping[str, Fit] | Iterable[Fit] | Fit
"""Of laws that one answer may need: by name, several, or one."""


def predict(
    fits: Laws,
    *,
    N: float,
    D: float,
    widths: Mapping[str, float | str] | None = None,
    post: float | str | None = None,
    law: str | None = None,
    formats: Mapping[str, str] | None = None,
    at: Mapping[str, Value] | None = None,
    one_run: bool = False,
    scatter_of_sizes: Scatter | None = None,
) -> Prediction:
    """Loss at N parameters and D tokens, trained at `widths` (P_w, P_a, P_kv; absent: 16), quantized to `post`; both
    are bits or names of formats. `fits` are the laws to ask, one of losses and for `post` one of gaps.

    `law` names the law that is asked, `formats` those of the parts by column of their widths, `at` says other variables
    of the law. `one_run`: prediction intervals, for the loss of one more run; `scatter_of_sizes`: the standard
    deviation of ln gap at (N, D) by which sizes scatter about the gap law.

    Raises:
        InputError: no law in `fits` answers the question, or the law leaves no effective parameters there.

    >>> from analysis import predict, read_fits
    >>> fits = read_fits("results/overtraining/fits.json").fits
    >>> made = predict(fits, N=200e3, D=20e6, post="int4")
    >>> made.to_frame().round(2)
           value   low  high                     law
    loss    1.28  1.24  1.31              chinchilla
    gap     0.07  0.06  0.09               kumar_ptq
    total   1.35  1.31  1.39  chinchilla + kumar_ptq
    >>> f"{made.gap.value:.3f} nats a token, as {made.gap.law} says"
    '0.071 nats a token, as kumar_ptq says'
    """
    for symbol, value in (("N", N), ("D", D)):
        if not 0 < value < np.inf:
            raise InputError(f"{symbol}={value:g}: expected a number above zero")
    fits = _by_name(fits)
    widths = {part: bits_of(bits) if isinstance(bits, str) else bits for part, bits in (widths or {}).items()}
    post = bits_of(post) if isinstance(post, str) else post
    low = {part: bits for part, bits in widths.items() if bits < FULL_BITS}
    asked = ", ".join(f"{part}={bits:g}" for part, bits in low.items())
    more, at = {"formats": formats, "more": at}, {"N": N, "D": D, **{p: widths.get(p, FULL_BITS) for p in PARTS}}
    added = law is not None and asked_law(fits, law, RESPONSES).law.response == "gap_qat"
    if added or (law is None and {fit.law.response for fit in fits.values()} == {"gap_qat"}):
        fit = fits[law] if law else next(iter(fits.values()))
        if post is not None and post < FULL_BITS:
            raise InputError(f"post={post:g}: {fit.law.name} knows models as they are trained alone")
        term = _term(fit, at, one_run, **more)
        return Prediction(loss=term, gap=None, total=term, warnings=outside(fit, at))
    fit = loss_law(fits, low, law)
    loss = _term(fit, at, one_run, **more)
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
    gap = _term(after, at, one_run, scatter_of_sizes, **more)
    value = loss.value + gap.value
    down = np.hypot(loss.value - loss.low, gap.value - gap.low)
    up = np.hypot(loss.high - loss.value, gap.high - gap.value)
    total = Term(law=f"{loss.law} + {gap.law}", value=value, low=float(value - down), high=float(value + up))
    return Prediction(loss=loss, gap=gap, total=total, warnings=outside(fit, at) + outside(after, at))


def _by_name(fits: Laws) -> Mapping[str, Fit]:
    if isinstance(fits, Mapping):
        return fits
    return {fit.law.name: fit for fit in ([fits] if isinstance(fits, Fit) else fits)}


def predict_cells(
    fits: Mapping[str, Fit],
    cells: pd.DataFrame,
    posts: Sequence[float],
    *,
    law: str | None = None,
    at: Mapping[str, Value] | None = None,
    one_run: bool = False,
    scatter_of_sizes: Scatter | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """`predict` for each row of `cells` (N, D and, where they are there, P_w, P_a, P_kv), after training and
    quantized to each of `posts`: columns N, D, P_w, P_a, P_kv, P_post, loss, loss_low, loss_high, and gap, gap_low,
    gap_high where P_post is below 16. Other variables of the laws are taken from columns of their names, or `at`. Also
    a line for each question that has no answer or lies outside the rows of the fits, each once.

    Raises:
        InputError: N or D is missing, or something is no number above zero; or no question has an answer.
    """
    asked = {name: numbers(cells, name, positive=True) for name in ("N", "D", *PARTS) if name in cells or name in "ND"}
    rows, lines = [], {}
    variables = {name for fit in fits.values() for name in fit.law.variables} - {*asked, *PARTS, "P_post"}
    others = cells[[name for name in variables if name in cells]].to_dict("records")
    for cell, own in zip(pd.DataFrame(asked).to_dict("records"), others, strict=True):
        said = {"law": law, "at": {**(at or {}), **own}, "one_run": one_run, "scatter_of_sizes": scatter_of_sizes}
        widths = {part: cell.get(part, FULL_BITS) for part in PARTS}
        for post in (FULL_BITS, *posts):
            row = {"N": cell["N"], "D": cell["D"], **widths, "P_post": post}
            try:
                made = predict(fits, N=cell["N"], D=cell["D"], widths=widths, post=post, **said)
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


def _term(fit: Fit, at: Mapping[str, float], one_run: bool, of_sizes: Scatter | None = None, **said) -> Term:
    x = question(fit.law, at, **said)
    value, se = float(fit.law.each(fit.params, x)[0]), float(fit.se_at(x)[0])
    if one_run:
        size = value * of_sizes(at["N"], at["D"]) if of_sizes else 0.0
        se = float(np.hypot(se, np.hypot(fit.scatter(value), size)))
    reach = fit.bootstrap.t * se
    sides = np.array([-1.0, 1.0])
    if fit.law.response != "loss" and value > 0:
        with np.errstate(over="ignore"):
            ends = value * np.exp(sides * reach / value)
    else:
        ends = value + sides * reach
    return Term(law=fit.law.name, response=fit.law.response, value=value, low=float(ends[0]), high=float(ends[1]))
