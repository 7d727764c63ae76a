"""All claims at a glance: what each says, its verdicts, our number and the published one, and a small figure."""

import math
from collections.abc import Iterator, Sequence

from analysis.report.claims.claim import Claim, Outcome
from analysis.report.document.blocks import Answer, Answers, Marks, Span
from analysis.report.evidence.numbers import Number, digits
from analysis.report.evidence.rules import NO, YES, Inside, decisive

MET = {YES: True, NO: False}
ARE = {YES: "it is", NO: "it is not"}


def answers(themes: Sequence[tuple[str, str, tuple[Claim, ...]]], outcomes: dict[str, Outcome]) -> Answers:
    """A group for each theme, its claims in order; `outcomes` by key."""
    return Answers(groups=tuple((title, tuple(answer(outcomes[c.key]) for c in claims)) for _, title, claims in themes))


def answer(outcome: Outcome) -> Answer:
    """The row of a claim."""
    rows = {what: (ours, paper) for what, ours, paper in (*_direction(outcome), *_size(outcome))}
    figure, seen = _figure(outcome)
    return Answer(
        title=outcome.claim.title,
        anchor=outcome.claim.key,
        verdicts={"direction": outcome.direction.verdict, "size": outcome.size.verdict},
        numbers=tuple((what, *both) for what, both in rows.items()),
        figure=figure,
        seen=seen,
    )


def paper(number: Number) -> str:
    """The published number beside ours, empty where there is none."""
    return "" if number.paper is None else digits(number.paper)


def _direction(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    if outcome.why:
        yield "", outcome.why, ""
        return
    condition = outcome.claim.rule.conditions[decisive(outcome.met)]
    number = outcome.finding.numbers.get(condition.number)
    if number is None:
        yield condition.what, outcome.finding.flags.get(condition.number, "not estimated"), ""
    else:
        yield condition.what, number.text, paper(number)


def _size(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    for published in outcome.claim.rule.published:
        number = outcome.finding.numbers.get(published.number)
        if number is not None and number.known:
            yield published.what, number.text, paper(number)


def _figure(outcome: Outcome) -> tuple[Span | Marks | None, str]:
    """The decisive number beside where it was wanted; where a test decides, which conditions hold."""
    if outcome.why:
        return None, ""
    condition = outcome.claim.rule.conditions[decisive(outcome.met)]
    number = outcome.finding.numbers.get(condition.number)
    if not isinstance(condition, Inside) or number is None or math.isnan(number.value):
        met = tuple(MET.get(state) for state in outcome.met)
        counts = f"{met.count(True)} hold, {met.count(False)} fail, {met.count(None)} are open"
        return Marks(met=met), f"Conditions of the rule: {counts}."
    span = Span(
        value=number.value,
        low=number.low,
        high=number.high,
        wanted=(condition.low, condition.high),
        paper=number.paper,
    )
    state = outcome.met[decisive(outcome.met)]
    published = f" Published: {paper(number)}." if paper(number) else ""
    return span, f"{condition.what}: {number.text}. Wanted {condition.where}: {ARE.get(state, state)}.{published}"
