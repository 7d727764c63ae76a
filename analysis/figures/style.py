"""How all figures look: a two-column journal, eight-point type, colours that survive colour blindness and print.

Colour is never the only cue where a line or a point could be mistaken for another: values have markers as well, lines
without points have theirs at a few places (`marked_line`), laws that are only continued are dotted, and 16 bits are
black and dashed, or have a marker of their own.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from analysis.files import write_together

COLUMN, PAGE = 3.4, 7.0  # inches
EDGE = 0.02  # of an axis: where triangles are for what lies beyond it
ASIDE = 5.0  # points from such a triangle to the marker of its group
FEWEST = 3  # ticks of a logarithmic axis with which it can be read
MORE = 1.5  # so many times as many ticks as elsewhere where all are powers of ten
SAME = 1.01  # ratio of values that a tick with two digits does not tell apart
CLOSEST = 0.6  # of an even share of an axis: two ticks nearer than that have labels that touch
RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "analysis",
}
DASHES = (0, (4, 2))


BELOW = {"color": "0.4", "marker": "v", "linestyle": "none", "label": "below the axis"}
ABOVE = BELOW | {"marker": "^", "label": "above the axis"}
LEFT = BELOW | {"marker": "<", "label": "left of the axis"}
UNDATED = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
WHITE_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure and the numbers in it."""

    figure: Figure
    numbers: pd.DataFrame

    @classmethod
    def of(cls, draw: Callable[[pd.DataFrame], Figure], numbers: pd.DataFrame) -> "Drawn":
        """Drawn in this style."""
        return cls(figure=styled(draw)(numbers), numbers=numbers)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A kind of figure: `data` makes its numbers from a table and the fits to it, by name; `draw` shows them and knows
    nothing else. What the figure says in words stands in the `attrs` of the numbers."""

    data: Callable[[pd.DataFrame, Mapping], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]

    def __call__(self, frame: pd.DataFrame, fits: Mapping) -> Drawn:
        """The figure of a tidy table.

        Raises:
            InputError: the table has nothing for it to show.
        """
        return Drawn.of(self.draw, self.data(frame, fits))


def styled(draw: Callable) -> Callable:
    """Decorates a function that draws: what it draws gets this style, and nothing global stays changed."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


def subplots(rows: int, columns: int, *, width: float, height: float, **grid) -> tuple[Figure, np.ndarray]:
    """A figure with rows x columns axes (rows, columns), sizes in inches; made without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def single(height: float, width: float = COLUMN) -> tuple[Figure, Axes]:
    """A figure with one panel."""
    figure, axes = subplots(1, 1, width=width, height=height)
    return figure, axes[0, 0]


def side_by_side(panels: int, height: float, *, each: float, **grid) -> tuple[Figure, np.ndarray]:
    """A figure with so many panels (n,) beside each other, a column wide and `each` inches more for all but the
    first, at most a page."""
    figure, axes = subplots(1, panels, width=min(PAGE, COLUMN + each * (panels - 1)), height=height, **grid)
    return figure, axes[0]


def wrapped(
    panels: int, columns: int, *, base: tuple[float, float], each: tuple[float, float], lone: float | None = None
):
    """A figure with so many axes (n,) in rows of at most `columns`, which share both scales: `base` inches and `each`
    more by column and by row, one column alone `lone` inches wide."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    width = lone if lone and columns == 1 else min(PAGE, base[0] + each[0] * columns)
    figure, axes = subplots(rows, columns, width=width, height=base[1] + each[1] * rows, sharex=True, sharey=True)
    for spare in axes.flat[panels:]:
        spare.remove()
    for lowest in axes.flat[max(panels - columns, 0) : panels]:  # of its column, what stands below being removed
        lowest.tick_params(labelbottom=True)
    return figure, axes.flat[:panels]


def key(label: str, **look) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def keys(looks: Mapping, text: Callable[..., str], **more) -> list[Line2D]:
    """An entry for each value with its colour, or its colour and marker; `text` is its label."""
    handles = []
    for value, look in looks.items():
        colour, marker = look if isinstance(look, tuple) and isinstance(look[-1], str) else (look, None)
        handles.append(key(text(value), color=colour, **({"marker": marker} if marker else {}), **more))
    return handles


