"""Cells that could be trained, and what a run of each costs: FLOPs (6 N D), or hours of the machine of the table."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import table
from analysis.errors import InputError
from analysis.planning.next_runs.criterion import Model
from analysis.planning.next_runs.rows import Rows

LADDER = {
    "24k": 23_552,
    "83k": 82_944,
    "201k": 200_704,
    "378k": 377_600,
    "664k": 663_552,
    "1.6M": 1_556_480,
    "5.3M": 5_308_416,
    "12.6M": 12_648_448,
}
"""Models of one rule of shape (configs/model), by N."""
OTHERS = {"100k": 100_352, "800k": 778_240, "3M": 3_162_112}
"""Models of other shapes, taken only where they are named."""
LEAST_RATIO, LEAST_TOKENS, OCTAVES, MOST_RUNS = 10.0, 4e6, 1, 8
NEAR = 0.02  # of D: whole batches
STEP = np.log(4)  # a ladder size further from the table's sizes than this is no default candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Of candidates: least D / N and D, by how many octaves the axis of D is extended, and the most runs that are added
    to a cell."""

    ratio: float = LEAST_RATIO
    tokens: float = LEAST_TOKENS
    octaves: int = OCTAVES
    most: int = MOST_RUNS

    def __post_init__(self):
        if not 1 <= self.most <= 1000:
            raise InputError(f"most={self.most}: expected 1 to 1000 runs a cell")
        if not 0 <= self.octaves <= 10:
            raise InputError(f"octaves={self.octaves}: expected 0 to 10")
        for name, value in (("ratio", self.ratio), ("tokens", self.tokens)):
            if not 0 <= value < np.inf:
                raise InputError(f"{name}={value:g}: expected a number of at least zero")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cells:
    """`log_N`, `log_D`, `runs` that the table has (m,); `open_`: which cells may have more; `cost` of a run each.

    `trunk`: where runs of one size and seed share a trunk, the share of a run's cost that is its own.
    """

    log_N: np.ndarray
    log_D: np.ndarray
    runs: np.ndarray
    open_: np.ndarray
    cost: np.ndarray
    flops: np.ndarray
    names: Mapping[float, str]
    trunk: float | None = None
    most: int = MOST_RUNS

    def price(self, added: np.ndarray, cost: np.ndarray | None = None) -> np.ndarray:
        """Cost (k,) of `added` (k, m) runs. A trunk is counted once: to its last D, and every run with what is its
        own."""
        cost = self.cost if cost is None else cost
        added = np.atleast_2d(added)
        if self.trunk is None:
            return added @ cost
        total = self.trunk * (added @ cost)
        for size in np.unique(self.log_N):
            own = np.abs(self.log_N - size) < 1e-9
            for seed in range(1, int(added[:, own].max(initial=0)) + 1):
                total += (1 - self.trunk) * np.where(added[:, own] >= seed, cost[own], 0.0).max(1)
        return total

    def name(self, cell: int) -> str:
        return self.names[round(float(self.log_N[cell]), 9)]


def sizes_of(text: str | None, rows: Rows) -> dict[str, int]:
    """Sizes that --sizes names (`800k,mine=1200000`), or those of the table and the ladder's next one.

    Raises:
        InputError: an entry is no known name and has no N.
    """
    known = LADDER | OTHERS
    if text is None:
        own = [float(N) for N in np.exp(rows.sizes)]
        names = {round(N): name for name, N in known.items()}
        made = {names.get(round(N), _short(N)): round(N) for N in own}
        for name, N in LADDER.items():
            if np.log(N) <= rows.sizes[-1] + STEP and np.log(N) >= rows.sizes[0] - STEP:
                made[name] = N
        return made
    made = {}
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        try:
            made[name] = int(float(value)) if equals else known[name]
            if made[name] <= 0:
                raise ValueError
        except (KeyError, ValueError, OverflowError):
            raise InputError(f"sizes: {entry.strip()!r}; expected NAME=N, or one of {', '.join(known)}") from None
    return made


def _short(N: float) -> str:
    return f"{N / 1e6:.3g}M" if N >= 1e6 else f"{N / 1e3:.3g}k"


def cells_of(
    rows: Rows,
    frame: pd.DataFrame,
    *,
    sizes: Mapping[str, int],
    limits: Limits,
    hours: bool = False,
    trunks: float | None = None,
) -> Cells:
    """The cells of the table's `rows`, and those that the limits allow at `sizes`.

    Raises:
        InputError: hours without a column `seconds`, or nothing may be trained.
    """
    axis = np.unique(rows.log_D)
    grown = np.log(2) * np.arange(1, limits.octaves + 1)
    axis = np.concatenate([axis[0] - grown[::-1], axis, axis[-1] + grown])
    old = {(n, d): count for n, d, count in rows.cells()}
    places = dict.fromkeys(old, False)
    own = rows.sizes
    for N in sizes.values():
        n = np.log(N)
        near = own[np.abs(own - n) < 1e-6]
        n = float(near[0]) if len(near) else float(n)
        for d in axis:
            allowed = np.exp(d) >= limits.tokens * (1 - NEAR) and np.exp(d - n) >= limits.ratio * (1 - NEAR)
            if allowed:
                places[n, float(d)] = True
            elif (n, float(d)) in old:
                places[n, float(d)] = False
    if not any(places.values()):
        raise InputError(f"sizes: none of {', '.join(sizes)} has a D of the table with D/N >= {limits.ratio:g}")
    order = sorted(places)
    log_N, log_D = (np.array([place[k] for place in order]) for k in (0, 1))
    flops = 6 * np.exp(log_N + log_D)
    names = {round(float(np.log(N)), 9): name for name, N in sizes.items()}
    names |= {round(float(n), 9): names.get(round(float(n), 9), _short(np.exp(n))) for n in log_N}
    return Cells(
        log_N=log_N,
        log_D=log_D,
        runs=np.array([old.get(place, 0) for place in order]),
        open_=np.array([places[place] for place in order]),
        cost=hours_of(frame, log_N, log_D) if hours else flops,
        flops=flops,
        names=names,
        trunk=trunks,
        most=limits.most,
    )


def hours_of(frame: pd.DataFrame, log_N: np.ndarray, log_D: np.ndarray) -> np.ndarray:
    """Hours of one run at (N, D): seconds a token of each size of the table, a straight line in logarithms between and
    beyond.

    Raises:
        InputError: the table says no seconds.
    """
    if "seconds" not in frame or not pd.to_numeric(frame["seconds"], errors="coerce").gt(0).any():
        raise InputError("hours: the table has no seconds of runs; ask with --flops")
    known = frame[pd.to_numeric(frame["seconds"], errors="coerce").gt(0) & ~table.after_training(frame)]
    known = known if len(known) else frame[frame["seconds"].gt(0)]
    each = (known["seconds"].astype(float) / known["D"].astype(float)).groupby(known["N"]).median()
    x, y = np.log(each.index.to_numpy(float)), np.log(each.to_numpy(float))
    slope = np.polyfit(x, y, 1)[0] if len(x) > 1 else 1.0
    level = np.interp(log_N, x, y) + slope * (log_N - np.clip(log_N, x[0], x[-1]))
    return np.exp(level + log_D) / 3600


def model_of(cells: Cells, rows: Rows, **said) -> Model:
    """The cells as a `Model`; `said` are its components, lack and level."""
    return Model(log_N=cells.log_N, log_D=cells.log_D, widths=rows.widths, middle=rows.middle, **said)
