"""delta_PTQ under each learning-rate schedule. Fig. 12 of Kumar et al. 2024 (arXiv 2411.04330).

The paper's figure has linear decay to zero alone; here it is a panel a schedule, so that the effect of tokens is
separate from that of the decay. Models trained in 16 bits, each size at its most frequent rate and weight decay, at the
size with the most schedules; points with their standard errors, triangles at the lower edge are gaps below the axis,
zero or less. Lines are the gap law (Eq. 2) fitted to all sizes of that schedule, whose gamma_D is in the title, or,
where the schedule has too few runs, the mean over seeds. Dashes with open markers are the paper's constants.
"""

import textwrap

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.registry import LAWS
from analysis.table import nominal_tokens

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
COLUMNS = ["name", "N", "D", "P_post", "gap", "gap_se", "kind"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold kumar_ptq, which is used where there is one schedule. `attrs`: each schedule's gamma_D in words.

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
    reason = f"N={size:g}: all gaps at {BITS[0]:g} to {BITS[-1]:g} bits are zero or less"
    shared.above_zero(shared.at(rows, N=size), "gap", reason)
    parts, exponents = [], {}
    for name in schedules:
        own = shared.at(rows, name=name)
        fit = shared.own_fit(own, fits if len(schedules) == 1 else {}, LAW, bootstrap=DRAWS)
        exponents[name] = shared.stated(fit, {"gamma_D": r"$\gamma_D$"})
        for _, group in shared.at(own, N=size).groupby("P_post"):
            parts += [part.assign(name=name) for part in (group.assign(kind="point"), *_lines(group, fit))]
    return shared.together(parts, COLUMNS, gamma_D=exponents)


def _chosen(rows: pd.DataFrame) -> list[str]:
    """The names of at most MOST schedules: those with the most token counts, one of each kind before a second."""
    seen = rows.groupby(["schedule", "name"], as_index=False)["D"].agg(["nunique", "size"])
    seen = seen.sort_values(["nunique", "size"], ascending=False, kind="stable")
    rank = seen.groupby("schedule").cumcount()
    return list(seen.assign(rank=rank).sort_values("rank", kind="stable")["name"].iloc[:MOST])


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Gaps at BITS with the `name` of their schedule, of schedules with two token counts at one N."""
    rows = shared.quantized(frame, LAW).assign(D=nominal_tokens)
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


def _lines(group: pd.DataFrame, fit: Fit | None) -> list[pd.DataFrame]:
    """The paper's law and the fitted one, or the means over seeds."""
    tokens = np.geomspace(*style.span(group["D"]), 40)
    grid = pd.DataFrame({"N": group["N"].iloc[0], "D": tokens, "P_post": group["P_post"].iloc[0]})
    paper = grid.assign(kind="paper", gap=LAWS[LAW].predict(LAWS[LAW].published, grid))
    if fit is not None:
        return [paper, grid.assign(kind="law", gap=fit.predict(grid))]
    return [paper, group.groupby(["N", "D", "P_post"], as_index=False)["gap"].mean().assign(kind="mean")]


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each schedule."""
    points, schedules = shared.at(data, kind="point"), list(dict.fromkeys(data["name"]))
    looks = {b: look for b, look in palettes.looks(BITS).items() if (points["P_post"] == b).any()}
    panels, size = len(schedules), data["N"].iloc[0]
    figure, axes = style.side_by_side(panels, 2.9, each=1.7, sharex=True, sharey=True)
    low, high = style.span(points.loc[points["gap"] > shared.LOWEST, "gap"])
    for panel, name in zip(axes, schedules, strict=True):
        panel.set_title("\n".join([*textwrap.wrap(name, TITLE), data.attrs["gamma_D"][name]]).strip())
        for bits, (colour, marker) in looks.items():
            group = shared.at(data, name=name, P_post=bits)
            own, paper = (shared.at(group, kind=kind) for kind in ("point", "paper"))
            line = group[group["kind"].isin(["law", "mean"])]
            style.points_above(panel, own["D"] / size, own["gap"], own["gap_se"], low, colour=colour, marker=marker)
            look = {"linestyle": style.DASHES, "linewidth": 0.7, "markersize": 2.6, "zorder": 2}
            place, marks = (paper["D"] / size, paper["gap"]), {"at": (0.94,), "within": (low, high)}
            style.marked_line(panel, *place, colour=colour, marker=marker, **marks, **look)
            panel.plot(line["D"] / size, line["gap"].where(line["gap"] > 0), color=colour, zorder=3)
    first = axes[0]
    style.log_axis_of(first, "x", points["D"] / size, most=5 if panels < 3 else 4, text=style.magnitude)
    style.log_axis(first, "y", low, high)
    first.set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    figure.supxlabel(f"D/N (tokens per parameter), {style.size_label(size)}", fontsize=8)
    handles = style.keys(looks, style.bits_label)
    handles.append(style.key("Kumar et al.", color="0.45", linestyle=style.DASHES, linewidth=0.7))
    style.legend(figure, handles, 3 if panels == 1 else 6, below=(points["gap"] <= low).any())
    return figure
