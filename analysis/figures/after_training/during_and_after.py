"""What the same bits cost in training and after it as tokens grow. Fig. 18 of Kumar et al. 2024 (arXiv 2411.04330).

Loss against D at one N; a colour and a marker a width. Dashed lines, open points: trained in that many bits and left
so, which costs the same at any D (Eq. 3); solid lines, filled points: quantized to that many after training, which
costs more the more tokens there were (Eqs. 2 and 9) until more tokens only hurt. Black is 16 bits throughout. Left: the
paper's constants, at its smallest size. Then a panel for each training width of the weights that this table quantized
further: points are means over seeds with the standard error of a loss (most of which they share, for all runs see the
same documents), lines its fitted laws, on grey beyond its tokens, with open markers near their ends.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import gap, paper_constants, training_loss
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import GAP_LAW, LOW_LAWS, UNIFIED
from analysis.table import nominal_tokens

PAPER_SIZE, PAPER_TOKENS, PAPER_BITS = 30e6, (1e9, 3e11), (3.0, 4.0, 5.0)
BITS = (3.0, 4.0, 5.0, 6.0)
MOST = 2  # training widths below 16 bits with a panel of their own
BEYOND = 4.0  # how far past the table's tokens its laws are followed
POINTS = 81
COLUMNS = ["kind", "N", "D", "P_w", "P_post", "loss", "loss_se", "panel"]


def data(frame: pd.DataFrame, fits: dict[str, Fit]) -> pd.DataFrame:
    """`fits` may hold an N_eff law, kumar_ptq and kumar_unified for the lines. `attrs`: the `widths` that have a
    look, the most `tokens` of a run, and the limits of the `losses`.

    Raises:
        InputError: no N at which weights were trained in a width to which models trained in 16 bits were quantized.
    """
    trained, after = _rows(frame)
    size, most = trained["N"].iloc[0], trained["D"].max()
    further = after[after["P_w"] < FULL_BITS].groupby("P_w").size().sort_values(ascending=False, kind="stable")
    paper = paper_constants()
    pairs = [(FULL_BITS, np.nan), *(pair for b in PAPER_BITS for pair in ((b, np.nan), (FULL_BITS, b)))]
    parts = [_curves("paper", PAPER_SIZE, PAPER_TOKENS, pairs, paper, paper)]
    source, tokens = shared.first_of(fits, LOW_LAWS, ["P_w"]), style.span(np.append(trained["D"], BEYOND * most))
    for panel in [FULL_BITS, *sorted(further.index[:MOST], reverse=True)]:
        own = shared.at(after, P_w=panel)
        known = trained[trained["P_w"].isin(_trained_in(panel, trained["P_w"]))].assign(P_post=np.nan)
        both = pd.concat([known, own]).assign(loss_se=lambda r: r.get("loss_se", np.nan))
        means = both.groupby(["P_w", "P_post", "D"], dropna=False, as_index=False)[["loss", "loss_se"]].mean()
        parts.append(means.assign(kind="point", panel=panel, N=size))
        law = fits.get(GAP_LAW, fits.get(UNIFIED)) if panel == FULL_BITS else fits.get(UNIFIED)
        if source is not None:
            pairs = [(w, np.nan) for w in sorted(known["P_w"].unique() if panel == FULL_BITS else (panel, FULL_BITS))]
            pairs += [(panel, post) for post in sorted(own["P_post"].unique()) if law is not None]
            after_law = law and shared.constants(law)
            parts.append(_curves("law", size, tokens, pairs, shared.constants(source), after_law))
    losses = pd.concat([trained["loss"], after["loss"]]).agg(["min", "max"])
    widths = sorted({*PAPER_BITS, *(b for b in (*after["P_post"], *trained["P_w"]) if b < FULL_BITS)})
    return shared.together(parts, COLUMNS, widths=widths, tokens=most, losses=tuple(losses))


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs without and with quantization after training at one N, weights alone in low precision: the N with the most
    widths that are found in training and after it (of several, with the most token counts, then the largest)."""
    trained = shared.alone(shared.trained(frame), "P_w")
    after = shared.alone(shared.quantized(frame, UNIFIED), "P_w").assign(D=nominal_tokens)
    after = after[after["P_post"].isin(BITS) & (after["P_post"] < after["P_w"])]
    sizes = [
        (len(common), group["D"].nunique(), size)
        for size, group in after[after["P_w"] >= FULL_BITS].groupby("N")
        if (common := {*group["P_post"]} & {*shared.at(trained, N=size)["P_w"]})
    ]
    if not sizes:
        raise InputError("no N has weights trained in a width to which models trained in 16 bits were quantized")
    return shared.at(trained, N=max(sizes)[2]), shared.at(after, N=max(sizes)[2])


