"""Which model to train: the best N, D, training precision and format after training that budgets allow.

Every way to train and to serve gets its own best N and D; `alternatives` says how intervals are made. Budgets are
ceilings. Training is charged with 6/16 N D P operations, where P is 16 unless the loss law knows both weights and
activations in low precision; a model that is served as trained keeps its weights at the width that they had in
training.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import Interval
from analysis.fitting.options import Options
from analysis.laws.kumar import PARTS
from analysis.planning.alternatives import (
    BELOW,
    Alternative,
    Drawn,
    compare,
    drawn,
    from_draws,
    gap_laws,
    saves_operations,
    ways_of,
)
from analysis.planning.budgets import Budget
from analysis.planning.choose_law import FORMULAS, LOW_LAWS, loss_law, parts_of, question
from analysis.planning.optima import best_bits
from analysis.planning.request import FULL, Request

SETTLED = 1e-9  # relative width of intervals of what does not depend on any law
PART_NAMES = {"P_w": "weights", "P_a": "activations", "P_kv": "KV cache"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer. `alternatives` are all others, smallest loss first."""

    best: Alternative
    alternatives: list[Alternative]
    sixteen: Alternative | None
    """Trained and served in 16 bits under the same budgets; None where they have no room for it."""
    trained: Interval
    """Bits in training: those of the best alternative, and the best ones over the draws."""
    served: Interval
    """Bits of the served weights, likewise."""
    P_star: Interval | None
    """The width, as a real number, that is jointly optimal with N and D (Eq. 7) where operations alone are limited and
    widths below 16 bits compared."""
    parts: tuple[str, ...]
    """The precision columns that `trained` sets."""
    laws: tuple[str, ...]
    """What was used: the law of the loss, then those of the gap."""
    left_out: dict[str, str]
    """What was not compared, and why."""
    warnings: list[str]
    sentence: str


def plan(fits: Mapping[str, Fit], **budgets) -> Plan:
    """The best model under `budgets`, the fields of `Request`; `fits` by law name.

    Raises:
        InputError: a value out of range, budgets that leave N or D without a limit, no law, or no room for one model.
    """
    request = Request(**budgets)
    limits, law = request.limits, loss_law(fits, name=request.law)
    if not {"N", "D"} <= set(law.law.variables):
        raise InputError(f"{law.law.name}: knows {', '.join(law.law.variables)}; a plan needs a law of N and D")
    parts = parts_of(law)
    if not parts and request.widths is not None and min(request.widths) < FULL:
        raise InputError(
            f"widths={min(request.widths):g}: no law for training below {FULL} bits among {', '.join(fits)}; "
            f"fit one of {', '.join(LOW_LAWS)}"
        )
    after, missing = gap_laws(fits, parts, request.post if request.post is not None or request.serving else ())
    ways = ways_of(law, parts, request, after)
    low = any(way.trained < FULL for way in ways)
    if not low:
        missing.pop(BELOW, None)
        if parts and request.widths is None and request.post is None:
            missing[f"training below {FULL} bits"] = (
                f"it saves nothing here, for {law.law.name} knows {', '.join(parts)} only; name widths to see it"
            )
    draws = 0 if all(fit.draws is None for fit in (law, *after.values())) else request.draws
    at = {"N": 1.0, "D": 1.0, **dict.fromkeys(PARTS, float(FULL))}
    others = {k: float(v[0]) for k, v in question(law.law, at, more=request.at).items() if k not in (*at, "C")}
    loss = drawn(law, draws, request.seed, others)
    gaps = {trained_low: drawn(fit, draws, request.seed) for trained_low, fit in after.items()}
    made, first, impossible = compare(ways, Budget(**limits, fixed_bytes=request.fixed_bytes), loss, gaps, parts)
    left_out = {_title(way): reason for way, reason in impossible.items()} | missing
    if not made:
        given = ", ".join(f"{name}={value:g}" for name, value in limits.items())
        unfit = "no width in training is that of a format allowed, or above one with a law for what quantization adds"
        reasons = dict.fromkeys(
            impossible.values() if any(way.eligible for way in ways) else [unfit, *missing.values()]
        )
        raise InputError(f"{given}: nothing is possible ({'; '.join(reasons)})")
    best, sure = made[0], made[0].best_in == made[0].best_in

    def over_draws(name: str) -> Interval:
        values = np.array([getattr(c, name) for c in made])
        return from_draws(np.concatenate([values[:1], values[first]]), sure, reach=1.0)

    alone = low and law.law.name in FORMULAS and set(limits) == {"flops"} and saves_operations(parts)
    used = [loss, *(gaps[key] for key in (False, True) if any(w.post and (w.trained < FULL) == key for w in ways))]
    answer = Plan(
        best=best,
        alternatives=[c for c in made[1:] if c.eligible],
        sixteen=next((c for c in made if c.trained >= FULL and c.post is None), None),
        trained=over_draws("trained"),
        served=over_draws("served"),
        P_star=from_draws(best_bits(loss.constants), loss.sure, loss.reach) if alone else None,
        parts=parts,
        laws=tuple(dict.fromkeys(each.fit.law.name for each in used)),
        left_out=left_out,
        warnings=_warnings(best, used, parts if low else ()),
        sentence="",
    )
    return dataclasses.replace(answer, sentence=_sentence(answer))


