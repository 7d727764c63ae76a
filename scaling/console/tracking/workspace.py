"""The W&B workspace of a study, which opens on the axes that its question is about: gap against D/N, a chart a width,
loss against tokens by precision, and parallel coordinates.

It is described as data here, and made into W&B's own description by the package wandb-workspaces, which saves it on a
server; nothing else needs that package.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from scaling.console.tracking.names import quantization


class Axis(NamedTuple):
    """What a chart has along one of its axes."""

    kind: str
    """`summary`, `config` or `history`."""
    name: str
    log: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    kind: str
    """`scatter`: a point a run, of two axes; `lines`: a line a run, of the first against the others; `parallel`: a
    line a run through all axes."""
    title: str
    axes: tuple[Axis, ...]
    by: str | None = None
    """Setting by which lines are grouped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    charts: tuple[Chart, ...]


RATIO = Axis("config", "tokens_per_parameter")
TOKENS = Axis("history", "tokens")


def sections(settings: Sequence[str], varied: Sequence[str] = ()) -> list[Section]:
    """What the workspace shows of a study whose models were quantized in these settings (their keys in its table), and
    whose runs differ in these settings of their configs."""
    gaps = [_gap(key) for key in sorted(dict.fromkeys(settings), key=_order)]
    scatter = [
        Chart(kind="scatter", title=axis.name.removeprefix("ptq/").removesuffix("/gap"), axes=(RATIO, axis))
        for axis in gaps
    ]
    losses = [
        Chart(kind="lines", title=title, axes=(TOKENS, Axis("history", name, log=False)), by="bits")
        for title, name in (("training loss", "train/loss"), ("held-out loss", "val/subset_loss"))
    ]
    own = [Axis("config", name, log=False) for name in varied]
    through = (Axis("config", "N"), Axis("config", "D"), *own, Axis("summary", "val/loss", log=False), *gaps)
    candidates = [
        Section(title="Gap against D/N, by bits after training", charts=tuple(scatter)),
        Section(title="Loss against tokens, by precision in training", charts=tuple(losses)),
        Section(title="All runs", charts=(Chart(kind="parallel", title="N, D, loss and gaps", axes=through),)),
    ]
    return [section for section in candidates if section.charts]


def workspace(entity: str, project: str, study: str, group: str, shown: Sequence[Section]) -> Any:
    """The `wandb_workspaces.workspaces.Workspace` of these sections, of the runs of one group, not yet saved.

    Raises:
        ImportError: the package is not there.
    """
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    made = [
        ws.Section(name=section.title, panels=[_panel(chart) for chart in section.charts], is_open=True)
        for section in shown
    ]
    runs = ws.RunsetSettings(
        filters=expr.And(expr.Metric("Group") == group, expr.Metric("JobType") != "publish"),
        order=[expr.Ordering(expr.Config("N"), ascending=True)],
    )
    settings = ws.WorkspaceSettings(x_axis=TOKENS.name)
    return ws.Workspace(
        entity=entity, project=project, name=study, sections=made, settings=settings, runset_settings=runs
    )


def _gap(key: str) -> Axis:
    return Axis("summary", f"{quantization(key)}/gap")


def _order(key: str) -> tuple:
    """Method, then bits."""
    method, fmt, *_ = key.split("/")
    digits = re.search(r"\d+", fmt)
    return method, int(digits[0]) if digits else 0, key


def _panel(chart: Chart) -> Any:
    import wandb_workspaces.reports.v2 as wr

    metric = {"summary": wr.SummaryMetric, "config": wr.Config, "history": wr.Metric}
    of = [metric[axis.kind](axis.name) for axis in chart.axes]
    if chart.kind == "parallel":
        columns = [
            wr.ParallelCoordinatesPlotColumn(metric=one, log=axis.log) for one, axis in zip(of, chart.axes, strict=True)
        ]
        return wr.ParallelCoordinatesPlot(title=chart.title, columns=columns)
    x, y = chart.axes[:2]
    if chart.kind == "scatter":
        return wr.ScatterPlot(title=chart.title, x=of[0], y=of[1], log_x=x.log, log_y=y.log)
    by = {"groupby": wr.Config(chart.by), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"} if chart.by else {}
    return wr.LinePlot(title=chart.title, x=of[0], y=of[1:], log_x=x.log, log_y=y.log, **by)
