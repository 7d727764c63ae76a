"""What exponent and mantissa bits are worth in training. Figs. 16 and 17 of Kumar et al. 2024 (arXiv 2411.04330).

Runs whose weights alone were in a float format eXmY. Left: N_eff/N of each format by Eq. 30, the mean of all its runs
(dots) with a 95% interval: their scatter, and the error that they share since all see the same documents. Lines are
f(P) of the paper's fit to its own such runs (dashed, Appendix N) and of ours to this table with its 95% band. Further
right: the cost at the N and D with the most formats against mantissa bits, a line an exponent width, and against
exponent bits, a line a mantissa width, through the means over seeds; bars are standard errors, triangles at the lower
edge are costs below the axis, zero or less.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.figures.in_training.capacity import PAPER, TOP, empirical_share
from analysis.fitting.fit import Fit
from analysis.fitting.selection import family
from analysis.laws.formulas import effective_share
from analysis.laws.registry import LAWS
from analysis.laws.variables import with_derived
from analysis.planning.choose_law import LOSS_LAWS

NAMES = {"E_w": "exponent bits", "M_w": "mantissa bits"}
FAMILY = "em"  # eXmY without its numbers
LAW = "kumar_floating_point"
DRAWS = 200  # of a fit that is made for this figure
ASIDE = 0.16  # bits between formats of one width
WIDTHS = {1: style.COLUMN, 2: 5.4, 3: style.PAGE}  # inches, by panels
WAYS = {
    "against M_w": ("M_w", "E_w"),
    "against E_w": ("E_w", "M_w"),
}  # panel: horizontal axis, and what has a line each


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """Without kumar_floating_point in `fits` it is fitted here. The panel of shares needs three widths of formats for
    that fit, or another loss law in `fits`, for A and alpha.

    Raises:
        InputError: no such fit and no N and D with two formats that differ in exponent or mantissa alone.
    """
    runs = _runs(frame)
    fit = None if runs.empty else _fit(frame, runs, fits)
    source = None if runs.empty else fit or shared.first_of(fits, LOSS_LAWS)
    parts = [] if source is None else _shares(runs, source, fit)
    parts += _sweeps(runs)
    if not parts:
        raise InputError("no N and D with two float formats of weights that differ in exponent or mantissa alone")
    return shared.together(parts, fit=shared.stated(fit, {"gamma_w": r"$\gamma_w$", "n_w": "$n_w$"}))


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs with weights alone in a float format, with E_w and M_w, quantized in one way."""
    if "format_w" not in frame:
        return pd.DataFrame()
    runs = shared.alone(shared.qat_gaps(shared.trained(frame, one_way=False)), "P_w")
    runs = shared.one_way_of(runs[(family(runs["format_w"]) == FAMILY).to_numpy(bool)], "P_w")
    return with_derived(runs, ("E_w", "M_w"))


def _fit(frame: pd.DataFrame, runs: pd.DataFrame, fits: dict[str, Fit]) -> Fit | None:
    trained = shared.trained(frame, one_way=False)
    chosen = trained["run_id"].isin(runs["run_id"]) if "run_id" in trained else np.ones(len(trained), bool)
    return shared.own_fit(trained[~shared.low(trained) | chosen], fits, LAW, bootstrap=DRAWS)


def _shares(runs: pd.DataFrame, source: Fit, fit: Fit | None) -> list[pd.DataFrame]:
    """Curves of f(P); of each format its mean N_eff/N with the ends of a 95% interval, and N_eff/N of its runs."""

    def share(side: int) -> np.ndarray:
        costs = runs["gap_qat"] + side * runs["gap_qat_se"].fillna(0.0)
        pairs = zip(runs["N"], costs, strict=True)
        return np.array([empirical_share(shared.constants(source), N, gap) for N, gap in pairs])

    shares = runs.assign(share=share(0), error=(share(-1) - share(1)) / 2, bits=runs["P_w"], panel="share", kind="run")
    shares = shares[np.isfinite(shares["share"])]
    parts = [
        _curve("paper", LAWS[LAW].published),
        *([] if fit is None else [_curve("law", shared.constants(fit), fit)]),
    ]
    for _, rows in shares.groupby(["format_w", "E_w"]):
        scatter = 0.0 if len(rows) < 2 else rows["share"].std() / np.sqrt(len(rows))
        reach = stats.norm.ppf(0.975) * np.hypot(np.nan_to_num(rows["error"].mean()), scatter)
        mean = rows["share"].mean()
        columns = ["panel", "kind", "format_w", "E_w", "M_w", "bits", "share"]
        parts.append(rows[columns].iloc[:1].assign(kind="format", share=mean, low=mean - reach, high=mean + reach))
        parts.append(rows[[*columns, "N", "D"]])
    return parts if len(shares) else []


def _curve(kind: str, constants: Mapping, fit: Fit | None = None) -> pd.DataFrame:
    grid = np.linspace(0.25, 16.6, 330)

    def share(c: Mapping) -> np.ndarray:
        return effective_share(c, {"P_w": grid})

    ends = None if fit is None else shared.band(fit, share)
    low, high = (np.nan, np.nan) if ends is None else np.clip(ends, 0, None)
    columns = {"panel": "share", "kind": kind, "bits": grid, "share": share(constants), "low": low, "high": high}
    return pd.DataFrame(columns).dropna(subset="share")


