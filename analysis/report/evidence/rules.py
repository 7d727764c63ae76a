"""Verdict rules are data: which intervals must lie where. The same data make the sentence that states a rule and apply
it, so that the report cannot state one rule and follow another.

A rule gives two verdicts. Direction: a set of conditions on numbers, each of which holds if the whole interval lies
where it should, fails if none of it does, and is open else; a lenient one is content with not being ruled out. All
hold: reproduced. One fails: not reproduced. Else: not decidable at this scale. Size: numbers that were published,
which agree within a factor, differ where the interval lies wholly outside, and are not decided else.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from analysis.report.evidence.numbers import BySize, Number, digits
from analysis.report.verdicts import (
    AGREES,
    DIFFERS,
    NONE_PUBLISHED,
    NOT_DECIDABLE,
    NOT_DECIDED,
    NOT_REPRODUCED,
    REPRODUCED,
    Judgement,
)

YES, NO, OPEN, UNREFUTED = "yes", "no", "open", "not ruled out"
FACTOR = 1.5  # within which a number agrees with the published one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inside:
    """The interval of `number` must lie between `low` and `high`. `what`: the number in words.

    `lenient`: it need not; it is only refuted by an interval that lies wholly outside. `exact`: the number has no
    interval by its nature, such as an R2; if it lies outside, the claim stays open, for noise alone may have put it
    there.
    """

    number: str
    what: str
    low: float = -math.inf
    high: float = math.inf
    lenient: bool = False
    exact: bool = False

    def judge(self, numbers: Mapping[str, Number], flags: Mapping[str, str]) -> str:
        number = numbers.get(self.number)
        if isinstance(number, BySize):
            return self._together([self._judge(each) for each in number.each.values()])
        return self._judge(number)

    def _together(self, met: list[str]) -> str:
        """Of a number at each N: one that fails decides, all must hold."""
        weakest = (NO, OPEN, UNREFUTED, YES)
        return min(met, key=weakest.index)

    def _judge(self, number: Number | None) -> str:
        if number is None or not number.sure:
            return UNREFUTED if self.lenient else OPEN
        if number.low >= self.high or number.high <= self.low:
            return OPEN if self.exact else NO
        if self.low < number.low and number.high < self.high:
            return YES
        return UNREFUTED if self.lenient else OPEN

    @property
    def where(self) -> str:
        if math.isinf(self.high):
            return f"above {digits(self.low)}"
        if math.isinf(self.low):
            return f"below {digits(self.high)}"
        return f"between {digits(self.low)} and {digits(self.high)}"

    @property
    def elsewhere(self) -> str:
        if math.isinf(self.high):
            return f"below {digits(self.low)}"
        return f"above {digits(self.high)}" if math.isinf(self.low) else "outside"

    @property
    def wanted(self) -> str:
        if self.lenient:
            return f"{self.what} is not surely {self.elsewhere}"
        return f"{self.what} is {self.where}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """A test elsewhere must have said `yes`; it fails where that said `no`, whatever else leaves it open."""

    number: str
    what: str
    yes: str
    no: str
    lenient: bool = False

    def judge(self, numbers: Mapping[str, Number], flags: Mapping[str, str]) -> str:
        flag = flags.get(self.number)
        if flag == self.no:
            return NO
        if flag == self.yes:
            return YES
        return UNREFUTED if self.lenient else OPEN

    @property
    def where(self) -> str:
        return self.yes

    @property
    def wanted(self) -> str:
        return f"{self.what} is not {self.no}" if self.lenient else f"{self.what} is {self.yes}"


Condition = Inside | Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """`number` beside the one that was published (`Number.paper`). `what`: the number in words."""

    number: str
    what: str

    def judge(self, numbers: Mapping[str, Number]) -> str:
        number = numbers.get(self.number)
        if number is None or number.paper is None or not number.sure:
            return OPEN
        bounds = number.paper / FACTOR, number.paper * FACTOR
        return Inside(number=self.number, what=self.what, low=min(bounds), high=max(bounds)).judge(numbers, {})

    def reason(self, numbers: Mapping[str, Number]) -> str:
        number = numbers.get(self.number, Number.none(""))
        if not number.known:
            return f"{self.what}: not estimated" + (f" ({number.note})" if number.note else "")
        against = "no published number" if number.paper is None else digits(number.paper)
        return f"{self.what}: {number.text} against {against}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """How the numbers of a rule are made: by which `estimator`, of which rows (`filter`), with which `weights`."""

    estimator: str
    filter: str
    weights: str

    @property
    def text(self) -> str:
        return f"Estimator: {self.estimator}. Filter: {self.filter}. Weights: {self.weights}."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """All of `conditions` together. `meaning`: what the verdict `not reproduced` says here, where that needs words.
    `published`: the numbers that a size is judged by, none where none was published."""

    conditions: tuple[Condition, ...]
    measured: Measured
    meaning: str = ""
    published: tuple[Published, ...] = ()

    @classmethod
    def of(
        cls, *conditions: Condition, measured: Measured, meaning: str = "", published: tuple[Published, ...] = ()
    ) -> "Rule":
        """A rule of these conditions."""
        return cls(conditions=conditions, measured=measured, meaning=meaning, published=published)

    @property
    def text(self) -> str:
        """The rule as it stands in the report, before the number."""
        return f"{self.measured.text} Direction: {self.direction_text} Size: {self.size_text}"

    @property
    def size_text(self) -> str:
        if not self.published:
            return f"{NONE_PUBLISHED}."
        several = len(self.published) > 1
        what = listed([p.what for p in self.published])
        verb = "intervals of {} lie" if several else "interval of {} lies"
        return (
            f"agrees if the {verb.format(what)} within a factor of {FACTOR:g} of the published number"
            f"{'s' if several else ''}, differs if {'one lies' if several else 'it lies'} wholly outside, "
            f"else not decided."
        )

    @property
    def direction_text(self) -> str:
        wanted = [_wanted(list(alike)) for _, alike in itertools.groupby(self.conditions, key=_kind)]
        one = len(self.conditions) == 1 and isinstance(self.conditions[0], Inside)
        contrary = "it lies wholly outside" if one else "one of these surely fails, by an interval wholly outside"
        meaning = f" ({self.meaning})" if self.meaning else ""
        rule = f"reproduced if {listed(wanted, ';')}. Not reproduced if {contrary}{meaning}."
        if any(isinstance(c, Inside) and c.exact for c in self.conditions):
            rule += " A low R2 only leaves it open, for noise lowers it, too."
        return f"{rule} Else not decidable at this scale."

    def judge(self, numbers: Mapping[str, Number], flags: Mapping[str, str]) -> tuple[str, list[str]]:
        """The verdict, and whether each condition holds."""
        met = [condition.judge(numbers, flags) for condition in self.conditions]
        if NO in met:
            return NOT_REPRODUCED, met
        return (REPRODUCED if all(f in (YES, UNREFUTED) for f in met) else NOT_DECIDABLE), met

    def judge_size(self, numbers: Mapping[str, Number]) -> Judgement:
        """The verdict on the size, with the published number that decides it: the first that differs, or is open."""
        if not self.published:
            return Judgement(verdict=NONE_PUBLISHED, reason="no number to compare with")
        met = [published.judge(numbers) for published in self.published]
        worst = NO if NO in met else OPEN if OPEN in met else YES
        verdict = {NO: DIFFERS, OPEN: NOT_DECIDED, YES: AGREES}[worst]
        return Judgement(verdict=verdict, reason=self.published[met.index(worst)].reason(numbers))


def decisive(met: Sequence[str]) -> int:
    """The place of the condition that decides: the first that fails, else the first that is open, else the first."""
    return next((met.index(state) for state in (NO, OPEN) if state in met), 0)


def _kind(condition: Condition) -> object:
    """What conditions have in common that stand in one sentence: intervals that must lie in one place."""
    plain = isinstance(condition, Inside) and not (condition.lenient or condition.exact)
    return condition.where if plain else id(condition)


def _wanted(alike: list[Condition]) -> str:
    first = alike[0]
    if not isinstance(first, Inside) or first.lenient or first.exact:
        return first.wanted
    several = len(alike) > 1
    verb = "the intervals of {} lie {}" if several else "the interval of {} lies {}"
    return verb.format(listed([c.what for c in alike]), first.where)


def listed(words: list[str], mark: str = ",") -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{f'{mark} '.join(words[:-1])} and {words[-1]}"


def published(number: str, what: str) -> Published:
    """A size is judged by this number."""
    return Published(number=number, what=what)


def above(number: str, what: str, bound: float = 0.0, **more) -> Inside:
    """The interval lies above `bound`."""
    return Inside(number=number, what=what, low=bound, **more)


def below(number: str, what: str, bound: float = 0.0, **more) -> Inside:
    """The interval lies below `bound`."""
    return Inside(number=number, what=what, high=bound, **more)


def within(number: str, what: str, low: float, high: float, **more) -> Inside:
    """The interval lies between two bounds."""
    return Inside(number=number, what=what, low=low, high=high, **more)


def at_least(number: str, what: str, bound: float) -> Inside:
    """A number without an interval is larger than `bound`."""
    return Inside(number=number, what=what, low=bound, exact=True)
