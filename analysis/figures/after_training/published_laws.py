"""delta_PTQ of models that others trained, beside what laws predict for that many parameters and
tokens.

A panel a bit width; a symbol a quantizer with its format and granularity. Lines: the law of Kumar et al. 2024 (arXiv
2411.04330) and that of Ouyang et al. 2024 (arXiv 2411.17691) with the constants of their papers, for each N, and this
project's, which knows formats by their error on normal values. None of them was fitted to these models: they continue
what was seen in others, of other data and often far fewer tokens. Where tokenizers differ all is in nats a byte of
text. Triangles at the lower edge are gaps below the axis, zero or less.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.selection import family
from analysis.fitting.store import published
from analysis.laws.registry import LAWS
from analysis.table import after_training, diverged, numbers

OURS = {"C_T": 59.6, "gamma_D": 0.220, "gamma_N": 0.481, "kappa": 1.065}
"""Of `gaussian`, fitted to models of 24k to 664k parameters: `analysis fit gaussian results/overtraining/runs.csv`."""
NAMES = {"kumar_ptq": "Kumar et al.", "ouyang": "Ouyang et al.", "gaussian": "this project"}
DASHES = {"kumar_ptq": "-", "ouyang": (0, (4, 2)), "gaussian": (0, (1, 1.5))}
MOST_PANELS = 4
WIDER = 3.0  # a single token count gets lines over so many times fewer and more tokens
COLUMNS = ["kind", "law", "setting", "source", "N", "D", "P_post", "sigma2_post", "value", "se"]


def data(frame: pd.DataFrame, fits: dict) -> pd.DataFrame:
    """Gaps and laws, in nats a byte (`attrs["unit"]`) where `bytes_per_token` differs. `fits` are not used.

    Raises:
        InputError: no row is of a model that others trained, or none of these has D and a gap.
    """
    rows = frame[after_training(frame) & ~diverged(frame)]
    rows = rows[rows["source"].notna()] if "source" in rows else rows.iloc[:0]
    rows = rows[rows["D"].notna()] if len(rows) else rows
    if rows.empty:
        raise InputError("no row is of a model that others trained (source) whose tokens D are known")
    for column in ("N", "D", "P_post", "gap", "sigma2_post"):
        numbers(rows, column)
    rows = rows[rows["P_post"] < 16]
    sizes = rows.get("bytes_per_token", pd.Series(np.nan, index=rows.index))
    # Of one tokenizer, on one text, it is one number.
    by_byte = sizes.notna().all() and sizes.round(6).nunique() > 1
    each = sizes if by_byte else pd.Series(1.0, index=rows.index)
    rows = rows.assign(kind="point", setting=_settings(rows), value=rows["gap"] / each, se=rows["gap_se"] / each)
    shared.above_zero(rows, "value", "all gaps are zero or less")
    parts = [rows]
    for (size, bits), group in rows.groupby(["N", "P_post"]):
        low, high = group["D"].min(), group["D"].max()
        tokens = np.geomspace(low / WIDER, high * WIDER, 24) if low == high else np.geomspace(low, high, 40)
        at = {"N": size, "P_post": bits, "sigma2_post": float(group["sigma2_post"].median())}
        scale = float(each[group.index].mean())
        for name in NAMES:
            parts.append(shared.curve(_law(name), "value", D=tokens, **at).assign(law=name, kind="law"))
            parts[-1]["value"] /= scale
    return shared.together(parts, COLUMNS, unit="byte" if by_byte else "token")


def _law(name: str):
    law = published("kumar_ptq" if name == "gaussian" else name)
    return dataclasses.replace(law, law=LAWS[name], params=OURS) if name == "gaussian" else law


def _settings(rows: pd.DataFrame) -> pd.Series:
    """Quantizer, format where it is no integer, granularity."""
    kinds = family(rows["format_post"])
    formats = rows["format_post"].where(kinds != "int", "")
    words = zip(rows["ptq"].str.upper(), formats, rows["granularity_post"].where(kinds == "int", ""), strict=True)
    return pd.Series([" ".join(filter(None, word)) for word in words], index=rows.index)


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for each width, those with the most settings."""
    points, laws = shared.at(data, kind="point"), shared.at(data, kind="law")
    counts = points.groupby("P_post")["setting"].nunique().sort_values(ascending=False, kind="stable")
    widths = sorted(counts.index[:MOST_PANELS])
    shown = points[points["P_post"].isin(widths)]
    looks = palettes.categories(list(dict.fromkeys(shown["setting"])))
    figure, axes = style.side_by_side(len(widths), 3.1, each=1.75, sharex=True, sharey=True)
    drawn = pd.concat([shown["value"], laws.loc[laws["P_post"].isin(widths), "value"]])
    low, high = style.span(drawn[drawn > shared.LOWEST])
    for panel, bits in zip(axes, widths, strict=True):
        panel.set_title(style.bits_label(bits))
        for name, dashes in DASHES.items():
            for _, line in shared.at(laws, P_post=bits, law=name).groupby("N"):
                panel.plot(line["D"] / line["N"], line["value"], color="0.35", linestyle=dashes, linewidth=1.0)
        for setting, (colour, marker) in looks.items():
            group = shared.at(shown, P_post=bits, setting=setting).sort_values(["N", "D"])
            place = group["D"] / group["N"], group["value"], group["se"]
            style.points_above(panel, *place, low, colour=colour, marker=marker, markersize=3.4)
    ratios = laws["D"] / laws["N"]
    style.log_axis(axes[0], "x", *style.span(ratios), most=3, text=style.magnitude)
    style.log_axis(axes[0], "y", low, high)
    axes[0].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ (nats per {data.attrs['unit']})")
    sizes = sorted(points["N"].unique())
    sizes = style.size_label(sizes[0]) if len(sizes) == 1 else f"{len(sizes)} sizes"
    figure.supxlabel(f"D/N (tokens per parameter), {sizes}", fontsize=8)
    handles = [style.key(name, color=c, marker=m, linestyle="none") for name, (c, m) in looks.items()]
    handles += [style.key(NAMES[name], color="0.35", linestyle=dashes) for name, dashes in DASHES.items()]
    style.legend(figure, handles, 4, below=(shown["value"] <= low).any())
    return figure
