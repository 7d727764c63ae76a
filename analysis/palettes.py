"""Colours and markers for the values of a column: the same in figures, in the report and in a notebook's plots.

Each value has a colour and a marker, so that colour is not the only cue: print in grey and colour blindness leave the
other one.
"""

import math
from collections.abc import Sequence

MARKERS = "osD<>pd"
"""Filled shapes that stay apart at three points. Triangles up and down are left to what lies beyond an axis."""
ORDERED = ("#560761", "#226204", "#a64d6c", "#786ee8", "#94984e", "#37bba7", "#c2b5fe", "#e9d244")
"""Colours in order, dark to light, all far from black. Found by a search for the largest least difference between any
two (CIEDE2000, the least of normal vision and of its three simulated lacks); the first step in lightness is the widest,
for 2 and 3 bits are the first two."""
UNQUANTIZED = ("black", "X")
"""Of 16 bits, beside values in order: neither is among theirs."""
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours without an order (Okabe and Ito), distinguishable to colour-blind readers."""


def shades(count: int) -> list[str]:
    """`count` colours in order, dark to light; from the first again if there are more than ORDERED has."""
    most = len(ORDERED)
    if count > most:
        return [ORDERED[i % most] for i in range(count)]
    return [ORDERED[round(i * (most - 1) / max(count - 1, 1))] for i in range(count)]


def looks(values: Sequence) -> dict:
    """A colour and a marker for each value, in order."""
    return _with_markers(values, shades(min(len(values), len(ORDERED))))


def categories(values: Sequence) -> dict:
    """A colour and a marker for each of values without an order."""
    return _with_markers(values, CATEGORIES)


def _with_markers(values: Sequence, colours: Sequence[str]) -> dict:
    """Markers move on by one each time colours and markers begin anew together, so that no colour meets its marker
    again."""
    count, again = len(MARKERS), math.lcm(len(MARKERS), max(len(colours), 1))
    return {v: (colours[i % len(colours)], MARKERS[(i + i // again) % count]) for i, v in enumerate(values)}
