"""The same claim tested on other rows: without the limit to the gap, at another granularity, of another quantizer."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping

from analysis.report.evidence.tables import Rows, Tables

CHANGES = {
    "4 to 6 bits": {"bits": (4.0, 6.0)},
    "no limit to the gap": {"gap_below": math.inf},
    "blocks of 16": {"granularity": "block16"},
    "GPTQ": {"ptq": "gptq"},
    "AWQ": {"ptq": "awq"},
}
"""One at a time, of what the main rows are."""
USUAL = ("no limit to the gap", "blocks of 16", "GPTQ", "AWQ")


def changed(rows: Rows, *names: str) -> Rows:
    """These rows with the changes of those names."""
    for name in names:
        rows = dataclasses.replace(rows, **CHANGES[name])
    return rows


def again(measure: Callable, rows: Rows, names: Collection[str] = USUAL) -> Mapping[str, Callable[[Tables], object]]:
    """`measure` of `rows` with each of these changes alone, by its name."""
    return {name: lambda tables, name=name: measure(tables, changed(rows, name)) for name in names}
