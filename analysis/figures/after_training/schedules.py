"""delta_PTQ under each learning-rate schedule. Fig. 12 of Kumar et al. 2024 (arXiv 2411.04330).

The paper's figure has linear decay to zero alone; here it is a panel a schedule, so that what tokens do can be told
from what the decay does. Models trained in 16 bits, each size at its most frequent rate and weight decay, at the size
with the most schedules; points with their standard errors, triangles at the lower edge are gaps below the axis, zero
or less. Lines are the gap law (Eq. 2) fitted to all sizes of that schedule, whose gamma_D is in the title, or, where
the schedule has too few runs, the mean over seeds. Dashes are the paper's constants.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.registry import LAWS

LAW = "kumar_ptq"
BITS = (3.0, 4.0, 5.0, 6.0)
MOST = 4  # schedules
DRAWS = 200
TITLE = 24  # letters in a line of a panel's title
NAMES = {
    "cosine": "cosine",
    "linear": "linear",
    "wsd": "stable, then linear",
    "constant": "constant",
    "average": "mean of the weights",
}
TO_ZERO = "linear to 0"


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` may hold kumar_ptq, which is used where there is one schedule.

    Raises:
        InputError: no schedule with gaps at two token counts, or one alone that is not linear decay to zero.
    """
    rows = _rows(frame)
    rows = rows[rows["name"].isin(_chosen(rows))]
    schedules = sorted(rows["name"].unique())
    if len(schedules) == 1 and schedules[0] != TO_ZERO:
        raise InputError(f"one schedule alone, {schedules[0]}; expected several, or {TO_ZERO}")
    counts = rows.groupby("N")["name"].nunique()
    size = shared.most_frequent(rows.loc[rows["N"].isin(counts.index[counts == counts.max()]), "N"])
    shown = rows[rows["N"] == size]
    colours = dict(zip(BITS, style.shades(len(BITS)), strict=True))
    colours = {bits: colours[bits] for bits in BITS if (shown["P_post"] == bits).any()}
    positive = shown.loc[shown["gap"] > shared.LOWEST, "gap"]
    if positive.empty:
        raise InputError(f"N={size:g}: all gaps at {BITS[0]:g} to {BITS[-1]:g} bits are zero or less")
    panels = len(schedules)
    figure, axes = style.canvas(
        1, panels, width=min(style.PAGE, style.COLUMN + 1.7 * (panels - 1)), height=2.9, sharex=True, sharey=True
    )
    low, high = style.span(positive)
    plotted = []
    for panel, name in zip(axes[0], schedules, strict=True):
        own = rows[rows["name"] == name]
        fit = shared.own_fit(own, fits if panels == 1 else {}, LAW, bootstrap=DRAWS)
        told = "" if fit is None else style.stated(r"$\gamma_D$", fit.params["gamma_D"], *fit.interval("gamma_D"))
        panel.set_title("\n".join([*textwrap.wrap(name, TITLE), told]).strip())
        panel.set_xscale("log")
        panel.set_yscale("log")
        for bits, colour in colours.items():
            group = own[(own["N"] == size) & (own["P_post"] == bits)]
            if len(group):
                plotted += _points(panel, group, colour, low) + _lines(panel, group, colour, fit)
    first = axes[0, 0]
    ends = style.span(shown["D"] / size)
    first.set_xlim(*ends)
    style.log_ticks(first.xaxis, *ends, most=5 if panels < 3 else 4, text=style.magnitude)
    first.set_ylim(low, high)
    style.log_ticks(first.yaxis, low, high)
    first.set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    figure.supxlabel(f"D/N (tokens per parameter), N = {style.magnitude(size)}", fontsize=8)
    _legend(figure, colours, lost=bool((shown["gap"] <= low).any()), columns=panels)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _chosen(rows: pd.DataFrame) -> list[str]:
    """The names of at most MOST schedules: those with the most token counts, one of each kind before a second."""
    seen = rows.groupby(["schedule", "name"], as_index=False)["D"].agg(["nunique", "size"])
    seen = seen.sort_values(["nunique", "size"], ascending=False, kind="stable")
    turn = seen.groupby("schedule").cumcount()
    return list(seen.assign(turn=turn).sort_values("turn", kind="stable")["name"].iloc[:MOST])


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Gaps at BITS with the `name` of their schedule, of schedules with two token counts at one N."""
    rows = shared.quantized(frame, LAW)
    if "schedule" not in rows:
        raise InputError("the table has no column schedule")
    rows = _one_recipe(rows[rows["P_post"].isin(BITS)])
    rows = rows.assign(name=schedule_names(rows))
    rows = rows[rows.groupby(["name", "N"])["D"].transform("nunique") > 1]
    if rows.empty:
        raise InputError("no schedule has models of one N at two token counts, quantized to 3 to 6 bits")
    return rows


def _one_recipe(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each N the most frequent peak rate and weight decay; without runs that go on from another at a constant rate,
    whose past is another schedule."""
    if "parent_id" in rows:
        rows = rows[rows["parent_id"].isna() | (rows["schedule"] != "constant")]
    for column in (c for c in ("lr_peak", "weight_decay") if c in rows and rows[c].notna().all()):
        usual = rows.groupby("N")[column].agg(shared.most_frequent) if len(rows) else {}
        rows = rows[rows[column] == rows["N"].map(usual)]
    return rows


