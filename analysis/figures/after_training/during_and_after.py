"""What the same bits cost in training and after it as tokens grow. Fig. 18 of Kumar et al. 2024 (arXiv 2411.04330).

Loss against D at one N. Dashed: trained in that many bits and left so, which costs the same at any D (Eq. 3); solid:
quantized to that many after training, which costs more the more tokens there were (Eqs. 2 and 9) until more tokens only
hurt. Black is 16 bits throughout. Left: the paper's constants, at its smallest size. Then a panel for each training
width of the weights that this table quantized further: points are means over seeds with the standard error of a loss
(most of which they share, for all runs see the same documents), lines its fitted laws, on grey beyond its tokens.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.fitting.fit import Fit
from analysis.laws.formulas import gap, paper_constants, training_loss
from analysis.laws.law import FULL_BITS
from analysis.planning.choose_law import LOW_LAWS, UNIFIED

PAPER_SIZE, PAPER_TOKENS, PAPER_BITS = 30e6, (1e9, 3e11), (3.0, 4.0, 5.0)
BITS = (3.0, 4.0, 5.0, 6.0)
MOST = 2  # training widths below 16 bits with a panel of their own
BEYOND = 4.0  # how far past the table's tokens its laws are followed
POINTS = 81


@style.styled
def draw(frame: pd.DataFrame, fits: dict[str, Fit]) -> style.Drawn:
    """The figure and its numbers. `fits` may hold an N_eff law, kumar_ptq and kumar_unified for the lines.

    Raises:
        InputError: no N at which weights were trained in a width to which models trained in 16 bits were quantized.
    """
    trained, after = _rows(frame)
    size = trained["N"].iloc[0]
    posts = sorted(after["P_post"].unique())
    further = after[after["P_w"] < FULL_BITS].groupby("P_w").size().sort_values(ascending=False, kind="stable")
    panels = [FULL_BITS, *sorted(further.index[:MOST], reverse=True)]
    widths = sorted({*PAPER_BITS, *posts, *(b for b in trained["P_w"] if b < FULL_BITS)})
    colours = dict(zip(widths, style.shades(len(widths)), strict=True)) | {FULL_BITS: "black"}
    columns = 1 + len(panels)
    figure, axes = style.canvas(1, columns, width=min(style.PAGE, 1.0 + 2.0 * columns), height=2.9)
    plotted = _paper(axes[0, 0], colours)
    shared_y = (axes[0, 1], _limits(trained, after))
    for panel, bits in zip(axes[0, 1:], panels, strict=True):
        name = "16-bit training" if bits == FULL_BITS else f"{bits:g}-bit weights in training"
        panel.set_title(f"{name},\nN = {style.magnitude(size)}")
        tokens = style.span(np.append(trained["D"], BEYOND * trained["D"].max()))
        plotted += _measured(panel, bits, trained, after, colours)
        plotted += _fitted(panel, bits, size, tokens, trained, after, fits, colours)
        panel.axvspan(trained["D"].max(), tokens[1], color="0.95", linewidth=0, zorder=0.5)
        _axes(panel, tokens)
        panel.set_ylim(*shared_y[1])
        panel.tick_params(labelleft=panel is shared_y[0])
    axes[0, 0].set_ylabel("loss (nats per token)")
    figure.supxlabel("D (tokens)", fontsize=8)
    handles = [Line2D([], [], color=c, label=f"{b:g} bits") for b, c in colours.items()]
    handles += [
        Patch(color="0.95", label="beyond the table"),
        Line2D([], [], color="0.45", linestyle=style.DASHES, marker="s", markersize=3, label="in training"),
        Line2D([], [], color="0.45", marker="o", label="after training"),
    ]
    most = 6 if columns < 4 else 9
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), most), columnspacing=1.2)
    return style.Drawn(figure=figure, numbers=pd.DataFrame(plotted))


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs without and with quantization after training at one N, weights alone in low precision: the N with the most
    widths that are found in training and after it (of several, with the most token counts, then the largest)."""
    trained = shared.alone(shared.trained(frame), "P_w")
    after = shared.alone(shared.quantized(frame, UNIFIED), "P_w")
    after = after[after["P_post"].isin(BITS) & (after["P_post"] < after["P_w"])]
    best = None
    for size, group in after[after["P_w"] >= FULL_BITS].groupby("N"):
        common = set(group["P_post"]) & set(trained.loc[trained["N"] == size, "P_w"])
        if common:
            best = max([best, (len(common), group["D"].nunique(), size)], key=lambda found: found or ())
    if best is None:
        raise InputError("no N has weights trained in a width to which models trained in 16 bits were quantized")
    return trained[trained["N"] == best[2]], after[after["N"] == best[2]]


