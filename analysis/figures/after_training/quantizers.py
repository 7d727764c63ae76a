"""delta_PTQ by quantizer and granularity. Figs. 2, 10 and 11 of Kumar et al. 2024 (arXiv 2411.04330), side by side.

A panel a bit width, at the model size with the most such rows, the largest of several (gaps of small models saturate);
models trained in 16 bits. Lines go through the means over seeds, points carry their standard errors; triangles at the
lower edge are gaps below the axis, zero or less. Of many settings those with the most token counts are drawn; the
others are counted, and in the CSV with `shown` false.
"""

import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.selection import family
from analysis.table import after_training

BITS = (3.0, 4.0)
NAMES = {"rtn": "RTN", "gptq": "GPTQ", "awq": "AWQ"}
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
MOST = 8  # settings that can still be told apart
COLUMNS = ["setting", "ptq", "granularity_post", "N", "D", "P_post", "gap", "gap_se"]
SETTING = ["ptq", "family", "granularity_post"]


@style.styled
def draw(frame: pd.DataFrame, fits: dict) -> style.Drawn:
    """The figure and its numbers. `fits` is not used.

    Raises:
        InputError: nothing was quantized to 3 or 4 bits, or all of it in one way.
    """
    rows = _rows(frame)
    counts = rows.groupby("N")["setting"].nunique()
    if counts.empty or counts.max() < 2:
        raise InputError("no N was quantized to 3 or 4 bits by two methods or at two granularities")
    size = max(counts.index[counts == counts.max()], key=lambda n: ((rows["N"] == n).sum(), n))
    rows = rows[rows["N"] == size]
    rows, hidden = _most_seen(rows)
    widths = sorted(rows["P_post"].unique())
    looks = _looks(rows)
    panels = len(widths)
    figure, axes = style.canvas(
        1, panels, width=style.COLUMN + 2.0 * (panels - 1), height=2.9, sharex=True, sharey=True
    )
    positive = rows.loc[rows["gap"] > shared.LOWEST, "gap"]
    if positive.empty:
        raise InputError(f"N={size:g}: all gaps at 3 and 4 bits are zero or less")
    plotted = []
    for panel, bits in zip(axes[0], widths, strict=True):
        panel.set_title(f"{bits:g} bits")
        panel.set_yscale("log")
        panel.set_xscale("log")
        for setting, look in looks.items():
            group = rows[(rows["P_post"] == bits) & (rows["setting"] == setting)]
            plotted += _series(panel, group, look, float(style.span(positive)[0]))
    first, ratio = axes[0, 0], rows["D"] / rows["N"]
    low, high = style.span(ratio)
    first.set_xlim(low, high)
    style.log_ticks(first.xaxis, low, high, most=5, text=style.magnitude)
    low, high = style.span(positive)
    first.set_ylim(low, high)
    style.log_ticks(first.yaxis, low, high)
    first.set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    left = f"\nnot shown: {hidden['setting'].nunique()} settings at fewer token counts" if len(hidden) else ""
    figure.supxlabel(f"D/N (tokens per parameter), N = {style.magnitude(size)}{left}", fontsize=8)
    handles = [Line2D([], [], label=setting, **look) for setting, look in looks.items()]
    if (rows["gap"] <= low).any():
        handles.append(Line2D([], [], color="0.4", marker="v", linestyle="none", label="below the axis"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), panels + 1), handlelength=2.6)
    numbers = pd.concat([pd.DataFrame(plotted).assign(shown=True), hidden[COLUMNS].assign(shown=False)])
    return style.Drawn(figure=figure, numbers=numbers)


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Quantized rows at the widths shown, by setting; of each setting the most frequent options (scales, order)."""
    quantized = frame[after_training(frame)]
    if quantized.empty or "P_post" not in quantized:
        raise InputError("no row is quantized after training; expected rows with ptq, P_post and gap")
    words = {
        "ptq": quantized.get("ptq", pd.Series("quantized", index=quantized.index)).astype(str),
        "granularity_post": quantized.get("granularity_post", pd.Series("", index=quantized.index)).fillna(""),
        "family": family(quantized.get("format_post", pd.Series("int", index=quantized.index))),
    }
    quantized = quantized.assign(**words)
    quantized = quantized[pd.to_numeric(quantized["P_post"], errors="coerce").isin(BITS)]
    # So that the CSV does not hang on the order of the table's rows.
    in_order = [c for c in ("N", "D", "seed_init", "seed_data", "run_id", "P_post") if c in quantized]
    parts = []
    order = {name: i for i, name in enumerate(NAMES)}

    def plain_first(found: tuple) -> tuple:
        (method, kind, granularity), _ = found
        return order.get(method, len(order)), method, kind != "int", kind, granularity

    for setting, group in sorted(quantized.groupby(SETTING), key=plain_first):
        try:
            kept = shared.quantized(group, "kumar_ptq")
        except InputError as fault:
            if str(fault).startswith("no row"):  # all of this setting belong elsewhere, say to low-precision training
                continue
            raise
        formats = "" if setting[1] == "int" or "format_post" not in kept else "/".join(sorted(set(kept["format_post"])))
        parts.append(kept.assign(setting=_named(setting[0], formats, setting[2])).sort_values(in_order, kind="stable"))
    if not parts:
        raise InputError("no model trained in 16 bits was quantized to 3 or 4 bits")
    return pd.concat(parts, ignore_index=True)


def _most_seen(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The settings with at least half as many token counts as any, at most MOST of them, and the others."""
    seen = rows.groupby("setting", sort=False)["D"].agg(["nunique", "size"])
    order = seen.sort_values(["nunique", "size"], ascending=False, kind="stable").index[:MOST]
    kept = [s for s in order if 2 * seen.loc[s, "nunique"] >= seen["nunique"].max()]
    shown = rows["setting"].isin(kept)
    return rows[shown], rows[~shown]


def _named(method: str, formats: str, granularity: str) -> str:
    words = " ".join(filter(None, (NAMES.get(method, method), formats)))
    return f"{words}, {granularity}" if granularity else words


def _looks(rows: pd.DataFrame) -> dict[str, dict]:
    """A colour and marker a method and family of formats, dashes a granularity."""
    methods = list(dict.fromkeys(zip(rows["ptq"], rows["family"], strict=True)))
    grains = sorted(rows["granularity_post"].unique(), key=lambda g: (g.startswith("block"), g))
    looks = {}
    for setting, group in rows.groupby("setting", sort=False):
        first = group.iloc[0]
        i, j = methods.index((first["ptq"], first["family"])), grains.index(first["granularity_post"])
        looks[setting] = {
            "color": style.CATEGORIES[i % len(style.CATEGORIES)],
            "marker": style.MARKERS[i % len(style.MARKERS)],
            "linestyle": DASHES[j % len(DASHES)],
        }
    return looks


def _series(axes, group: pd.DataFrame, look: dict, low: float) -> list[dict]:
    means = group.groupby("D")["gap"].mean()
    means = means[means > 0]
    if len(means):
        line = {k: v for k, v in look.items() if k != "marker"}
        axes.plot(means.index / group["N"].iloc[0], means.to_numpy(), zorder=3, **line)
    shown = {"colour": look["color"], "marker": look["marker"]}
    style.points_above(axes, group["D"] / group["N"], group["gap"], group["gap_se"], low, **shown)
    return group[COLUMNS].to_dict("records")
