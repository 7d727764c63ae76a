"""Where more tokens hurt, without a law: the D at which the loss after quantization is lowest, and how much it rises
from there."""

import dataclasses
import math

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.style import magnitude
from analysis.report.evidence.numbers import Number, Scatter
from analysis.report.evidence.tables import CLEAR_WIDTHS, Rows, Tables, at_widths

AGAIN = Rows(studies=("weight_decay",))
"""New seeds of the size with the most tokens a parameter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lowest:
    """The loss after quantization of one N at one width as D grows. `least`: the D at which it is lowest among those
    tried (`tried`, ascending); `rise`: from there to the last D in nats, or over the last step if the last is
    lowest."""

    N: float
    bits: float
    tried: tuple[float, ...]
    least: float
    rise: float
    sd: float

    @property
    def inside(self) -> bool:
        return self.least < self.tried[-1]


def lowest(tables: Tables, rows: Rows) -> list[Lowest]:
    """Without any law: for each N and each of CLEAR_WIDTHS the D of the lowest loss after quantization, over means of
    seeds.

    Raises:
        InputError: the scatter between seeds is not known.
    """
    scatter = tables.scatter()
    turning_points = []
    for (size, bits), group in at_widths(tables.rows(rows), CLEAR_WIDTHS).groupby(["N", "P_post"]):
        cells = _cells(scatter, group)
        if len(cells) < 3:
            continue
        place = int(np.argmin(cells["loss"]))
        start, last = (place if place < len(cells) - 1 else len(cells) - 2), len(cells) - 1
        turning_points.append(
            Lowest(
                N=size,
                bits=bits,
                tried=tuple(cells.index),
                least=float(cells.index[place]),
                rise=float(cells["loss"].iloc[last] - cells["loss"].iloc[start]),
                sd=math.hypot(cells["sd"].iloc[last], cells["sd"].iloc[start]),
            )
        )
    if not turning_points:
        raise InputError("no N was quantized to 3 or 4 bits at three token counts")
    return turning_points


def _cells(scatter: Scatter, rows: pd.DataFrame) -> pd.DataFrame:
    """For each D the mean of the loss after quantization and its standard deviation, from the scatter of seeds."""
    cells = rows.groupby("tokens").agg(loss=("loss", "mean"), gap=("gap", "mean"), runs=("loss", "size"))
    return cells.assign(sd=scatter.sd(cells["loss"] - cells["gap"], cells["gap"]) / np.sqrt(cells["runs"]))


def again(tables: Tables, low: Lowest, decay: float) -> Number:
    """The rise from `low.least` to the last D on seeds that did not choose it, at some weight decay.

    Raises:
        InputError: there are no such runs, or no rise, since the last D is the lowest.
    """
    if not low.inside:
        raise InputError(f"the loss at {low.bits:g} bits is lowest at the last D")
    tables.need(*AGAIN.studies)
    rows = shared.at(at_widths(tables.rows(AGAIN), [low.bits]), N=low.N, weight_decay=decay)
    cells = _cells(tables.scatter(), rows)
    if not {low.least, low.tried[-1]} <= set(cells.index):
        raise InputError(f"no other seeds at D = {magnitude(low.least)} and {magnitude(low.tried[-1])}")
    first, last = cells.loc[low.least], cells.loc[low.tried[-1]]
    return tables.scatter().around(last["loss"] - first["loss"], math.hypot(first["sd"], last["sd"]))


def asked_of(candidates: list[Lowest]) -> Lowest:
    """At 3 bits, the N with the most tokens a parameter: where more of them should hurt first. Chosen before any loss
    is looked at."""
    three = [low for low in candidates if low.bits == CLEAR_WIDTHS[0]] or candidates
    return max(three, key=lambda low: low.tried[-1] / low.N)