def size_label(size: float) -> str:
    return f"N = {magnitude(size)}"


def cell_label(rows: pd.DataFrame) -> str:
    """N and D of rows that have one of each."""
    return f"N = {magnitude(rows['N'].iloc[0])}, D = {magnitude(rows['D'].iloc[0])} tokens"


def bits_label(bits: float) -> str:
    return f"{bits:g} bits"


def legend(
    figure: Figure,
    handles: Sequence,
    most: int,
    *,
    below: bool = False,
    above: bool = False,
    left: bool = False,
    **more,
) -> None:
    """Above all panels, at most so many entries beside each other; the last ones explain the marks at an edge if
    something lies `below`, `above` or `left` of the axis."""
    beyond = ((below, BELOW), (above, ABOVE), (left, LEFT))
    handles = [*handles, *(key(**look) for there, look in beyond if there)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(most, len(handles)), **more)


def log_axis(axes, which: str, low: float, high: float, **ticks) -> None:
    """Makes the axis `x` or `y` logarithmic, from low to high, with labelled ticks."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    log_ticks(getattr(axes, f"{which}axis"), low, high, **ticks)


def log_axis_of(axes, which: str, values, *, text=lambda v: f"{v:g}", **ticks) -> None:
    """`log_axis` with a little room around positive `values`; a value that all of them have is the only tick."""
    log_axis(axes, which, *span(values), text=text, **ticks)
    if np.max(values) / np.min(values) < SAME:
        axis = getattr(axes, f"{which}axis")
        exact_ticks(axis, [np.mean(values)], text=text)


def save(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """Write name.pdf, name.png and name.csv; the same drawing gives the same bytes."""
    contents = {
        folder / f"{name}.pdf": image(drawn.figure, "pdf"),
        folder / f"{name}.png": image(drawn.figure, "png"),
        folder / f"{name}.csv": drawn.numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    write_together(contents)
    return list(contents)


def image(figure: Figure, format: str, **options) -> bytes:
    """A figure as the bytes of a file: made in memory, where no disk is full. The same figure gives the same bytes."""
    with matplotlib.rc_context(RC), io.BytesIO() as buffer:
        figure.savefig(buffer, format=format, metadata=UNDATED[format], **options)
        return buffer.getvalue()


def points_above(axes, x, value: pd.Series, se: pd.Series, low: float, *, colour, edge=None, **look):
    """Points with their standard errors, which do not reach zero; marks at the lower edge (`edge`: their look)
    where a value is `low` or less, which a logarithmic axis has no place for."""
    inside = value > low
    shown, error = value[inside], se[inside].fillna(0.0)
    look = {"fmt": look.pop("marker", "o"), "elinewidth": 0.7, **WHITE_EDGE, "zorder": 4} | look
    reach = [np.minimum(error, 0.9 * shown), error]
    axes.errorbar(x[inside], shown, yerr=reach, color=colour, **look)
    at_edge(axes, "lower", x[~inside], colour=colour, marker=look["fmt"], **(edge or {}))


def series(axes, x: pd.Series, value: pd.Series, se: pd.Series, low: float, *, colour, linestyle="-", **look) -> None:
    """`points_above`, and a line through their means at each x, where these are above zero."""
    means = value.groupby(x).mean()
    means = means[means > 0]
    if len(means):
        axes.plot(means.index, means, zorder=3, color=colour, linestyle=linestyle)
    points_above(axes, x, value, se, low, colour=colour, **look)


def marked_line(axes, x, y, *, colour, marker, at: Sequence[float], within=(-np.inf, np.inf), **look) -> None:
    """A line with its marker at some shares of its length (0: where it begins, 1: where it ends), counted among values
    `within` the limits of the axis: lines without points can then be distinguished without colour. The markers are
    open, for nothing was measured there."""
    inside = np.flatnonzero((np.asarray(y, float) > within[0]) & (np.asarray(y, float) < within[1]))
    places = sorted({int(inside[round(share * (len(inside) - 1))]) for share in at}) if len(inside) else []
    edge = {"marker": marker, "markevery": places, "markerfacecolor": "white", "markeredgewidth": 0.8}
    axes.plot(x, y, color=colour, **(edge if places else {}), **look)


def at_edge(axes, side: str, places, *, colour, marker: str | None = None, **look) -> None:
    """For what lies beyond the `lower`, `left` or `upper` edge, at `places` along it: a triangle that points out, and
    the `marker` of its group where several groups can lie there."""
    if not len(places):  # an empty unclipped line would stretch the layout to the figure's corner
        return
    triangle, edge, right, up = {
        "lower": ("v", EDGE, 0, 1),
        "left": ("<", EDGE, 1, 0),
        "upper": ("^", 1 - EDGE, 0, -1),
    }[side]
    along = axes.get_yaxis_transform() if side == "left" else axes.get_xaxis_transform()
    aside = ScaledTranslation(right * ASIDE / 72, up * ASIDE / 72, axes.figure.dpi_scale_trans)
    edges = np.full(len(places), edge)
    place = (edges, places) if side == "left" else (places, edges)
    for shape, transform in ((triangle, along), *([(marker, along + aside)] if marker else [])):
        axes.plot(*place, shape, color=colour, transform=transform, clip_on=False, zorder=5, **look)


def magnitude(value: float) -> str:
    """23600 -> 24k, 1.6e6 -> 1.6M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.2g}{unit}" if value / size < 99.5 else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