def _warnings(best: Alternative, used: Sequence[Drawn], parts: Sequence[str]) -> list[str]:
    lines = list(best.outside)
    if best.gap.value > Options.gap_below:
        lines.append(f"a gap of {best.gap.value:.2g} nats: gaps above {Options.gap_below:g} no longer follow their law")
    if parts and not saves_operations(parts):
        lines.append(f"the loss law knows {', '.join(parts)} only: training is charged with {FULL} bits throughout")
    for law in used:
        fit = law.fit
        name = fit.law.name
        edges = [symbol for symbol, edge in fit.at_bound.items() if edge and symbol != "E"]
        if fit.params.get("E", 1.0) <= 0 or fit.at_bound.get("E"):
            lines.append(f"{name}: E is at zero, so losses beyond the rows fitted come out too low")
        elif "E" in fit.params and fit.interval("E")[0] <= 0:
            lines.append(f"{name}: E is not distinguishable from zero")
        if edges:
            lines.append(f"{name}: at a bound: {', '.join(edges)}")
        if fit.status in ("unidentified", "not_converged"):
            lines.append(f"{name}: the fit is {fit.status.replace('_', ' ')}")
        if fit.status == "published":
            lines.append(f"{name}: published constants without intervals")
        elif fit.draws is None:
            lines.append(f"{name}: fitted without intervals")
        elif not fit.bootstrap.trusted:
            lines.append(f"{name}: its intervals take runs as independent, do not trust their width")
    return lines


def _sentence(made: Plan) -> str:
    best = made.best
    text = (
        f"Train N = {with_interval(best.N)} parameters on D = {with_interval(best.D)} tokens in "
        f"{_training(best, made.parts)} and {_serving(best)}; expected loss {with_interval(best.loss, 4)} nats a token."
    )
    if best.critical:
        text += " Stop there even if the budget allows more: further tokens would harm the quantized model."
    if made.alternatives:
        other = made.alternatives[0]
        text += _against(f"Next best, {_training(other, made.parts)} and {_serving(other)}", other)
    if made.sixteen and made.sixteen not in (best, *made.alternatives[:1]):
        text += _against(
            f"With {FULL} bits throughout{'' if made.sixteen.eligible else ' (not allowed)'}", made.sixteen
        )
    return text


def _against(title: str, other: Alternative) -> str:
    doubt = ", not distinguishable" if other.excess.low <= 0 <= other.excess.high else ""
    excess, side = other.excess, "above"
    if excess.value < 0:
        excess, side = dataclasses.replace(excess, value=-excess.value, low=-excess.high, high=-excess.low), "below"
    return f" {title}: N = {with_interval(other.N)}, {with_interval(excess, 2)} nats {side} that{doubt}."


def _training(one: Alternative, parts: Sequence[str]) -> str:
    if one.trained >= FULL:
        return f"{FULL} bits"
    words = [PART_NAMES[part] for part in parts]
    return f"{one.trained:g} bits ({' and '.join(filter(None, [', '.join(words[:-1]), words[-1]]))})"


def _serving(one: Alternative) -> str:
    return "serve it as trained" if one.post is None else f"quantize it to {one.post} afterwards"


def _title(way) -> str:
    return f"{way.trained:g} bits {'as trained' if way.post is None else f'to {way.post}'}"


def with_interval(made: Interval, digits: int = 3) -> str:
    """A number with its interval, if it has one and is not settled by the budgets alone."""
    settled = made.high - made.low <= SETTLED * abs(made.value)
    ends = "" if settled or made.low != made.low else f" [{made.low:.{digits}g}, {made.high:.{digits}g}]"
    return f"{made.value:.{digits}g}{ends}"
