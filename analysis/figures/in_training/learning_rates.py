"""Which peak learning rate is best at each N and D, and how it moves what quantization costs.

Loss, and delta_PTQ at 3 bits by the quantizer and granularity that the gap law is fitted to, against the peak rate: a
line an N and D with at least three rates, through means over seeds.
"""

import pandas as pd

from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style

LAW = "kumar_ptq"
BITS = 3.0
LEAST = 3  # rates


def data(frame: pd.DataFrame, fits: dict) -> pd.DataFrame:
    """Models in 16 bits at N and D with several rates, and their gaps at BITS; `fits` are not used.

    Raises:
        InputError: no N and D was trained at three peak learning rates.
    """
    if "lr_peak" not in frame or "run_id" not in frame:
        raise InputError("the table has no columns lr_peak and run_id")
    runs = shared.from_the_start(shared.trained(frame))
    runs = runs[~shared.low(runs)]
    base = runs[runs.groupby(["N", "D"])["lr_peak"].transform("nunique") >= LEAST]
    if base.empty:
        raise InputError(f"no N and D was trained at {LEAST} peak learning rates")
    gaps = shared.at(shared.quantized(frame, LAW), P_post=BITS)
    gaps = gaps[gaps["run_id"].isin(base["run_id"]) & (gaps["gap"] > 0)]
    return base[["run_id", "N", "D", "lr_peak", "loss"]].join(gaps.set_index("run_id")["gap"], on="run_id")


def draw(data: pd.DataFrame) -> style.Figure:
    """A panel for the loss and one for the gap."""
    looks = palettes.looks(sorted(set(zip(data["N"], data["D"], strict=True))))
    figure, axes = style.subplots(1, 2, width=5.8, height=2.9)
    for panel, column in zip(axes[0], ("loss", "gap"), strict=True):
        for (size, tokens), (colour, marker) in looks.items():
            means = shared.at(data, N=size, D=tokens).dropna(subset=column).groupby("lr_peak")[column].mean()
            panel.plot(means.index, means, marker=marker, color=colour)
        style.log_axis_of(panel, "x", data["lr_peak"], most=5)
    axes[0, 1].set_yscale("log")
    if data["gap"].notna().any():
        style.log_ticks(axes[0, 1].yaxis, *axes[0, 1].get_ylim())
    axes[0, 0].set_ylabel("loss (nats per token)")
    axes[0, 1].set_ylabel(rf"$\delta_\mathrm{{PTQ}}$ at {BITS:g} bits (nats per token)")
    figure.supxlabel("peak learning rate", fontsize=8)
    handles = style.keys(looks, lambda cell: f"{style.size_label(cell[0])}, {style.magnitude(cell[1])} tokens")
    style.legend(figure, handles, 4)
    return figure