def log_ticks(axis, low: float, high: float, *, most: int = 7, text=lambda v: f"{v:g}") -> None:
    """Labelled ticks on a logarithmic axis that shows low..high, at most `most`: three or more also where that is
    under a decade, every second or fifth power of ten where there are too many, and none so close that labels touch."""
    ticks = _log_places(low, high, most, text)
    axis.set_major_locator(ticker.FixedLocator(ticks))
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: text(v)))
    axis.set_minor_locator(ticker.LogLocator(subs=np.arange(1, 10)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _log_places(low: float, high: float, most: int, text: Callable[[float], str]) -> list[float]:
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    for steps in (np.arange(2, 20) / 2, range(1, 10), (1, 2, 5), (1, 3), (1,)):
        ticks = [s * 10.0**e for e in range(first, last + 1) for s in steps if low <= s * 10.0**e <= high]
        apart = np.diff(np.log(ticks)).min(initial=np.inf) / np.log(high / low)
        if FEWEST <= len(ticks) <= most and apart >= CLOSEST / most:
            return ticks
    if high / low < 10:  # even steps
        for bins in range(2 * most, 0, -1):
            even = ticker.MaxNLocator(bins, steps=[1, 2, 5, 10]).tick_values(low, high)
            even = [v for v in even if low <= v <= high]
            if len({text(v) for v in even}) == len(even) <= most:
                return even
    for every in (1, 2, 3, 5, 10, 20, 50, 100):
        powers = [10.0**e for e in range(first, last + 1) if low <= 10.0**e <= high and e % every == 0]
        if len(powers) <= MORE * most:  # short labels, far apart
            break
    return powers


def exact_ticks(axis, values, text=lambda v: f"{v:g}") -> None:
    """A labelled tick at each of `values` and nowhere else."""
    axis.set_major_locator(ticker.FixedLocator(list(values)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: text(v)))
    axis.set_minor_locator(ticker.NullLocator())


def span(values) -> tuple[float, float]:
    """Limits of a logarithmic axis with a little room around positive `values`."""
    low, high = float(np.min(values)), float(np.max(values))
    room = max((high / low) ** 0.06, 1.04)
    return low / room, high * room


def stated(symbol: str, value: float, low: float, high: float) -> str:
    """`symbol = value [low, high]`, to the digits that the interval leaves."""
    if not np.isfinite([low, high]).all():
        return f"{symbol} = {value:.2f}"
    return f"{symbol} = {value:.2f} [{low:.2f}, {high:.2f}]"
