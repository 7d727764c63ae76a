"""The advice: what other rows of the table say, what no run can mend, and the runs that narrow an interval most.

What costs no run comes first. Rows chosen because their interval is narrow are no evidence; the list shows how far the
answer moves with the choice, and a choice made by a rule beforehand may be one of them.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.planning.next_runs.candidates import Cells, Limits, cells_of, model_of, sizes_of
from analysis.planning.next_runs.components import FLOOR, Components, estimate
from analysis.planning.next_runs.criterion import (
    FOREVER,
    LEVEL,
    Lack,
    Model,
    Target,
    Width,
    components_for,
    lacks_of,
    parts,
)
from analysis.planning.next_runs.rows import INTEGERS, Choice, Rows, rows_of
from analysis.planning.next_runs.search import Design, best, design
from analysis.planning.next_runs.targets import target_of

WIDTHS = ((4.0, 5.0), (3.0, 6.0), (4.0, 6.0), (3.0, 4.0))
GAP_BELOW = 0.5  # nats: the filter that fits have by default
FIRST_LOOK, SECOND_LOOK = 0.01, 0.04  # alpha that each of two looks spends: 5% together, whatever they share
HARDLY = 0.8  # of a half-width: a floor above that share of it is most of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked; `flops` or `hours` is the budget. `second_look`: the table is one look, the runs make a second."""

    target: str
    flops: float | None = None
    hours: float | None = None
    choice: Choice = dataclasses.field(default_factory=Choice)
    sizes: str | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    curvature: float | None = None
    bits_by_size: float | None = None
    trunks: float | None = None
    second_look: bool = False

    def __post_init__(self):
        if (self.flops is None) == (self.hours is None):
            raise InputError("budget: expected --flops or --hours, one of them")
        for name in ("curvature", "bits_by_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise InputError(f"{name}={value:g}: expected a number of at least zero")
        if self.trunks is not None and not 0 <= self.trunks <= 1:
            raise InputError(f"trunks={self.trunks:g}: expected the share of a run that is its own, 0 to 1")

    @property
    def level(self) -> float:
        """Of the interval after the new runs."""
        return 1 - SECOND_LOOK if self.second_look else LEVEL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
    """One choice of rows: its estimate and half-width, or why there is none."""

    choice: Choice
    value: float = np.nan
    half: float = np.nan
    components: Components | None = None
    why: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """`value` and `now`: the estimate and its width as the table stands. `repeated`: with every cell as often again,
    `repeated_for_ever` and `these_sizes`: what repeating, and any runs at the table's sizes, cannot get below."""

    request: Request
    target: Target
    rows: Rows
    components: Components
    lack: Lack
    cells: Cells
    value: float
    now: Width
    repeated: Design
    repeated_for_ever: Width
    these_sizes: Width
    chosen: Design
    others: list[Other]

    @property
    def runs(self) -> list[tuple[str, float, float, int, int]]:
        """(model, N, D, runs there, runs to add) of every cell that gets any."""
        c, added = self.cells, self.chosen.added
        each = [(c.name(k), float(np.exp(c.log_N[k])), float(np.exp(c.log_D[k])), k) for k in np.flatnonzero(added)]
        return [(name, N, D, int(c.runs[k]), int(added[k])) for name, N, D, k in each]


def advise(frame: pd.DataFrame, request: Request, *, progress: Callable[[str], None] = lambda _: None) -> Advice:
    """The advice for the table `frame`.

    Raises:
        InputError: unknown target, no gaps, a budget that is too small, or rows that do not determine the target.
    """
    rows = rows_of(frame, request.choice)
    progress(f"components of {len(rows)} rows")
    components, law, _ = parts(rows)
    target = target_of(request.target, rows, law)
    components = components_for(target, rows, components)
    estimated = lacks_of(rows, components)
    lack = Lack(
        curvature=estimated.curvature if request.curvature is None else request.curvature,
        bits_by_size=estimated.bits_by_size if request.bits_by_size is None else request.bits_by_size,
    )
    sizes = sizes_of(request.sizes, rows)
    hours = request.hours is not None
    cells = cells_of(rows, frame, sizes=sizes, limits=request.limits, hours=hours, trunks=request.trunks)
    model = model_of(cells, rows, components=components, lack=lack, level=request.level)
    progress(f"{int(cells.open_.sum())} cells: which runs")
    chosen = best(model, cells, target, request.hours if hours else request.flops)
    progress("other rows of the table")
    return Advice(
        request=request,
        target=target,
        rows=rows,
        components=components,
        lack=lack,
        cells=cells,
        value=_value(rows, components, target, law),
        now=model.width(cells.runs, target),
        repeated=design(model, cells, target, cells.runs),
        repeated_for_ever=model.width(cells.runs * FOREVER, target),
        these_sizes=_floor(model, cells, target),
        chosen=chosen,
        others=[_other(frame, choice, request) for choice in _choices(frame, request.choice)],
    )


def _floor(model: Model, cells: Cells, target: Target) -> Width:
    """Of any number of runs at the sizes of the table: the effects of sizes alone are left."""
    own = np.isin(cells.log_N, np.unique(cells.log_N[cells.runs > 0]))
    free = model.replaced(row=FLOOR, run=0.0, cell=0.0, common=0.0)
    return free.width(np.where(own & (cells.open_ | (cells.runs > 0)), FOREVER, 0), target)


def _value(rows: Rows, components: Components, target: Target, law: np.ndarray) -> float:
    """The estimate of the target; of a prediction without what is known of the size's own effect."""
    if target.name == "gamma_post":
        return float(1 / law[3])
    if target.fifth is None:
        return float(np.array(target.law[:4]) @ law)
    return float(np.array(target.law) @ estimate(rows, components, target.columns(rows))[0])


def _choices(frame: pd.DataFrame, base: Choice) -> Iterator[Choice]:
    """What costs no run: other quantizers, granularities, widths and the filter on gaps, one at a time."""
    integers = frame[frame["format_post"].isin(INTEGERS)] if "format_post" in frame else frame
    for field, column in (("ptq", "ptq"), ("granularity", "granularity_post")):
        if column in integers and getattr(base, field) is not None:
            for value in sorted(set(integers[column].dropna()) - {getattr(base, field)}):
                yield dataclasses.replace(base, **{field: value})
    for bits in WIDTHS:
        if bits != base.bits:
            yield dataclasses.replace(base, bits=bits)
    if base.gap_below is None:
        yield dataclasses.replace(base, bits=WIDTHS[1], gap_below=GAP_BELOW)


def _other(frame: pd.DataFrame, choice: Choice, request: Request) -> Other:
    try:
        rows = rows_of(frame, choice)
        components, law, _ = parts(rows)
        target = target_of(request.target, rows, law)
        components = components_for(target, rows, components)
        cells = rows.cells()
        log_N, log_D, runs = (np.array(values) for values in zip(*cells, strict=True))
        model = Model(
            log_N=log_N, log_D=log_D, widths=rows.widths, components=components, middle=rows.middle, level=LEVEL
        )
        half = model.width(runs, target).half
    except InputError as fault:
        return Other(choice=choice, why=fault.brief)
    return Other(choice=choice, value=_value(rows, components, target, law), half=half, components=components)


def sentences(made: Advice) -> list[str]:
    """The advice in plain lines."""
    now, chosen, floor = made.now, made.chosen.width, made.these_sizes
    own = {name for name, _, _, there, _ in made.runs if not there and name not in _own_names(made)}
    lines = []
    if not np.isfinite(now.half):
        lines.append(f"The table does not determine {made.target.name}.")
    elif floor.half > HARDLY * now.half:
        lines.append(
            f"More runs at these sizes hardly help: they leave at least {floor.half:.3f} of {now.half:.3f}. "
            "More sizes do."
        )
    if np.isfinite(now.half):
        gain = 1 - chosen.criterion / now.criterion
        lines.append(
            f"{int(made.chosen.added.sum())} runs make it {chosen.half:.3f} in place of {now.half:.3f} ({gain:.0%} "
            f"less with the bias); every cell as often again, at {made.repeated.cost / made.chosen.cost:.2g} times "
            f"the cost, {made.repeated.width.half:.3f}."
        )
    if own:
        lines.append(f"New sizes: {', '.join(sorted(own))}. Predict them before they are trained.")
    scatter = 1 / np.sqrt(2 * max(1, len(made.rows.sizes) - 1))
    lines.append(
        f"The width that comes out scatters by about {scatter:.0%} about the expected one with so few sizes. "
        "Look once, after all runs; a look before that needs --second-look."
    )
    return lines


def _own_names(made: Advice) -> set[str]:
    return {made.cells.name(k) for k in np.flatnonzero(made.cells.runs)}
