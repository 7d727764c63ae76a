"""Figures that only the report has: intervals side by side, minima over D, branches of schedules, bytes against loss.

All others are those of `analysis.figures`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.law import FULL_BITS
from analysis.report.evidence.contrasts import Trunk
from analysis.report.evidence.numbers import Number
from analysis.report.evidence.tables import CLEAR_WIDTHS, Rows, Tables, at_widths, ends, full_precision
from analysis.report.evidence.turning_points import Lowest

GREY = "0.45"
LOOKS = ("-", style.DASHES, ":", "-.")


@style.styled
def forest(panels: Mapping[str, Mapping[str, Number]], references: Mapping[str, float | None]) -> style.Drawn:
    """Numbers with their intervals, a line each, by panel; vertical lines at `references` by name.

    Raises:
        InputError: not one number is known.
    """
    kept = {title: {k: n for k, n in numbers.items() if np.isfinite(n.value)} for title, numbers in panels.items()}
    known = {title: numbers for title, numbers in kept.items() if numbers}
    if not known:
        raise InputError("not one number is known")
    width = min(style.PAGE, style.COLUMN + 2.4 * (len(known) - 1) + 1.0)
    most = max(len(numbers) for numbers in known.values())
    figure, axes = style.subplots(1, len(known), width=width, height=1.0 + 0.27 * most)
    plotted = []
    for panel, (title, numbers) in zip(axes[0], known.items(), strict=True):
        for i, (name, value) in enumerate(references.items()):
            if value is not None and np.isfinite(value):
                panel.axvline(value, color=GREY, linestyle=LOOKS[(i + 1) % 4], linewidth=0.9, label=name, zorder=2)
        for place, (name, n) in enumerate(reversed(numbers.items())):
            if np.isfinite([n.low, n.high]).all():
                panel.plot([n.low, n.high], [place, place], color="black", zorder=3)
            panel.plot(n.value, place, "o", color="black", markerfacecolor="black" if n.sure else "white", zorder=4)
            plotted.append({"panel": title, "name": name, "value": n.value, "low": n.low, "high": n.high})
        _lines(panel, list(reversed(numbers)))
        panel.grid(False, axis="y")
        panel.set_xlabel(symbols(title))
        panel.xaxis.set_major_locator(ticker.MaxNLocator(6 if len(known) == 1 else 4))  # room for "-0.0015"
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _lines(panel: Axes, names: Sequence[str]) -> None:
    """A line a name, from below."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(-0.6, len(names) - 0.4)


def symbols(text: str) -> str:
    """Symbols of the laws as matplotlib sets them."""
    for plain, set_ in (
        ("ln delta_PTQ", r"$\ln\,\delta_\mathrm{PTQ}$"),
        ("delta_PTQ", r"$\delta_\mathrm{PTQ}$"),
        ("gamma_N", r"$\gamma_N$"),
        ("gamma_D", r"$\gamma_D$"),
        ("ln D", r"$\ln D$"),
    ):
        text = text.replace(plain, set_)
    return text


