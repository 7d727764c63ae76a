"""A claim: what was said, how it is tested, the rule of its verdict, and the function that measures it.

`judge` asks the tables and applies the rule. A claim whose tables are missing, or whose rows do not determine its
numbers, is an outcome too: nothing about a table can make the report fail.
"""

import dataclasses
from collections.abc import Callable, Mapping

from analysis.errors import InputError
from analysis.figures.style import Drawn
from analysis.report.document.blocks import Grid
from analysis.report.evidence.numbers import Number
from analysis.report.evidence.rules import Rule
from analysis.report.evidence.tables import Tables
from analysis.report.verdicts import NOT_DECIDABLE, NOT_RUN

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

    `follows`: it is another claim in other words, and takes that one's numbers and verdict.
    """

    key: str
    title: str
    source: str
    statement: str
    how: str
    rule: Rule | None = None
    needs: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()
    measure: Callable[[Tables], Finding] | None = None
    follows: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([study for entry in self.needs for study in entry] + [*self.beside]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a claim. `met`: yes, no or open for each condition of its rule. `why`: for a claim that was not
    run or could not be measured."""

    claim: Claim
    verdict: str
    finding: Finding
    met: tuple[str, ...] = ()
    why: str = ""
    drawn: Drawn | None = None

    @property
    def line(self) -> str:
        """The decisive number of the verdict, in a line: that of the first condition that is not met, or of the
        first one."""
        if self.why:
            return self.why
        worst = next((i for i, met in enumerate(self.met) if met == "no"), None)
        if worst is None:
            worst = next((i for i, met in enumerate(self.met) if met == "open"), 0)
        condition = self.claim.rule.conditions[worst]
        number = self.finding.numbers.get(condition.number)
        value = number.text if number is not None else self.finding.flags.get(condition.number, "not estimated")
        line = f"{condition.what}: {value}"
        return f"{line} ({number.note})" if number is not None and not number.known and number.note else line


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
        return Outcome(claim=claim, verdict=NOT_RUN, finding=Finding(), why=why)
    try:
        finding = claim.measure(tables)
    except InputError as fault:
        return Outcome(
            claim=claim, verdict=NOT_DECIDABLE, finding=Finding(), why=f"the table does not determine it: {fault.brief}"
        )
    verdict, met = claim.rule.judge(finding.numbers, finding.flags)
    drawn, notes = None, finding.notes
    if finding.figure is not None:
        try:
            drawn = finding.figure()
        except InputError as fault:
            notes = (*notes, f"No figure: {fault.brief}.")
    finding = dataclasses.replace(finding, notes=notes)
    return Outcome(claim=claim, verdict=verdict, finding=finding, met=tuple(met), drawn=drawn)
