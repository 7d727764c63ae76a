"""Ways to train and to serve a model, each with its best N and D under a budget, and how sure all of that is.

Parameter vectors are the bootstrap draws that each fit keeps, so that parameters that are barely identified stay
together; what follows from them is stretched afterwards, as far as intervals of the fit are, and what depends on two
fits as far as those of the one that is stretched more. Laws are drawn independently of each other. The first entry of
every array of draws (S + 1,) is the estimate itself.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import LEVEL, Interval
from analysis.laws import formulas
from analysis.laws.law import FULL_BITS
from analysis.planning.budgets import Budget, best_model, overhead_bits
from analysis.planning.choose_law import FORMULAS, gap_law, outside
from analysis.planning.optima import Optimum
from analysis.planning.predict import bits_of
from analysis.planning.request import Request
from analysis.planning.surfaces import Surface

BELOW = f"quantization after training below {FULL_BITS:g} bits"
SERVED_FORMATS = ("int3", "int4", "int5", "int6", "int8")
LOWEST = 3  # fewest bits in training that are compared, where the fit does not say from where it was fitted
TAILS = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)


def from_draws(values: np.ndarray, sure: bool, reach: float) -> Interval:
    """Of an estimate and its draws (S + 1,): their middle 95%, stretched by `reach` about the estimate, on the log
    scale where all are positive; draws without a value do not count. None where the constants have none (not
    `sure`)."""
    value, draws = float(values[0]), values[1:][~np.isnan(values[1:])]
    if not sure or not len(draws):
        return Interval(value=value)
    # Infinite losses must not turn into NaN.
    low, high = np.quantile(stretched(np.append(value, draws), reach)[1:], TAILS, method="nearest")
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def stretched(values: np.ndarray, reach: float) -> np.ndarray:
    """Draws (S + 1,) moved away from the estimate, which is the first, on the log scale where all are positive."""
    with np.errstate(over="ignore"):
        if np.min(values) > 0:
            return values[0] * (values / values[0]) ** reach
        return values[0] + (values - values[0]) * reach


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """Bits in training, format after it (None: served as trained), bits of the served weights and of their scales."""

    trained: float
    post: str | None
    served: float
    overhead: float = 0.0
    eligible: bool = True
    """False for what is there to be compared with, but may not be chosen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way to train and to serve, with the best N and D for it. Losses in nats a token.

    Intervals of N, D, bytes and flops are of the optimum recomputed for each draw; those of losses are of the model
    recommended, whose N and D are decided once.
    """

    trained: float
    """Bits in training, of the parts that the loss law knows."""
    post: str | None
    """Format after training, None where the model is served as trained."""
    served: float
    """Bits of the served weights."""
    N: Interval
    D: Interval
    loss: Interval
    """Of the served model."""
    gap: Interval
    """The part of the loss that quantization after training adds."""
    excess: Interval
    """Loss above the best alternative's, paired by draw."""
    bytes: Interval
    flops: Interval
    """Operations of training and serving together."""
    best_in: float
    """Share of draws in which this alternative is the best, NaN without intervals."""
    eligible: bool
    """False where it is only there to be compared with."""
    critical: bool
    """Whether D stops at D_crit, below what the budget would pay for."""
    outside: list[str]
    """A line for each variable that lies outside the rows that a law was fitted on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A fit's constants by symbol, (S + 1,) each, and how far what follows from them has to be stretched."""

    fit: Fit
    constants: dict[str, np.ndarray]
    sure: bool
    reach: float
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Variables of the law that are no N, D or width."""

    def surface(self, widths: Mapping[str, float]) -> Surface | None:
        """The law of losses at these widths, where it is none of the formulas."""
        if self.fit.law.name in FORMULAS:
            return None
        return Surface(law=self.fit.law, constants=self.constants, P=widths, others=self.others)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Solved:
    way: Way
    optimum: Optimum  # of each draw, (S + 1,)
    loss: np.ndarray  # at the N and D of the estimate, (S + 1,)
    stretched: np.ndarray  # ... with the share of each law stretched as its own intervals are
    gap: np.ndarray  # likewise
    sure: bool
    reach: float
    charged: float
    critical: bool
    outside: list[str]


def gap_laws(
    fits: Mapping[str, Fit], parts: Sequence[str], post: Sequence[str] | None
) -> tuple[dict[bool, Fit], dict[str, str]]:
    """The gap law for models trained with `parts` in low precision (True) and in 16 bits (False), and the reason where
    one lacks that is needed for `post`.

    Raises:
        InputError: there is none although `post` asks for formats below 16 bits.
    """
    formats = [name for name in (SERVED_FORMATS if post is None else post) if bits_of(name) < FULL_BITS]
    if not formats:
        return {}, {}
    try:
        laws = {False: gap_law(fits)}
    except InputError as fault:
        if post is not None:
            raise InputError(f"formats={','.join(post)}: {fault}") from None
        return {}, {"quantization after training": str(fault)}
    if not parts:
        return laws, {}
    try:
        return laws | {True: gap_law(fits, dict.fromkeys(parts, math.nan))}, {}  # whatever the bits
    except InputError as fault:
        return laws, {BELOW: str(fault)}


def ways_of(law: Fit, parts: Sequence[str], request: Request, gaps: Mapping[bool, Fit]) -> list[Way]:
    """Every training width served as trained, and with each format after it that has fewer bits and a gap law. 16 bits
    as trained are always there to be compared with. Where nothing is named, what saves something is tried: formats
    where serving is limited, widths below 16 bits where they make training cheaper, or weights that must be small."""
    post, widths, group = request.post, request.widths, request.group
    formats = {
        name: bits_of(name) for name in (post if post is not None else SERVED_FORMATS if request.serving else ())
    }
    if widths is None:
        lowest = max((law.ranges[p][0] for p in parts if p in law.ranges), default=LOWEST)
        smaller = "P_w" in parts and min(formats.values(), default=FULL_BITS) < FULL_BITS
        saving = saves_operations(parts) or smaller
        widths = [*range(math.ceil(lowest), int(FULL_BITS)), FULL_BITS] if saving else [FULL_BITS]
    ways = []
    for trained in sorted({*map(float, widths), FULL_BITS}):
        weights = trained if "P_w" in parts else FULL_BITS
        eligible = trained in widths and (post is None or weights in formats.values())
        if eligible or trained == FULL_BITS:
            # What is served as trained is served in a format all the same, the one of its bits with the least scales.
            names = [name for name, bits in formats.items() if bits == weights] if post else [f"int{weights:g}"]
            scales = 0.0 if weights >= FULL_BITS else min(overhead_bits(name, group=group) for name in names)
            ways.append(Way(trained=trained, post=None, served=weights, overhead=scales, eligible=eligible))
        if trained not in widths or (trained < FULL_BITS) not in gaps:
            continue
        for name, bits in formats.items():
            if bits < min(weights, trained):
                overhead = overhead_bits(name, group=group)
                ways.append(Way(trained=trained, post=name, served=bits, overhead=overhead))
    return ways


def saves_operations(parts: Sequence[str]) -> bool:
    """Whether training below 16 bits is charged less: weights and activations are multiplied with each other."""
    return {"P_w", "P_a"} <= set(parts)


def drawn(fit: Fit, count: int, seed: int, others: Mapping[str, float] | None = None) -> Drawn:
    """`count` parameter vectors of `fit`, the same for the same seed; copies of the estimate where it has no draws.
    `others` are variables of the law that are no N, D or width."""
    others = dict(others or {})
    constants = {k: np.full(count + 1, float(v)) for k, v in {**fit.law.constants, **fit.params}.items()}
    if count == 0 or fit.draws is None:
        return Drawn(fit=fit, constants=constants, sure=False, reach=1.0, others=others)
    generator = np.random.default_rng([seed, zlib.crc32(fit.law.name.encode())])
    chosen = fit.draws[generator.integers(len(fit.draws), size=count)]
    for j, symbol in enumerate(fit.law.symbols):
        constants[symbol][1:] = chosen[:, j]
    return Drawn(fit=fit, constants=constants, sure=True, reach=fit.bootstrap.reach, others=others)


def compare(
    ways: Sequence[Way], budget: Budget, loss: Drawn, gaps: dict[bool, Drawn], parts: Sequence[str]
) -> tuple[list[Alternative], np.ndarray, dict[Way, str]]:
    """All `ways` that are possible, smallest loss first and those not eligible last; which of them (S,) is the best in
    each draw; and why the others are not possible. `gaps` holds the gap law for models trained in low precision (True)
    and in 16 bits (False). Nothing is returned where nothing eligible is possible."""
    solved, left_out = [], {}
    for way in ways:
        gap = None if way.post is None else gaps[way.trained < FULL_BITS]
        made = _solve(way, budget, loss, gap, parts)
        if isinstance(made, str):
            left_out[way] = made
        else:
            solved.append(made)
    solved.sort(key=lambda s: (not s.way.eligible, s.loss[0]))
    eligible = [s for s in solved if s.way.eligible]
    if not eligible:
        return [], np.zeros(0, int), left_out
    losses = np.stack([_finite_or_inf(s.optimum.loss[1:]) for s in eligible])
    first = losses.argmin(axis=0)
    sure = all(s.sure for s in eligible) and len(first) > 0
    return [_alternative(s, i, solved[0], budget, first, sure) for i, s in enumerate(solved)], first, left_out


def _solve(way: Way, budget: Budget, loss: Drawn, gap: Drawn | None, parts: Sequence[str]) -> _Solved | str:
    c, g = loss.constants, None if gap is None else gap.constants
    widths = dict.fromkeys(parts, way.trained)
    charged = way.trained if saves_operations(parts) else FULL_BITS
    surface = loss.surface(widths)
    if surface is None and np.isnan(formulas.effective_share(c, widths)).flat[0]:
        edge = float(formulas.infeasible_below(c).flat[0])
        return f"{loss.fit.law.name} leaves no effective parameters at {edge:.3g} bits and below"
    bits = None if way.post is None else way.served
    best = best_model(c, budget, P=widths, P_post=bits, gap=g, trained=charged, overhead=way.overhead, surface=surface)
    if np.isnan(best.loss[0]):
        if surface is not None and np.isnan(surface.above(best.N, best.D)).flat[0] and best.N[0] >= 1:
            return f"{loss.fit.law.name} has no value there"
        return "the budget has no room for one parameter and one token"
    N, D = float(best.N[0]), float(best.D[0])
    trained = _finite_or_inf(
        formulas.training_loss(c, N, D, widths) if surface is None else surface.above(np.full_like(best.N, N), D)
    )
    added = np.zeros_like(trained) if g is None else _finite_or_inf(formulas.gap(g, N, D, bits, widths))
    stretched_gap = added if gap is None else stretched(added, gap.reach)
    at = {"N": N, "D": D, **widths} | ({} if bits is None else {"P_post": bits})
    used = [loss] if gap is None else [loss, gap]
    most = float(budget.most_tokens(N, trained=charged, served=way.served))
    return _Solved(
        way=way,
        optimum=best,
        loss=trained + added,
        stretched=stretched(trained, loss.reach) + stretched_gap,
        gap=stretched_gap,
        sure=all(law.sure for law in used),
        reach=max(law.reach for law in used),
        charged=charged,
        critical=most * (1 - 1e-6) > D,
        outside=[line for law in used for line in outside(law.fit, at)],
    )


def _finite_or_inf(values: np.ndarray) -> np.ndarray:
    """Losses of draws: one without a value has no effective parameters, which no loss is large enough for."""
    return np.nan_to_num(values, nan=np.inf, posinf=np.inf)


def _alternative(s: _Solved, place: int, best: _Solved, budget: Budget, first: np.ndarray, sure: bool) -> Alternative:
    N, D, way = s.optimum.N, s.optimum.D, s.way
    with np.errstate(invalid="ignore"):
        excess = s.loss - best.loss if place else np.zeros_like(s.loss)
    return Alternative(
        trained=way.trained,
        post=way.post,
        served=way.served,
        N=from_draws(N, s.sure, s.reach),
        D=from_draws(D, s.sure, s.reach),
        loss=from_draws(s.stretched, s.sure, 1.0),
        gap=from_draws(s.gap, s.sure, 1.0),
        excess=from_draws(excess, s.sure and best.sure, max(s.reach, best.reach)),
        bytes=from_draws(budget.size(N, served=way.served, overhead=way.overhead), s.sure, s.reach),
        flops=from_draws(budget.cost(N, D, trained=s.charged, served=way.served), s.sure, s.reach),
        best_in=float((first == place).mean()) if sure else np.nan,
        eligible=way.eligible,
        critical=s.critical,
        outside=s.outside,
    )
