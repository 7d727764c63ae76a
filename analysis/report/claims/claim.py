"""A claim: what was said, how it is tested, the rule of its verdicts, and the function that measures it.

It gets two: on the direction (a sign or a form) and on the size (beside the published number). `judge` asks the tables
and applies the rule. A claim whose tables are missing, or whose rows do not determine its numbers, is an outcome too:
nothing about a table can make the report fail.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

from analysis.errors import InputError
from analysis.figures.style import Drawn
from analysis.report.document.blocks import Grid
from analysis.report.evidence.numbers import Number
from analysis.report.evidence.rules import Rule, decisive, listed
from analysis.report.evidence.tables import Tables
from analysis.report.verdicts import NOT_DECIDABLE, NOT_RUN, Judgement

PAPER = "Kumar et al."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a claim's function measured.

    `numbers` by the names of the rule's conditions, `flags` likewise for verdicts of tests; `shown`: numbers that bear
    on the claim but do not decide it, by what they are; `reading`: the numbers in words, where the verdict leaves
    something to say. `figure` draws, or raises InputError.
    """

    numbers: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shown: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    reading: str = ""
    notes: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    figure: Callable[[], Drawn] | None = None
    caption: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim. `needs`: tables without which it is not run, of each entry at least one; `beside`: others whose rows
    count where they are there.

    `repeated`: the studies of which more runs make more of the units that its numbers rest on; by default all that it
    needs. `again`: the same measured of other rows (quantizer, granularity, filter), by what they are; a verdict that
    these change says so. `follows`: it is another claim in other words, and takes that one's numbers and verdicts.
    """

    key: str
    title: str
    source: str
    statement: str
    how: str
    rule: Rule | None = None
    needs: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    measure: Callable[[Tables], Finding] | None = None
    again: Mapping[str, Callable[[Tables], Finding]] = dataclasses.field(default_factory=dict)
    follows: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([study for entry in self.needs for study in entry] + [*self.beside]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """Both verdicts of a rule on what was measured. `met`: yes, no or open for each condition of its direction."""

    direction: Judgement
    size: Judgement
    met: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome(Judged):
    """What came out of a claim. `again`: the same on other rows. `why`: for a claim that was not run or could not be
    measured."""

    claim: Claim
    finding: Finding
    again: Mapping[str, Judged] = dataclasses.field(default_factory=dict)
    why: str = ""
    drawn: Drawn | None = None

    @property
    def flips(self) -> str:
        """Which verdicts other rows change, in a sentence; empty if none does."""
        return flips(self, self.again)


def flips(main: Judged, again: Mapping[str, Judged]) -> str:
    """Which verdicts `again` has otherwise than `main`, in a sentence; empty if none."""
    parts = []
    for aspect in ("direction", "size"):
        usual = getattr(main, aspect).verdict
        others: dict[str, list[str]] = {}
        for name, judged in again.items():
            if (verdict := getattr(judged, aspect).verdict) != usual:
                others.setdefault(verdict, []).append(name)
        parts += [f"{aspect} {verdict} with {listed(names)}" for verdict, names in others.items()]
    return f"Other rows change it: {'; '.join(parts)}." if parts else ""


def missing(claim: Claim, tables: Tables) -> str:
    """Why a claim cannot be asked for lack of tables; empty if it can."""
    lacking = [entry for entry in claim.needs if not any(tables.has(study) for study in entry)]
    if not lacking:
        return ""
    faults = [tables.faults[study] for entry in lacking for study in entry if study in tables.faults]
    if faults:
        return "; ".join(faults)
    return f"{NOT_RUN}: {' and '.join(f'`make sweep S={entry[0]}`' for entry in lacking)}"


def judge(claim: Claim, tables: Tables, earlier: Mapping[str, Outcome]) -> Outcome:
    """Measure a claim and decide; `earlier` holds the outcomes of the claims before it."""
    if claim.follows:
        model = earlier[claim.follows]
        return dataclasses.replace(model, claim=dataclasses.replace(claim, rule=model.claim.rule), drawn=None)
    why = missing(claim, tables)
    if why:
        return Outcome(claim=claim, finding=Finding(), why=why, **_unjudged(claim.rule, NOT_RUN, why))
    try:
        finding = claim.measure(tables)
    except InputError as fault:
        why = f"the table does not determine it: {fault.brief}"
        return Outcome(claim=claim, finding=Finding(), why=why, **_unjudged(claim.rule, NOT_DECIDABLE, why))
    judged = verdicts(claim.rule, finding)
    drawn, notes = None, finding.notes
    if finding.figure is not None:
        try:
            drawn = finding.figure()
        except InputError as fault:
            notes = (*notes, f"No figure: {fault.brief}.")
    finding = dataclasses.replace(finding, notes=notes)
    again = {name: verdicts(claim.rule, made) for name, made in _others(claim, tables)}
    return Outcome(claim=claim, finding=finding, again=again, drawn=drawn, **_fields(judged))


def _others(claim: Claim, tables: Tables) -> Iterator[tuple[str, Finding]]:
    """What the claim's other rows give, where the tables have them."""
    for name, measure in claim.again.items():
        with contextlib.suppress(InputError):
            yield name, measure(tables)


def verdicts(rule: Rule, finding: Finding) -> Judged:
    """What the rule says of a finding."""
    direction, met = rule.judge(finding.numbers, finding.flags)
    reason = _decisive(rule, finding, met)
    return Judged(
        direction=Judgement(verdict=direction, reason=reason), size=rule.judge_size(finding.numbers), met=tuple(met)
    )


def _decisive(rule: Rule, finding: Finding, met: list[str]) -> str:
    """The decisive number of a direction, in a line: that of the first condition that is not met, or of the first."""
    condition = rule.conditions[decisive(met)]
    number = finding.numbers.get(condition.number)
    value = number.text if number is not None else finding.flags.get(condition.number, "not estimated")
    line = f"{condition.what}: {value}"
    return f"{line} ({number.note})" if number is not None and not number.known and number.note else line


def _unjudged(rule: Rule, verdict: str, why: str) -> dict[str, Judgement]:
    size = rule.judge_size({}).verdict if verdict != NOT_RUN else verdict
    return {"direction": Judgement(verdict=verdict, reason=why), "size": Judgement(verdict=size, reason=why)}


def _fields(judged: Judged) -> dict:
    return {f.name: getattr(judged, f.name) for f in dataclasses.fields(Judged)}
