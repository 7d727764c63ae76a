"""What it would cost to decide a claim that is open: how many more independent units (pairs, chains, seeds) each of its
numbers needs for its interval to lie inside or outside of what the rule asks, if the estimate stays where it is.

An interval of k units shrinks as Student's t over sqrt(k). A number that rests on a fit has no units: which runs narrow
it, `analysis next --target` says.
"""

import dataclasses
import math
from collections.abc import Sequence

from analysis.errors import InputError
from analysis.report.claims.claim import Claim, judge
from analysis.report.evidence.numbers import Number, reach
from analysis.report.evidence.rules import NO, OPEN, YES, Inside
from analysis.report.evidence.studies import hours
from analysis.report.evidence.tables import Tables

MOST = 10_000  # units; an estimate that needs more is at the bound of its condition
FLOPS_A_TOKEN = 6.0  # and a parameter: forward and backward pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
    """Of one condition of a rule. `needed`: units in all that decide it if the estimate stays, None where none do or it
    has no units; `verdict`: yes or no, as it would be then. `affordable`: more units that the budget buys, and the
    interval with them."""

    condition: Inside
    number: Number
    needed: int | None = None
    verdict: str = OPEN
    affordable: int = 0
    then: Number | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """Of a claim: one for each condition that is open. `unit`: what one more unit costs, in hours or FLOPs: the runs of
    its studies over the units of its open numbers."""

    claim: Claim
    verdict: str
    prices: Sequence[Price]
    studies: tuple[str, ...]
    unit: float
    budget: float


def prices(claim: Claim, tables: Tables, *, hours_: float | None = None, flops: float | None = None) -> Prices:
    """What would decide `claim`, and what a budget of hours of the tables' machines, or of FLOPs (6 N D), does.

    Raises:
        InputError: its tables are missing or do not determine it, or the budget is no number above zero.
    """
    budget = hours_ if hours_ is not None else flops
    if budget is None or not 0 < budget < math.inf:
        raise InputError(f"budget {budget}: expected hours or FLOPs, a number above zero")
    outcome = judge(dataclasses.replace(claim, again={}), tables, {})
    if outcome.why:
        raise InputError(f"claim {claim.key}: {outcome.why}")
    numbers, conditions = outcome.finding.numbers, claim.rule.conditions
    open_ = [
        (condition, numbers[condition.number])
        for condition, met in zip(conditions, outcome.met, strict=True)
        if met == OPEN and isinstance(condition, Inside) and condition.number in numbers
    ]
    studies = claim.repeated or tuple(study for entry in claim.needs for study in entry if tables.has(study))
    units = max((number.units for _, number in open_), default=0)
    runs = tables.pooled(studies).drop_duplicates("run_id")
    spent = hours(runs) if hours_ is not None else float((FLOPS_A_TOKEN * runs["N"] * runs["D"]).sum())
    unit = spent / units if units else math.nan
    return Prices(
        claim=claim,
        verdict=outcome.direction.verdict,
        prices=[_price(condition, number, int(budget / unit) if units else 0) for condition, number in open_],
        studies=studies,
        unit=unit,
        budget=budget,
    )


def _price(condition: Inside, number: Number, affordable: int) -> Price:
    if not (number.sure and number.units):
        return Price(condition=condition, number=number)
    more = {"affordable": affordable, "then": with_units(number, number.units + affordable)}
    needed = needed_units(condition, number)
    if needed is None:
        return Price(condition=condition, number=number, **more)
    verdict = _held(condition, with_units(number, needed))
    return Price(condition=condition, number=number, needed=needed, verdict=verdict, **more)


def with_units(number: Number, units: int) -> Number:
    """The number with the interval that so many units would give it."""
    lost = number.units - number.freedom
    narrower = math.sqrt(number.units / units) * reach(units - lost) / reach(number.freedom)
    low, high = (number.value + narrower * (end - number.value) for end in (number.low, number.high))
    return dataclasses.replace(number, low=low, high=high, units=units, freedom=units - lost)


def needed_units(condition: Inside, number: Number) -> int | None:
    """The fewest units, of at most `MOST`, with which the condition surely holds or fails."""
    low, high = number.units, MOST
    if _held(condition, with_units(number, high)) == OPEN:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _held(condition, with_units(number, middle)) == OPEN else (low, middle)
    return low


def _held(condition: Inside, number: Number) -> str:
    met = condition.judge({condition.number: number}, {})
    return met if met in (YES, NO) else OPEN


def lines(made: Prices, unit: str) -> list[str]:
    """What it would cost, in plain lines; `unit`: hours or FLOPs."""
    text = [f"{made.claim.title}: {made.verdict}"]
    if not made.prices:
        return [*text, "nothing is open that more runs would decide"]
    text.append(f"runs of {', '.join(made.studies)}; the estimates may move, and then so does what is needed")
    for price in made.prices:
        wanted, units = price.condition.where, price.number.units
        of = f"; from {units} {'unit' if units == 1 else 'units'} ({price.number.note})" if units else ""
        text.append(f"{price.condition.what}: {price.number.text}, {wanted} wanted{of}")
        if price.then is None:
            text.append("  no units that more runs would add to; for what a fit says, ask with --target")
            continue
        if price.needed is None:
            text.append(f"  so near the edge that {MOST:,} would not decide it")
        else:
            extra, holds = price.needed - units, "holds" if price.verdict == YES else "fails"
            text.append(f"  if it stays there, it {holds} with {extra} more: {_amount(extra * made.unit, unit)}")
        bought = f"{_amount(made.budget, unit)}: {price.affordable} more"
        text.append(f"  {bought}, {price.then.text}, {_now(price)}")
    return text


def _now(price: Price) -> str:
    met = _held(price.condition, price.then)
    return {YES: "which would hold", NO: "which would fail"}.get(met, "still open")


def _amount(value: float, unit: str) -> str:
    return f"{value:.2g} {unit}"