@style.styled
def turning(tables: Tables, rows: Rows, minima: Sequence[Lowest], law: Callable[[Lowest], Number]) -> style.Drawn:
    """Loss after quantization against D, a panel a width, a line an N; rings at the lowest means, bars at the D_crit of
    the fitted laws."""
    frame = ends(full_precision(tables.rows(rows)))
    widths, looks = sorted({low.bits for low in minima}), palettes.looks(sorted({low.N for low in minima}))
    figure, axes = style.side_by_side(len(widths), 3.0, each=2.6)
    plotted = []
    for panel, bits in zip(axes, widths, strict=True):
        panel.set_title(style.bits_label(bits))
        for place, low in enumerate(sorted((low for low in minima if low.bits == bits), key=lambda low: low.N)):
            colour, marker = looks[low.N]
            group = shared.at(frame, N=low.N, P_post=bits)
            means = group.groupby("tokens")["loss"].mean()
            panel.plot(means.index, means, color=colour, zorder=3)
            panel.plot(group["tokens"], group["loss"], marker, color=colour, markersize=2.6, zorder=3)
            panel.plot(low.least, means.min(), "o", markersize=8, markerfacecolor="none", color=colour, zorder=4)
            critical = law(low)
            if critical.sure:
                height = 0.03 + 0.035 * place
                line = {"transform": panel.get_xaxis_transform(), "color": colour, "zorder": 4}
                panel.plot([critical.low, critical.high], [height, height], linewidth=1.6, **line)
                panel.plot(critical.value, height, marker, markersize=4, markerfacecolor="white", **line)
            more = {"N": low.N, "P_post": bits, "D_crit": critical.value}
            plotted += [{**more, "D": tokens, "loss": loss} for tokens, loss in means.items()]
        left, right = style.span(frame["tokens"])
        style.log_axis(panel, "x", left, right * 1.6, most=5, text=style.magnitude)
        panel.margins(y=0.22)
    axes[0].set_ylabel("loss after quantization (nats per token)")
    figure.supxlabel("D (tokens)", fontsize=8)
    ring = style.key("lowest mean", color=GREY, marker="o", markersize=8, markerfacecolor="none", linestyle="none")
    law_key = style.key(
        r"$D_\mathrm{crit}$ of the law, 95%", color=GREY, marker="o", markerfacecolor="white", linewidth=1.6
    )
    style.legend(figure, [*style.keys(looks, style.size_label), ring, law_key], 3)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


@style.styled
def steps(logs: Mapping[str, Number], quadratic: Mapping[str, float], paper: float) -> style.Drawn:
    """The logarithm of the factor a bit, from each width to the next."""
    known = {k: n for k, n in logs.items() if np.isfinite(n.value)}
    if not known:
        raise InputError("no two neighbouring widths have a factor")
    (figure, panel), x = style.single(2.5), np.arange(len(known))
    panel.axhline(
        paper, color=GREY, linestyle=style.DASHES, label=r"exponential, $\gamma_\mathrm{post}$ of Kumar et al."
    )
    expected, look = [quadratic[k] for k in known], {"color": palettes.CATEGORIES[1], "markersize": 14}
    panel.plot(x, expected, "_", **look, label="quadratic in the step")
    values = [n.value for n in known.values()]
    reach = np.nan_to_num([[n.value - n.low, n.high - n.value] for n in known.values()]).T
    panel.errorbar(x, values, yerr=reach, fmt="o", color="black", label="measured, 95%", zorder=4)
    panel.set_xticks(x, [f"{k} bits" for k in known])
    panel.set_xlim(-0.5, len(known) - 0.5)
    panel.set_ylabel("logarithm of the factor of the gap")
    figure.legend(loc="outside upper center", ncols=1)
    return style.Drawn(figure=figure, numbers=pd.DataFrame({"step": list(known), "value": values}))


@style.styled
def against_error(frame: pd.DataFrame, fit: Fit) -> style.Drawn:
    """Gaps over C_T D^gamma_D / N^gamma_N against sigma2 of the format."""
    rows = at_widths(frame, (3, 4, 5, 6))
    rows = rows[rows["gap"] > 0]
    if rows.empty:
        raise InputError("no gaps above zero at 3 to 6 bits")
    p = fit.params
    scale = p["C_T"] * rows["D"] ** p["gamma_D"] / rows["N"] ** p["gamma_N"]
    rows = rows.assign(share=rows["gap"] / scale)
    figure, panel = style.single(2.8)
    grains = dict(list(rows.groupby("granularity_post")))
    for grain, (colour, marker) in palettes.categories([*grains]).items():
        look = {"color": colour, "markersize": 2.6, "alpha": 0.7}
        panel.plot(grains[grain]["sigma2_post"], grains[grain]["share"], marker, label=str(grain), **look)
    grid = np.geomspace(*style.span(rows["sigma2_post"]), 40)
    panel.plot(grid, grid ** p["kappa"], color="black", zorder=5)
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel(r"error of the format on normal values, $\sigma^2$")
    panel.set_ylabel(r"$\delta_\mathrm{PTQ}\,/\,(C_T D^{\gamma_D} N^{-\gamma_N})$")
    figure.legend(loc="outside upper center", ncols=3)
    return style.Drawn(figure=figure, numbers=rows[["N", "D", "P_post", "sigma2_post", "share"]])


