"""delta_PTQ by quantizer and granularity. Figs. 2, 10 and 11 of Kumar et al. 2024 (arXiv 2411.04330), side by side.

A panel a bit width, at the model size with the most such rows, the largest of several (gaps of small models saturate);
models trained in 16 bits. Lines go through the means over seeds, points carry their standard errors; triangles at the
lower edge are gaps below the axis, zero or less. Of many settings those with the most token counts are drawn; the
others are counted, and in the CSV with `shown` false.
"""

import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.selection import family
from analysis.table import after_training, nominal_tokens

BITS = (3.0, 4.0)
NAMES = {"rtn": "RTN", "gptq": "GPTQ", "awq": "AWQ"}
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
MOST = 8  # settings that can still be distinguished
COLUMNS = ["setting", "ptq", "granularity_post", "N", "D", "P_post", "gap", "gap_se", "shown"]
SETTING = ["ptq", "family", "granularity_post"]


def data(frame: pd.DataFrame, fits: dict) -> pd.DataFrame:
    """Gaps at one N; `attrs`: the (ptq, family) of each setting, in order. `fits` are not used.

    Raises:
        InputError: nothing was quantized to 3 or 4 bits, or all of it in one way.
    """
    rows = _rows(frame).assign(D=nominal_tokens)
    counts = rows.groupby("N")["setting"].nunique()
    if counts.empty or counts.max() < 2:
        raise InputError("no N was quantized to 3 or 4 bits by two methods or at two granularities")
    rows = rows[rows["N"].isin(counts.index[counts == counts.max()])]
    rows = shared.at(rows, N=max(rows["N"].unique(), key=lambda n: ((rows["N"] == n).sum(), n)))
    # Settings with at least half as many token counts as any, at most MOST of them.
    seen = rows.groupby("setting", sort=False)["D"].agg(["nunique", "size"])
    seen = seen.sort_values(["nunique", "size"], ascending=False, kind="stable").iloc[:MOST]
    rows = rows.assign(shown=rows["setting"].isin(seen.index[2 * seen["nunique"] >= seen["nunique"].max()]))
    drawn, hidden = rows[rows["shown"]], rows[~rows["shown"]]
    size = rows["N"].iloc[0]
    shared.above_zero(drawn, "gap", f"N={size:g}: all gaps at 3 and 4 bits are zero or less")
    methods = dict(zip(drawn["setting"], zip(drawn["ptq"], drawn["family"], strict=True), strict=True))
    return shared.together([drawn.sort_values("P_post", kind="stable"), hidden], COLUMNS, methods=methods)


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Quantized rows at the widths shown, by setting; of each setting the most frequent options (scales, order)."""
    quantized = frame[after_training(frame)]
    if quantized.empty or "P_post" not in quantized:
        raise InputError("no row is quantized after training; expected rows with ptq, P_post and gap")
    quantized = quantized.assign(
        ptq=quantized.get("ptq", pd.Series("quantized", index=quantized.index)).astype(str),
        granularity_post=quantized.get("granularity_post", pd.Series("", index=quantized.index)).fillna(""),
        family=family(quantized.get("format_post", pd.Series("int", index=quantized.index))),
    )
    quantized = quantized[pd.to_numeric(quantized["P_post"], errors="coerce").isin(BITS)]
    # So that the CSV does not depend on the order of the table's rows.
    in_order = [c for c in ("N", "D", "seed_init", "seed_data", "run_id", "P_post") if c in quantized]
    order, parts = {name: i for i, name in enumerate(NAMES)}, []

    def plain_first(group: tuple) -> tuple:
        (method, kind, granularity), _ = group
        return order.get(method, len(order)), method, kind != "int", kind, granularity

    for (method, kind, granularity), group in sorted(quantized.groupby(SETTING), key=plain_first):
        try:
            rows = shared.quantized(group, "kumar_ptq")
        except shared.NoRowsError:  # all of this setting belong elsewhere, say to low-precision training
            continue
        formats = "" if kind == "int" or "format_post" not in rows else "/".join(sorted(set(rows["format_post"])))
        name = " ".join(filter(None, (NAMES.get(method, method), formats)))
        name = f"{name}, {granularity}" if granularity else name
        parts.append(rows.assign(setting=name).sort_values(in_order, kind="stable"))
    if not parts:
        raise InputError("no model trained in 16 bits was quantized to 3 or 4 bits")
    return pd.concat(parts, ignore_index=True)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each width."""
    rows, hidden = data[data["shown"]], data[~data["shown"]]
    widths, looks = sorted(rows["P_post"].unique()), _looks(rows, data.attrs["methods"])
    figure, axes = style.side_by_side(len(widths), 2.9, each=2.0, sharex=True, sharey=True)
    low, high = style.span(rows.loc[rows["gap"] > shared.LOWEST, "gap"])
    for panel, bits in zip(axes, widths, strict=True):
        panel.set_title(style.bits_label(bits))
        for setting, (colour, marker, dashes) in looks.items():
            group = shared.at(rows, P_post=bits, setting=setting)
            points = group["D"] / group["N"], group["gap"], group["gap_se"]
            style.series(panel, *points, low, colour=colour, marker=marker, linestyle=dashes)
    first, size = axes[0], rows["N"].iloc[0]
    style.log_axis_of(first, "x", rows["D"] / size, most=5, text=style.magnitude)
    style.log_axis(first, "y", low, high)
    first.set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    left = f"\nnot shown: {hidden['setting'].nunique()} settings at fewer token counts" if len(hidden) else ""
    figure.supxlabel(f"D/N (tokens per parameter), {style.size_label(size)}{left}", fontsize=8)
    handles = [style.key(name, color=c, marker=m, linestyle=dashes) for name, (c, m, dashes) in looks.items()]
    style.legend(figure, handles, len(widths) + 1, below=(rows["gap"] <= low).any(), handlelength=2.6)
    return figure


def _looks(rows: pd.DataFrame, methods: dict[str, tuple]) -> dict[str, tuple]:
    """A colour and marker a method and family of formats, dashes a granularity; of those beyond DASHES a colour and
    marker more."""
    grain = dict(zip(rows["setting"], rows["granularity_post"], strict=True))
    grains = sorted(set(grain.values()), key=lambda g: (g.startswith("block"), g))
    place = {name: divmod(grains.index(grain[name]), len(DASHES)) for name in methods}
    groups = {name: (how, place[name][0]) for name, how in methods.items()}
    looks = palettes.categories(list(dict.fromkeys(groups.values())))
    return {name: (*looks[group], DASHES[place[name][1]]) for name, group in groups.items()}
