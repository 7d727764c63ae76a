"""What a notebook shows of results: tables as HTML, measurements beside predictions, and pictures written to files."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".pdf", ".svg")
MOST_LOOKS = 12  # values of a column, each with a colour and a marker


def page(title: str, frame: pd.DataFrame, notes: Iterable[str] = (), *, index: bool = True) -> str:
    """HTML of a table with a line above it and lines below; empty where there is no value."""
    below = "".join(f"<br>{html.escape(note)}" for note in notes)
    shown = frame.to_html(index=index, float_format="{:.4g}".format, na_rep="")
    return f"<p>{html.escape(title)}</p>{shown}<p>{below.removeprefix('<br>')}</p>"


def predictions(rows: pd.DataFrame, title: str, response: str) -> "Figure":
    """Of `rows`, with measured and predicted values in nats: left, both against D (or N where D is one); right,
    measured against predicted. A colour and marker a bit width, or a size where there is one width."""
    from matplotlib.figure import Figure

    varied = [name for name in ("P_post", "P_w", "N", "D") if name in rows and rows[name].nunique() > 1]
    along = "D" if "D" in varied else "N" if "N" in varied else None
    few = [name for name in varied if name != along and rows[name].nunique() <= MOST_LOOKS]
    shown = few[0] if few else None
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    parts = {None: rows} if shown is None else dict(list(rows.groupby(shown)))
    for value, (colour, marker) in palettes.looks([*parts]).items():
        part, label = parts[value], None if shown is None else f"{shown} = {value:g}"
        points = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3.5, "alpha": 0.7}
        right.plot(part["predicted"], part["measured"], label=label, **points)
        if along is None:
            continue
        left.plot(part[along], part["measured"], **points)
        others = [name for name in ("N", "D") if name in part and name not in (along, shown)]
        for _, line in part.groupby(others) if others else [(None, part)]:
            line = line.sort_values(along)
            left.plot(line[along], line["predicted"], linewidth=0.9, color=colour)
    left.set(xlabel=along or "", ylabel=f"{response} (nats a token)")
    left.set_visible(along is not None)
    right.axline((rows["predicted"].median(),) * 2, slope=1.0, color="0.5", linewidth=0.8)
    right.set(xlabel="predicted", ylabel="measured")
    log_x(left)
    if response != "loss":
        # A gap that was measured below zero has no place on a logarithmic axis.
        for axes in (left, right):
            axes.set_yscale("log", nonpositive="mask")
        right.set_xscale("log")
    if shown is not None:
        right.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def log_x(axes: "Axes") -> None:
    """A logarithmic axis whose labels (2M, 500k, 10m for .01) do not run into each other, also below a decade."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def written(figure: "Figure", path: Path | str | None) -> "Figure":
    """The figure, after writing it to `path` if there is one.

    Raises:
        InputError: `path` is no picture, or cannot be written.
    """
    if path is not None:
        suffix = Path(path).suffix
        if suffix not in PICTURES:
            raise InputError(f"{path}: expected a name that ends in {', '.join(PICTURES)}")
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, metadata={"Software": None} if suffix == ".png" else None)
    return figure