def _sweeps(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """For each panel the rows at the N and D with the most formats (of several, the largest D and N)."""
    cells = [
        (group["format_w"].nunique(), *cell)
        for cell, group in (runs.groupby(["D", "N"]) if len(runs) else ())
        if (group["gap_qat"] > shared.LOWEST).any() and any(_varies(group, *way) for way in WAYS.values())
    ]
    if not cells:
        return []
    _, tokens, size = max(cells)
    rows = shared.at(runs, D=tokens, N=size)[["format_w", "E_w", "M_w", "N", "D", "gap_qat", "gap_qat_se", "loss"]]
    return [
        rows.assign(panel=panel, kind="run").sort_values(lines, kind="stable")
        for panel, (x, lines) in WAYS.items()
        if _varies(rows, x, lines)
    ]


def _varies(rows: pd.DataFrame, x: str, lines: str) -> bool:
    return bool((rows.groupby(lines)[x].nunique() > 1).any())


def draw(data: pd.DataFrame) -> style.Figure:
    """The panel of shares, and those of the sweeps."""
    panels = list(dict.fromkeys(data["panel"]))
    figure, axes = style.subplots(1, len(panels), width=WIDTHS[len(panels)], height=2.9)
    sweeps = [name for name in panels if name in WAYS]
    for panel, name in zip(axes[0], panels, strict=True):
        rows = shared.at(data, panel=name)
        if name in WAYS:
            _sweep(panel, rows, *WAYS[name], first=name == sweeps[0])
        else:
            _capacity(panel, rows, data.attrs["fit"])
    return figure


def _capacity(axes, shares: pd.DataFrame, stated: str) -> None:
    widths = sorted(shares["E_w"].dropna().unique())
    looks = palettes.looks(widths)
    for kind, look in (("paper", PAPER), ("law", {"color": "black"})):
        curve = shared.at(shares, kind=kind)
        if curve["low"].notna().any():
            axes.fill_between(curve["bits"], curve["low"], curve["high"], color="0.85", linewidth=0, zorder=1)
        axes.plot(curve["bits"], curve["share"], zorder=2.5, **look)
    for (_, exponent), group in shares.groupby(["format_w", "E_w"]):
        colour, marker = looks[exponent]
        (each,), runs = shared.at(group, kind="format").itertuples(), shared.at(group, kind="run")
        # Formats of one width side by side, few exponent bits to the left.
        x = each.bits + ASIDE * (widths.index(exponent) - (len(widths) - 1) / 2)
        dots = {"markersize": 1.8, "alpha": 0.5, "zorder": 3}
        axes.plot(np.full(len(runs), x), runs["share"].clip(upper=TOP), ".", color=colour, **dots)
        ends = [[each.share - each.low], [each.high - each.share]]
        look = {"elinewidth": 0.8, "zorder": 4} | style.WHITE_EDGE
        axes.errorbar(x, each.share, yerr=ends, fmt=marker, color=colour, **look)
    axes.set_ylim(0, TOP)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlim(1.5, 16.6)
    style.exact_ticks(axes.xaxis, (2, 4, 6, 8, 12, 16))
    axes.set_ylabel(r"$N_\mathrm{eff}/N$")
    axes.set_xlabel("$P_w$ = 1 + exponent + mantissa (bits)" + f"\n{stated}".rstrip())
    _key(axes, style.keys(looks, "{:g}".format, linestyle="none"), NAMES["E_w"])
    lines = [style.key("fitted here", color="black")] if stated else []
    axes.add_artist(axes.legend_)
    axes.legend(handles=[*lines, style.key("Kumar et al.", **PAPER)], loc="lower right", handlelength=1.8)


def _sweep(axes, rows: pd.DataFrame, x: str, lines: str, *, first: bool) -> None:
    low, high = style.span(rows.loc[rows["gap_qat"] > shared.LOWEST, "gap_qat"])
    axes.set_xlabel(f"{NAMES[x]}\n{style.cell_label(rows)}")
    looks = palettes.looks(sorted(rows[lines].unique()))
    for bits, (colour, marker) in looks.items():
        group = shared.at(rows, **{lines: bits})
        points = group[x], group["gap_qat"], group["gap_qat_se"]
        style.series(axes, *points, low, colour=colour, marker=marker)
    style.exact_ticks(axes.xaxis, sorted(rows[x].unique()))
    axes.margins(x=0.08)
    below = [style.key(**style.BELOW)] * bool((rows["gap_qat"] <= low).any())
    _key(axes, [*style.keys(looks, "{:g}".format), *below], NAMES[lines])
    style.log_axis(axes, "y", low, high)
    axes.tick_params(labelleft=first)
    if first:
        axes.set_ylabel("cost in loss (nats per token)")


def _key(axes, handles: list, title: str) -> None:
    look = {"columnspacing": 0.9, "handlelength": 1.3, "handletextpad": 0.4, "title_fontsize": 7}
    where = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(handles=handles, ncols=min(5, len(handles)), title=title, **where, **look)