@style.styled
def branches(trunks: Sequence[Trunk]) -> style.Drawn:
    """ln delta_PTQ of trunks and of the ends of their decayed branches, a panel an N."""
    bits = CLEAR_WIDTHS[0]
    sizes = sorted({t.N for t in trunks})
    figure, axes = style.side_by_side(len(sizes), 3.0, each=2.4, sharey=True)
    lengths = sorted({d for t in trunks for d in t.decayed["D_d"]})
    looks = palettes.categories(["", *lengths])  # the first colour is that of re-warmed branches
    looks.pop("")
    plotted = []
    for panel, size in zip(axes, sizes, strict=True):
        panel.set(title=style.size_label(size), xscale="log", yscale="log")
        for trunk in (t for t in trunks if size == t.N):
            path = trunk.path.dropna(subset=[bits])
            panel.plot(path["tokens_seen"], np.exp(path[bits]), "o-", color="black", linewidth=0.8, markersize=2.6)
            for length, rows in trunk.decayed.dropna(subset=[bits]).groupby("D_d"):
                colour, marker = looks[length]
                rows = rows.sort_values("D")
                panel.plot(rows["D"], np.exp(rows[bits]), marker, color=colour, linestyle=":", linewidth=0.8)
                plotted += rows[["run_id", "N", "D", "D_b", "D_d", bits]].to_dict("records")
            for rows in trunk.held.values():
                rows = rows.dropna(subset=[bits])
                panel.plot(rows["tokens_seen"], np.exp(rows[bits]), "x--", color=GREY, linewidth=0.7, markersize=3)
            again = trunk.rewarmed.dropna(subset=[bits])
            panel.plot(again["D"], np.exp(again[bits]), "*", color=palettes.CATEGORIES[0], markersize=6, zorder=5)
        style.log_ticks(panel.xaxis, *panel.get_xlim(), most=5, text=style.magnitude)
        style.log_ticks(panel.yaxis, *panel.get_ylim())
    axes[0].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ at {bits:g} bits (nats per token)")
    figure.supxlabel("tokens seen", fontsize=8)
    handles = [
        style.key("constant rate", color="black", marker="o"),
        *style.keys(looks, lambda d: f"decayed over {style.magnitude(d)}", linestyle=":"),
        style.key("lower rate held", color=GREY, marker="x", linestyle="--"),
        style.key("re-warmed", color=palettes.CATEGORIES[0], marker="*", linestyle="none"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


@style.styled
def multiplied(runs: pd.DataFrame) -> style.Drawn:
    """Costs of runs with several parts in low precision (`product`, `added`) against measured ones (`gap_qat`)."""
    figure, panel = style.single(2.9, style.COLUMN)
    ends = style.span(runs["gap_qat"])
    panel.plot(ends, ends, color=GREY, linestyle=style.DASHES, zorder=1, label="as measured")
    panel.plot(runs["gap_qat"], runs["added"], "x", color=GREY, label="single costs added")
    for size, (colour, marker) in palettes.looks(sorted(runs["N"].unique())).items():
        own = runs[runs["N"] == size]
        label = f"multiplied, N = {style.magnitude(size)}"
        panel.plot(own["gap_qat"], own["product"], marker, color=colour, label=label)
    panel.set_xlabel("measured cost of several parts (nats per token)")
    panel.set_ylabel("from single parts (nats per token)")
    figure.legend(loc="outside upper center", ncols=2)
    numbers = runs[["run_id", "N", "D", "P_w", "P_a", "P_kv", "gap_qat", "product", "added"]]
    return style.Drawn(figure=figure, numbers=numbers)


@style.styled
def spread_of_seeds(gaps: pd.DataFrame) -> style.Drawn:
    """Gaps by seed at each of CLEAR_WIDTHS, the N and D with the most runs."""
    size, tokens = gaps.groupby(["N", "tokens"])["run_id"].nunique().idxmax()
    rows = shared.at(gaps, N=size, tokens=tokens)
    (figure, panel), widths = style.single(2.2), sorted(rows["P_post"].unique())
    for place, bits in enumerate(widths):
        group = rows.loc[rows["P_post"] == bits, "gap"].astype(float)
        panel.plot(group, np.full(len(group), place), "|", color="black", markersize=12)
        panel.plot(group.mean(), place, "D", color=palettes.CATEGORIES[1], markersize=4)
    _lines(panel, [style.bits_label(bits) for bits in widths])
    panel.set_xscale("log")
    style.log_ticks(panel.xaxis, *panel.get_xlim(), most=5)
    cell = f"N = {style.magnitude(size)}, D = {style.magnitude(tokens)}"
    panel.set_xlabel(rf"$\delta_\mathrm{{PTQ}}$ (nats per token), {cell}")
    return style.Drawn(figure=figure, numbers=rows[["run_id", "P_post", "gap"]])


@style.styled
def by_bits(rows: pd.DataFrame, scatter: float) -> style.Drawn:
    """The gap against bits, a line an N, with the scatter of losses between seeds as a band."""
    figure, panel = style.single(2.8, style.COLUMN + 0.6)
    losses = (rows["loss"] - rows["gap"]).astype(float)
    panel.axhspan(1e-6, scatter * losses.mean(), color="0.92", linewidth=0, zorder=0.5)
    shown = rows[rows["gap"] > 1e-4]
    for size, (colour, marker) in palettes.looks(sorted(rows["N"].unique())).items():
        means = shared.at(shown, N=size).groupby("P_post")["gap"].mean()
        label = f"N = {style.magnitude(size)}, D = {style.magnitude(shared.at(rows, N=size)['tokens'].iloc[0])}"
        panel.plot(means.index, means, marker=marker, color=colour, label=label)
    panel.set_yscale("log")
    if len(shown):
        style.log_axis(panel, "y", *style.span(shown["gap"]))
    panel.set_xlabel("bits after training")
    panel.set_ylabel(r"$\delta_\mathrm{PTQ}$ (nats per token)")
    figure.legend(loc="outside upper center", ncols=2)
    return style.Drawn(figure=figure, numbers=rows[["N", "D", "P_post", "gap"]])


@style.styled
def bytes_and_loss(models: pd.DataFrame, pairs: pd.DataFrame) -> style.Drawn:
    """Loss against bytes at the least and the most tokens that both kinds of models have."""
    tokens = sorted(pairs["tokens"].unique())
    shown, widths = sorted({tokens[0], tokens[-1]}), sorted(models["bits"].unique())
    looks = palettes.looks([bits for bits in widths if bits < FULL_BITS]) | {FULL_BITS: palettes.UNQUANTIZED}
    dashes = {bits: style.DASHES if bits >= FULL_BITS else "-" for bits in looks}
    figure, axes = style.side_by_side(len(shown), 2.9, each=2.4, sharey=True)
    for panel, D in zip(axes, shown, strict=True):
        panel.set_title(f"D = {style.magnitude(D)} tokens")
        rows = shared.at(models, tokens=D)
        for bits, (colour, marker) in looks.items():
            means = shared.at(rows, bits=bits).groupby("N").agg(bytes=("bytes", "mean"), loss=("loss", "mean"))
            panel.plot(means["bytes"], means["loss"], color=colour, marker=marker, linestyle=dashes[bits])
        style.log_axis(panel, "x", *style.span(rows["bytes"]), most=5, text=style.magnitude)
    axes[0].set_ylabel("loss (nats per token)")
    figure.supxlabel("bytes, with scales and 16-bit embeddings", fontsize=8)
    handles = [style.key(style.bits_label(b), color=c, marker=m, linestyle=dashes[b]) for b, (c, m) in looks.items()]
    style.legend(figure, handles, 4)
    return style.Drawn(figure=figure, numbers=models[["N", "D", "bits", "bytes", "loss"]])