def schedule_names(rows: pd.DataFrame) -> pd.Series:
    """What each row's learning rate did: `cosine to 10%`, `linear to 0`, `stable, then linear to 0 over 20% of D`."""
    ends = pd.Series("", index=rows.index)
    if {"lr_peak", "lr_end"} <= set(rows):
        share = pd.to_numeric(rows["lr_end"], errors="coerce") / pd.to_numeric(rows["lr_peak"], errors="coerce")
        ends = share.map(lambda s: "" if np.isnan(s) or s >= 1 else " to 0" if s == 0 else f" to {100 * s:.2g}%")
    decays = pd.Series("", index=rows.index)
    if "decay_tokens" in rows:
        decay = pd.to_numeric(rows["decay_tokens"], errors="coerce")
        # A decay is a share of D or a number of tokens, whichever a study varied less.
        share = (decay / rows["D"]).round(3)
        if share.nunique() <= decay.nunique():
            decays = share.map(lambda s: "" if np.isnan(s) else f" over {100 * s:.3g}% of D")
        else:
            decays = decay.map(lambda d: "" if np.isnan(d) else f" over {style.magnitude(d)} tokens")
    return rows["schedule"].map(lambda s: NAMES.get(str(s), str(s))) + ends + decays


def _points(axes, group: pd.DataFrame, colour, low: float) -> list[dict]:
    style.points_above(axes, group["D"] / group["N"], group["gap"], group["gap_se"], low, colour=colour)
    return group[["name", "N", "D", "P_post", "gap", "gap_se"]].assign(kind="point").to_dict("records")


def _lines(axes, group: pd.DataFrame, colour, fit: Fit | None) -> list[dict]:
    size, grid = group["N"].iloc[0], np.geomspace(*style.span(group["D"]), 40)
    known = pd.DataFrame({"N": size, "D": grid, "P_post": group["P_post"].iloc[0]})
    paper = LAWS[LAW].predict(LAWS[LAW].published, known)
    axes.plot(grid / size, paper, color=colour, linestyle=style.DASHES, linewidth=0.7, zorder=2)
    plotted = [known.assign(kind="paper", gap=paper)]
    if fit is not None:
        value = fit.predict(known)
        axes.plot(grid / size, value, color=colour, zorder=3)
        plotted.append(known.assign(kind="law", gap=value))
    else:
        means = group.groupby(["N", "D", "P_post"], as_index=False)["gap"].mean()
        axes.plot(means["D"] / size, means["gap"].where(means["gap"] > 0), color=colour, zorder=3)
        plotted.append(means.assign(kind="mean"))
    return pd.concat(plotted).assign(name=group["name"].iloc[0]).to_dict("records")


def _legend(figure, colours: dict, *, lost: bool, columns: int) -> None:
    handles = [Line2D([], [], color=c, marker="o", label=f"{b:g} bits") for b, c in colours.items()]
    handles.append(Line2D([], [], color="0.45", linestyle=style.DASHES, linewidth=0.7, label="Kumar et al."))
    if lost:
        handles.append(Line2D([], [], color="0.4", marker="v", linestyle="none", label="below the axis"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3 if columns == 1 else 6)