def _paper(axes, colours: dict) -> list[dict]:
    constants, grid = paper_constants(), np.geomspace(*PAPER_TOKENS, POINTS)
    axes.set_title(f"constants of Kumar et al.,\nN = {style.magnitude(PAPER_SIZE)}")
    plain = training_loss(constants, PAPER_SIZE, grid)
    lines = [(FULL_BITS, np.nan, plain)]
    for bits in PAPER_BITS:
        lines += [
            (bits, np.nan, training_loss(constants, PAPER_SIZE, grid, {"P_w": bits})),
            (FULL_BITS, bits, plain + gap(constants, PAPER_SIZE, grid, bits)),
        ]
    _axes(axes, PAPER_TOKENS)
    return _curves(axes, "paper", PAPER_SIZE, grid, lines, colours)


def _fitted(axes, bits, size, tokens, trained, after, fits: dict[str, Fit], colours: dict) -> list[dict]:
    """Lines of this table's laws, as far as `fits` has them, to the same combinations as the points."""
    grid = np.geomspace(*tokens, POINTS)
    source = next((fits[n] for n in LOW_LAWS if n in fits and "P_w" in fits[n].law.variables), None)
    if source is None:
        return []
    loss = shared.constants(source)
    lines = [(w, np.nan, training_loss(loss, size, grid, {"P_w": w})) for w in _trained_in(bits, trained)]
    law = fits.get("kumar_ptq", fits.get(UNIFIED)) if bits == FULL_BITS else fits.get(UNIFIED)
    if law is not None:
        base = training_loss(loss, size, grid, {"P_w": bits})
        for post in sorted(after.loc[after["P_w"] == bits, "P_post"].unique()):
            lines.append((bits, post, base + gap(shared.constants(law), size, grid, post, {"P_w": bits})))
    return _curves(axes, "law", size, grid, lines, colours)


def _trained_in(bits: float, trained: pd.DataFrame) -> list[float]:
    """Training widths in the panel of `bits`: all that can be compared with 16 bits there, else itself and 16."""
    found = sorted(trained["P_w"].unique())
    return [w for w in found if w in (*BITS, FULL_BITS)] if bits == FULL_BITS else [bits, FULL_BITS]


def _curves(axes, kind: str, size: float, grid, lines: list[tuple], colours: dict) -> list[dict]:
    plotted = []
    for width, post, value in lines:
        quantized = np.isfinite(post)
        look = {"linestyle": "-" if quantized or width == FULL_BITS else style.DASHES}
        axes.plot(grid, value, color=colours[post if quantized else width], zorder=3, **look)
        columns = {"kind": kind, "N": size, "D": grid, "P_w": width, "P_post": post, "loss": value}
        plotted += pd.DataFrame(columns).to_dict("records")
    return plotted


def _measured(axes, bits: float, trained, after, colours: dict) -> list[dict]:
    shown = trained[trained["P_w"].isin(_trained_in(bits, trained))].assign(P_post=np.nan)
    means = pd.concat([shown, after[after["P_w"] == bits]])
    means = means.assign(loss_se=means.get("loss_se", np.nan))
    means = means.groupby(["P_w", "P_post", "D"], dropna=False, as_index=False)[["loss", "loss_se"]].mean()
    for row in means.itertuples():
        quantized = np.isfinite(row.P_post)
        colour = colours[row.P_post if quantized else row.P_w]
        look = {"fmt": "o" if quantized else "s", "markersize": 3.2, "markeredgecolor": "white", "elinewidth": 0.6}
        axes.errorbar(row.D, row.loss, yerr=row.loss_se, color=colour, markeredgewidth=0.4, zorder=4, **look)
    return means.assign(kind="point", panel=bits, N=trained["N"].iloc[0]).to_dict("records")


def _limits(trained: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float]:
    losses = pd.concat([trained["loss"], after["loss"]])
    room = 0.08 * (losses.max() - losses.min())
    return losses.min() - room, losses.max() + room


def _axes(axes, tokens: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*tokens)
    style.log_ticks(axes.xaxis, *tokens, most=4, text=style.magnitude)
