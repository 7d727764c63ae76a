"""Which runs to add within a budget: greedy, then exchange, from several starts; and the best full factorials.

A design is how many runs each cell gets. Every step prices all designs that differ from the present one by one run, or
by one run for another, and takes the best, until none is better (Fedorov's exchange). The result is a local optimum.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from analysis.errors import InputError
from analysis.planning.next_runs.candidates import Cells
from analysis.planning.next_runs.criterion import Model, Target, Width

STEPS, ROUNDS = 400, 15
THRIFT = 0.01  # relative: what runs that are dropped again may cost in width
SPAN = 4.0  # of the D of the first two runs of a new size, at least
BETTER = 1e-4  # relative: what a step must gain
MOST_SEEDS = 8
BATCH = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """`added` runs a cell (m,), its cost, and the width with what the table has."""

    added: np.ndarray
    cost: float
    width: Width


Score = Callable[[np.ndarray], np.ndarray]


def score_of(model: Model, cells: Cells, target: Target) -> Score:
    """Half-width plus bias (k,) of `added` (k, m)."""

    def score(added: np.ndarray) -> np.ndarray:
        made = []
        for start in range(0, len(added), BATCH):
            _, half, bias = model.widths_of(cells.runs + added[start : start + BATCH], target)
            made.append(half + bias)
        return np.concatenate(made)

    return score


def best(model: Model, cells: Cells, target: Target, budget: float, *, thrift: float = THRIFT) -> Design:
    """The design of at most `budget` with the smallest half-width and bias that was found, less runs that give hardly
    anything: together at most a share `thrift` of both.

    Raises:
        InputError: the budget is no number above zero, too small for any candidate, or for a design that determines
            the target.
    """
    if not 0 < budget < np.inf:
        raise InputError(f"budget {budget:g}: expected a number above zero")
    cheapest = cells.cost[cells.open_].min()
    if cheapest > budget:
        raise InputError(f"budget {budget:g}: too small for any candidate; the cheapest run costs {cheapest:.3g}")
    score = score_of(model, cells, target)
    starts = [np.zeros(len(cells.runs), int)]
    factorials = sorted(
        (one for one in factorial_designs(cells) if cells.price(one)[0] <= budget), key=lambda one: score(one[None])[0]
    )
    starts += factorials[:1] + [one for one in _with_new_sizes(cells) if cells.price(one)[0] <= budget]
    designs = []
    for start, by_cost in itertools.product(starts, (True, False)):
        grown = _grown(start, score, cells, budget, by_cost)
        if np.isfinite(score(grown[None])[0]):
            designs.append(_thrifty(_exchanged(grown, score, cells, budget), score, cells, thrift))
    if not designs:
        raise InputError(f"budget {budget:g}: no runs within it determine {target.name}; ask for more")
    added = min(designs, key=lambda one: (score(one[None])[0], cells.price(one)[0]))
    return design(model, cells, target, added)


def design(model: Model, cells: Cells, target: Target, added: np.ndarray) -> Design:
    """What `added` costs and gives."""
    return Design(added=added, cost=float(cells.price(added)[0]), width=model.width(cells.runs + added, target))


def factorial_designs(cells: Cells, *, sizes: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Full factorials of open cells, each (m,): all sizes (or `sizes`), D in steps of one octave or more or the two
    ends alone, with one to `MOST_SEEDS` seeds."""
    sizes = np.unique(cells.log_N[cells.open_]) if sizes is None else sizes
    axes = [np.unique(cells.log_D[cells.open_ & (np.abs(cells.log_N - size) < 1e-9)]) for size in sizes]
    axis = np.array(sorted(set.intersection(*(set(a) for a in axes)))) if axes else np.array([])
    if len(axis) < 2:
        return
    levels = {tuple(axis[::step]) for step in range(1, len(axis)) if (len(axis) - 1) % step == 0}
    member = np.isin(cells.log_N, sizes) & cells.open_
    for level, seeds in itertools.product(sorted(levels), range(1, MOST_SEEDS + 1)):
        yield np.where(member & np.isin(cells.log_D, level), seeds, 0)


def _with_new_sizes(cells: Cells) -> Iterator[np.ndarray]:
    """Two runs of each new size, the cheapest ones `SPAN` apart in D; of the cheapest new size, of the two cheapest,
    and so on: a size's first run alone says nothing of its slope."""
    sizes = [size for size in np.unique(cells.log_N) if not cells.runs[np.abs(cells.log_N - size) < 1e-9].any()]
    added = np.zeros(len(cells.runs), int)
    for size in sizes:
        own = np.flatnonzero((np.abs(cells.log_N - size) < 1e-9) & cells.open_)
        far = own[cells.log_D[own] >= cells.log_D[own].min(initial=np.inf) + np.log(SPAN) - 0.1]
        if len(far):
            added = added.copy()
            added[[own[0], far[0]]] = 1
            yield added


def _grown(start: np.ndarray, score: Score, cells: Cells, budget: float, by_cost: bool) -> np.ndarray:
    """Runs added one at a time, that with the largest gain (by its cost) first."""
    now, value = start.copy(), float(score(start[None])[0])
    steps = np.eye(len(now), dtype=int)[cells.open_]
    for _ in range(STEPS):
        tried = now + steps
        price = cells.price(tried)
        kept = (price <= budget) & (tried <= cells.most).all(1)
        tried, extra = tried[kept], price[kept] - cells.price(now)[0]
        if not len(tried):
            break
        values = score(tried)
        if np.isfinite(value):
            gains = (value - values) / (np.maximum(extra, 1e-9 * budget) if by_cost else 1.0)
        else:
            gains = -values
        best_one = int(np.argmax(gains))
        if not values[best_one] < value:
            break
        now, value = tried[best_one], float(values[best_one])
    return now


def _exchanged(now: np.ndarray, score: Score, cells: Cells, budget: float) -> np.ndarray:
    """Runs exchanged for others, or dropped, while that helps."""
    value = float(score(now[None])[0])
    unit = np.eye(len(now), dtype=int)
    steps = np.vstack([np.zeros((1, len(now)), int), unit[cells.open_]])
    for _ in range(ROUNDS):
        fewer = now - unit[now > 0]
        tried = np.vstack([(fewer[:, None] + steps).reshape(-1, len(now)), now + steps[1:]])
        tried = tried[(cells.price(tried) <= budget) & (tried <= cells.most).all(1)]
        if not len(tried):
            break
        values = score(tried)
        best_one = int(np.argmin(values))
        if not values[best_one] < value * (1 - BETTER):
            break
        now, value = tried[best_one], float(values[best_one])
    return now


def _thrifty(now: np.ndarray, score: Score, cells: Cells, thrift: float) -> np.ndarray:
    """Less the runs that give hardly anything, the dearest for what it gives first."""
    allowed = float(score(now[None])[0]) * (1 + thrift)
    while now.any():
        fewer = now - np.eye(len(now), dtype=int)[now > 0]
        values = score(fewer)
        saved = cells.price(now)[0] - cells.price(fewer)
        worth = np.where(values <= allowed, saved / np.maximum(values - values.min() + 1e-6, 1e-12), -1.0)
        if worth.max() < 0:
            break
        now = fewer[int(np.argmax(worth))]
    return now
