"""Which peak learning rate is best at each N and D, and how it moves what quantization costs.

Loss, and delta_PTQ at 3 bits by the quantizer and granularity that the gap law is fitted to, against the peak rate: a
line an N and D with at least three rates, through means over seeds.
"""

import pandas as pd
from matplotlib.lines import Line2D

from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style

LAW = "kumar_ptq"
BITS = 3.0
LEAST = 3  # rates


@style.styled
def draw(frame: pd.DataFrame, fits: dict) -> style.Drawn:
    """The figure and its numbers. `fits` is not used.

    Raises:
        InputError: no N and D was trained at three peak learning rates.
    """
    base, gaps = _rows(frame)
    looks = style.looks(sorted(set(zip(base["N"], base["D"], strict=True))))
    figure, axes = style.canvas(1, 2, width=5.8, height=2.9)
    for panel, (rows, column) in zip(axes[0], ((base, "loss"), (gaps, "gap")), strict=True):
        for (size, tokens), (colour, marker) in looks.items():
            group = rows[(rows["N"] == size) & (rows["D"] == tokens)]
            means = group.groupby("lr_peak")[column].mean()
            panel.plot(means.index, means, marker=marker, color=colour)
        panel.set_xscale("log")
        low, high = style.span(base["lr_peak"])
        panel.set_xlim(low, high)
        style.log_ticks(panel.xaxis, low, high, most=5)
    axes[0, 1].set_yscale("log")
    if len(gaps):
        style.log_ticks(axes[0, 1].yaxis, *axes[0, 1].get_ylim())
    axes[0, 0].set_ylabel("loss (nats per token)")
    axes[0, 1].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ at {BITS:g} bits (nats per token)")
    figure.supxlabel("peak learning rate", fontsize=8)
    handles = [
        Line2D([], [], color=c, marker=m, label=f"{style.magnitude(n)}, {style.magnitude(d)} tokens")
        for (n, d), (c, m) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    numbers = gaps.set_index("run_id")["gap"].rename("gap")
    return style.Drawn(figure=figure, numbers=base[["run_id", "N", "D", "lr_peak", "loss"]].join(numbers, on="run_id"))


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Models in 16 bits at N and D with several rates, and their gaps at BITS."""
    if "lr_peak" not in frame or "run_id" not in frame:
        raise InputError("the table has no columns lr_peak and run_id")
    runs = shared.from_the_start(shared.trained(frame))
    runs = runs[~shared.low(runs)]
    base = runs[runs.groupby(["N", "D"])["lr_peak"].transform("nunique") >= LEAST]
    if base.empty:
        raise InputError(f"no N and D was trained at {LEAST} peak learning rates")
    gaps = shared.quantized(frame, LAW)
    gaps = gaps[gaps["run_id"].isin(base["run_id"]) & (gaps["P_post"] == BITS) & (gaps["gap"] > 0)]
    return base, gaps
