"""What exponent and mantissa bits are worth in training. Figs. 16 and 17 of Kumar et al. 2024 (arXiv 2411.04330).

Runs whose weights alone were in a float format eXmY. Left: N_eff/N of each format by Eq. 30, the mean of all its runs
(dots) with a 95% interval: their scatter, and the error that they share since all see the same documents. Lines are
f(P) of the paper's fit to its own such runs (dashed, Appendix N) and of ours to this table with its 95% band. Further
right: the cost at the N and D with the most formats against mantissa bits, a line an exponent width, and against
exponent bits, a line a mantissa width, through the means over seeds; bars are standard errors, triangles at the lower
edge are costs below the axis, zero or less.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from scipy import stats

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.figures.in_training.capacity import empirical_share
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
TOP = 1.15
ASIDE = 0.16  # bits between formats of one width
WIDTHS = {1: style.COLUMN, 2: 5.4, 3: style.PAGE}  # inches, by panels


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. Without kumar_floating_point in `fits` it is fitted here.

    The left panel needs three widths of formats for that fit, or another loss law in `fits`, for A and alpha.

    Raises:
        InputError: no such fit and no N and D with two formats that differ in exponent or mantissa alone.
    """
    runs = _runs(frame)
    fit, source = _fits(frame, runs, fits)
    shares = None if source is None else _shares(runs, shared.constants(source))
    sweep = _sweep(runs)
    if sweep is None and shares is None:
        raise InputError("no N and D with two float formats of weights that differ in exponent or mantissa alone")
    axes_of_sweep = [] if sweep is None else _ways(sweep)
    panels = (shares is not None) + len(axes_of_sweep)
    figure, axes = style.canvas(1, panels, width=WIDTHS[panels], height=2.9)
    plotted = []
    if shares is not None:
        plotted += _capacity(axes[0, 0], shares, fit)
    if sweep is not None:
        plotted += _sweeps(axes[0, panels - len(axes_of_sweep) :], sweep, axes_of_sweep)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs with weights alone in a float format, with E_w and M_w, quantized in one way."""
    if "format_w" not in frame:
        return pd.DataFrame()
    runs = shared.alone(shared.qat_gaps(shared.trained(frame, one_way=False)), "P_w")
    runs = shared.one_way_of(runs[(family(runs["format_w"]) == FAMILY).to_numpy(bool)], "P_w")
    return with_derived(runs, ("E_w", "M_w"))


def _fits(frame: pd.DataFrame, runs: pd.DataFrame, fits: dict[str, Fit]) -> tuple[Fit | None, Fit | None]:
    """The fit of the law, and the one whose A and alpha turn a cost into a share of N."""
    if runs.empty:
        return None, None
    trained = shared.trained(frame, one_way=False)
    kept = trained["run_id"].isin(runs["run_id"]) if "run_id" in trained else np.ones(len(trained), bool)
    fit = shared.own_fit(trained[~shared.low(trained) | kept], fits, LAW, bootstrap=DRAWS)
    return fit, fit if fit is not None else shared.first_of(fits, LOSS_LAWS)


# ---- the share of N ----


def _shares(runs: pd.DataFrame, constants: dict[str, float]) -> pd.DataFrame | None:
    """N_eff/N of each run and, alike for all of a format, its mean with the ends of a 95% interval."""

    def share(side: int) -> np.ndarray:
        costs = runs["gap_qat"] + side * runs["gap_qat_se"].fillna(0.0)
        return np.array([empirical_share(constants, n, g) for n, g in zip(runs["N"], costs, strict=True)])

    found = runs.assign(share=share(0), error=(share(-1) - share(1)) / 2)
    found = found[np.isfinite(found["share"])]
    if found.empty:
        return None
    groups = found.groupby("format_w")
    mean, own = groups["share"].transform("mean"), groups["error"].transform("mean").fillna(0.0)
    scatter = (groups["share"].transform("std") / np.sqrt(groups["share"].transform("size"))).fillna(0.0)
    reach = stats.norm.ppf(0.975) * np.hypot(own, scatter)
    return found.assign(mean=mean, low=mean - reach, high=mean + reach)


def _capacity(axes, shares: pd.DataFrame, fit: Fit | None) -> list[dict]:
    widths = sorted(shares["E_w"].unique())
    looks = dict(zip(widths, zip(style.shades(len(widths)), style.MARKERS * 9, strict=False), strict=False))
    plotted = _curves(axes, fit)
    for (name, exponent), group in shares.groupby(["format_w", "E_w"]):
        colour, marker = looks[exponent]
        # Formats of one width side by side, few exponent bits to the left.
        x = group["P_w"].iloc[0] + ASIDE * (widths.index(exponent) - (len(widths) - 1) / 2)
        mean, low, high = group[["mean", "low", "high"]].iloc[0]
        seen = group["share"].clip(upper=TOP)
        axes.plot(np.full(len(group), x), seen, ".", color=colour, markersize=1.8, alpha=0.5, zorder=3)
        ends = [[mean - low], [high - mean]]
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        axes.errorbar(x, mean, yerr=ends, fmt=marker, color=colour, elinewidth=0.8, zorder=4, **edge)
        bits = {"format_w": name, "E_w": exponent, "M_w": group["M_w"].iloc[0], "bits": group["P_w"].iloc[0]}
        plotted.append({"panel": "share", "kind": "format", **bits, "share": mean, "low": low, "high": high})
        plotted += [
            {"panel": "share", "kind": "run", **bits, "N": r.N, "D": r.D, "share": r.share} for r in group.itertuples()
        ]
    axes.set_ylim(0, TOP)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlim(1.5, 16.6)
    style.exact_ticks(axes.xaxis, (2, 4, 6, 8, 12, 16))
    axes.set_ylabel(r"$N_\mathrm{eff}/N$")
    told = "" if fit is None else "\n" + _stated(fit)
    axes.set_xlabel("$P_w$ = 1 + exponent + mantissa (bits)" + told)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=f"{b:g}") for b, (c, m) in looks.items()]
    _key(axes, handles, NAMES["E_w"])
    lines = [Line2D([], [], color="black", label="fitted here")] if fit is not None else []
    lines.append(Line2D([], [], color="0.45", linestyle=style.DASHES, label="Kumar et al."))
    axes.add_artist(axes.legend_)
    axes.legend(handles=lines, loc="lower right", handlelength=1.8)
    return plotted


def _curves(axes, fit: Fit | None) -> list[dict]:
    grid, plotted = np.linspace(0.25, 16.6, 330), []

    def share(constants):
        return effective_share(constants, {"P_w": grid})

    shown = {"paper": (LAWS[LAW].published, {"color": "0.45", "linestyle": style.DASHES})}
    if fit is not None:
        shown["law"] = (shared.constants(fit), {"color": "black"})
    for kind, (constants, look) in shown.items():
        value = share(constants)
        ends = shared.band(fit, share) if kind == "law" else None
        low, high = (np.full(len(grid), np.nan),) * 2 if ends is None else np.clip(ends, 0, None)
        if ends is not None:
            axes.fill_between(grid, low, high, color="0.85", linewidth=0, zorder=1)
        axes.plot(grid, value, zorder=2.5, **look)
        what = {"panel": "share", "kind": kind}
        plotted += [
            {**what, "bits": b, "share": v, "low": e, "high": f}
            for b, v, e, f in zip(grid, value, low, high, strict=True)
            if np.isfinite(v)
        ]
    return plotted


def _stated(fit: Fit) -> str:
    names = {"gamma_w": r"$\gamma_w$", "n_w": "$n_w$"}
    return ", ".join(style.stated(text, fit.params[s], *fit.interval(s)) for s, text in names.items())


# ---- the sweeps ----


def _ways(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Horizontal axis and lines of each panel."""
    ways = [("M_w", "E_w"), ("E_w", "M_w")]
    return [(x, lines) for x, lines in ways if (rows.groupby(lines)[x].nunique() > 1).any()]


