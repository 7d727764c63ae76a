"""What became of a case, and the table of all of them."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from bench.faults.commands import Ended

TRACEBACK = "Traceback (most recent call last)"
GOOD = ("same", "one line")
OUTCOMES = (*GOOD, "silent", "lost", "unclear", "traceback")
"""
same        what the command leaves is the same to the bit as without the fault
one line    a nonzero exit status, and a line that names what is damaged or full; nothing was changed for the worse
silent      other numbers, and exit status 0
lost        other numbers, or none, even when the cause is gone and the command was run again
unclear     a nonzero exit status, and no line that names the cause
traceback   a traceback, a signal, or no end
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One fault that was tried: of which kind, on what, and what came of it."""

    section: str
    kind: str
    what: str
    outcome: str
    detail: str = ""


def crashed(ended: Iterable[Ended]) -> str:
    """How one of the commands crashed, "" if none did. A traceback that a run's error.txt is said to hold is one."""
    for each in ended:
        if TRACEBACK in each.err or "(traceback in " in each.err:
            return f"{each.command}: traceback: {last_line(each.err)}"
        if each.status < 0:
            return f"{each.command}: ended by signal {-each.status}"
    return ""


def judged(ended: Ended, changed: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """The outcome of one command that met a fault, and details.

    Args:
        changed: what is other than without the fault.
        names: of which a line has to hold one.
    """
    if fault := crashed([ended]):
        return "traceback", fault
    if ended.status:
        if any(name in line for name in names for line in ended.err.splitlines()):
            return "one line", ""
        return "unclear", f"{ended.command}: {last_line(ended.err)}"
    return ("silent", f"{ended.command}: {', '.join(changed[:4])}") if changed else ("same", "")


def last_line(text: str) -> str:
    return (text.strip() or "no message").splitlines()[-1]


def table(cases: Sequence[Case]) -> list[str]:
    """Counts by section and kind, and a line for each case that is not good."""
    counts: dict[tuple[str, str], Counter] = {}
    for case in cases:
        counts.setdefault((case.section, case.kind), Counter())[case.outcome] += 1
    width = max((len(f"{section}: {kind}") for section, kind in counts), default=4)
    lines = [f"{'fault':<{width}} {'cases':>6}" + "".join(f" {name:>10}" for name in OUTCOMES)]
    total: Counter = Counter()
    for (section, kind), count in counts.items():
        lines.append(_row(f"{section}: {kind}", count, width))
        total += count
    lines.append(_row("all", total, width))
    return lines + [
        f"{case.outcome}: {case.section}: {case.kind}: {case.what}: {case.detail}"
        for case in cases
        if case.outcome not in GOOD
    ]


def _row(name: str, count: Counter, width: int) -> str:
    return f"{name:<{width}} {sum(count.values()):>6}" + "".join(f" {count[o] or '':>10}" for o in OUTCOMES)