def _trained_in(panel: float, widths: Iterable[float]) -> list[float]:
    """Training widths in a panel: all that can be compared with 16 bits there, else its own and 16."""
    return [w for w in {*widths} if w in (*BITS, FULL_BITS)] if panel == FULL_BITS else [panel, FULL_BITS]


def _curves(kind: str, N: float, tokens: tuple, pairs: list[tuple], of_loss: Mapping, of_gap: Mapping) -> pd.DataFrame:
    """Losses by two laws, of each (P_w, P_post); NaN: served as trained."""
    D, parts = np.geomspace(*tokens, POINTS), []
    for width, post in pairs:
        loss = training_loss(of_loss, N, D, {"P_w": width})
        loss = loss if np.isnan(post) else loss + gap(of_gap, N, D, post, {"P_w": width})
        parts.append(pd.DataFrame({"kind": kind, "N": N, "D": D, "P_w": width, "P_post": post, "loss": loss}))
    return pd.concat(parts)


def draw(data: pd.DataFrame) -> style.Figure:
    """The paper's constants, then a panel for each training width."""
    looks = palettes.looks(data.attrs["widths"]) | {FULL_BITS: palettes.UNQUANTIZED}
    points, paper, law = (shared.at(data, kind=kind) for kind in ("point", "paper", "law"))
    law = law.drop_duplicates().sort_values(["P_post", "P_w", "D"], na_position="first")
    panels = list(dict.fromkeys(points["panel"]))
    columns = 1 + len(panels)
    figure, axes = style.subplots(1, columns, width=min(style.PAGE, 1.0 + 2.0 * columns), height=2.9)
    axes[0, 0].set_title(f"constants of Kumar et al.,\n{style.size_label(PAPER_SIZE)}")
    style.log_axis(axes[0, 0], "x", *PAPER_TOKENS, most=4, text=style.magnitude)
    _lines(axes[0, 0], paper, looks, at=(0.5, 0.94))
    most, (low, high) = data.attrs["tokens"], data.attrs["losses"]
    ends, room = style.span([points["D"].min(), BEYOND * most]), 0.08 * (high - low)
    shown = low - room, high + room
    for panel, bits in zip(axes[0, 1:], panels, strict=True):
        own = shared.at(points, panel=bits)
        name = "16-bit training" if bits == FULL_BITS else f"{bits:g}-bit weights in training"
        panel.set_title(f"{name},\n{style.size_label(own['N'].iloc[0])}")
        for row in own.itertuples():
            served = np.isfinite(row.P_post)
            colour, marker = looks[row.P_post if served else row.P_w]
            edge = style.WHITE_EDGE if served else {"markerfacecolor": "white", "markeredgewidth": 0.8}
            look = {"color": colour, "fmt": marker, "markersize": 3.4, "elinewidth": 0.6, "zorder": 4}
            panel.errorbar(row.D, row.loss, yerr=row.loss_se, **look, **edge)
        trained = law["P_post"].isna() & law["P_w"].isin(_trained_in(bits, law["P_w"]))
        served = law["P_post"].notna() & (law["P_w"] == bits)
        _lines(panel, law[trained | served], looks, at=(0.94,), within=shown)
        if len(law):
            panel.axvspan(most, ends[1], color="0.95", linewidth=0, zorder=0.5)
            style.log_axis(panel, "x", *ends, most=4, text=style.magnitude)
        else:
            style.log_axis_of(panel, "x", points["D"], most=4, text=style.magnitude)
        panel.set_ylim(*shown)
        panel.tick_params(labelleft=panel is axes[0, 1])
    axes[0, 0].set_ylabel("loss (nats per token)")
    figure.supxlabel("D (tokens)", fontsize=8)
    handles = [
        *style.keys(looks, style.bits_label),
        *[Patch(color="0.95", label="beyond the table")] * bool(len(law)),
        style.key("in training", color="0.45", linestyle=style.DASHES, marker="o", markerfacecolor="white"),
        style.key("after training", color="0.45", marker="o"),
    ]
    in_a_row = 6 if columns < 4 else 9
    style.legend(figure, handles, -(-len(handles) // -(-len(handles) // in_a_row)), columnspacing=1.2)
    return figure


def _lines(axes, rows: pd.DataFrame, looks: dict, **marks) -> None:
    for (width, post), line in rows.groupby(["P_w", "P_post"], sort=False, dropna=False):
        served = np.isfinite(post)
        dashes = "-" if served or width == FULL_BITS else style.DASHES
        colour, marker = looks[post if served else width]
        look = {"colour": colour, "marker": marker, "linestyle": dashes, "markersize": 3.2, "zorder": 3}
        style.marked_line(axes, line["D"], line["loss"], **look, **marks)