def _sweep(runs: pd.DataFrame) -> pd.DataFrame | None:
    """Rows at the N and D with the most formats (of several, the largest D and N); None where nothing is swept."""
    best = None
    for (tokens, size), group in runs.groupby(["D", "N"]) if len(runs) else ():
        if _ways(group) and (group["gap_qat"] > shared.LOWEST).any():
            best = max([best, (group["format_w"].nunique(), tokens, size)], key=lambda found: found or ())
    return None if best is None else runs[(runs["D"] == best[1]) & (runs["N"] == best[2])]


def _sweeps(axes, rows: pd.DataFrame, ways: list[tuple[str, str]]) -> list[dict]:
    low, high = style.span(rows.loc[rows["gap_qat"] > shared.LOWEST, "gap_qat"])
    size, tokens = (style.magnitude(rows[c].iloc[0]) for c in ("N", "D"))
    plotted = []
    for panel, (x, lines) in zip(axes, ways, strict=True):
        panel.set_yscale("log")
        panel.set_xlabel(f"{NAMES[x]}\nN = {size}, D = {tokens} tokens")
        values, handles = sorted(rows[lines].unique()), []
        for bits, colour, marker in zip(values, style.shades(len(values)), style.MARKERS * 9, strict=False):
            plotted += _series(panel, x, lines, rows[rows[lines] == bits], colour, marker, low)
            handles.append(Line2D([], [], color=colour, marker=marker, label=f"{bits:g}"))
        style.exact_ticks(panel.xaxis, sorted(rows[x].unique()))
        panel.margins(x=0.08)
        _key(panel, handles, NAMES[lines])
        panel.set_ylim(low, high)
        style.log_ticks(panel.yaxis, low, high)
        panel.tick_params(labelleft=panel is axes[0])
    axes[0].set_ylabel("cost in loss (nats per token)")
    return plotted


def _key(axes, handles: list, title: str) -> None:
    look = {"columnspacing": 0.9, "handlelength": 1.3, "handletextpad": 0.4, "title_fontsize": 7}
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(5, len(handles)), title=title, **look
    )


def _series(axes, x: str, lines: str, group: pd.DataFrame, colour, marker: str, low: float) -> list[dict]:
    means = group.groupby(x)["gap_qat"].mean()
    axes.plot(means.index, np.where(means > 0, means, np.nan), color=colour, zorder=3)
    style.points_above(axes, group[x], group["gap_qat"], group["gap_qat_se"], low, colour=colour, marker=marker)
    columns = ["format_w", "E_w", "M_w", "N", "D", "gap_qat", "gap_qat_se", "loss"]
    return group[columns].assign(panel=f"against {x}", kind="run").to_dict("records")
