"""Tokens against decay: the contrasts of the schedule study, each for one trunk.

A trunk is a run at a constant learning rate, evaluated on its way. From its snapshots branch

    decayed     schedule wsd, D_d = decay_tokens to the end: D_b = D - D_d tokens before the decay
    held        schedule constant at a lower rate
    re-warmed   schedule constant, from the end of a decayed branch
    averaged    schedule average: the mean of the weights over D_d tokens at the trunk's rate

and the outcome is ln delta_PTQ at 3 and 4 bits. A contrast of a trunk is the mean over both widths; trunks are the
units whose scatter makes intervals. Between its evaluations a trunk's ln delta is a straight line in ln D (or, at equal
loss, in the loss); beyond them it is not continued by more than a twentieth.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from analysis.report.evidence.numbers import finite, log_slope
from analysis.report.evidence.tables import CLEAR_WIDTHS, LOG_GAP_BELOW, full_precision

BEYOND = 1.05
MEMORIES = 2.0  # tokens over tau beyond which the optimizer has forgotten its start
LOWER = 0.99  # of the trunk's rate: what is held below it
NAMES = {
    "K1": "slope of ln delta in ln D on the trunk",
    "K1 late": "the same beyond 2 tau",
    "K2": "slope in ln D_b at fixed D_d",
    "K3": "decayed less trunk at equal tokens",
    "K4": "slope in ln D with D_d in proportion to D_b",
    "K5": "re-warmed less decayed",
    "K6": "decayed less trunk at equal loss",
    "K7": "slope in ln D while a lower rate is held",
    "A2": "slope in ln D_b of means over the same tokens",
    "A3": "mean of the weights less trunk at equal tokens",
    "A6": "mean of the weights less trunk at equal loss",
    "AD": "mean of the weights less decayed, over the same tokens",
    "AL": "the same in loss before quantization (nats)",
}
"""The contrasts, each fixed before its runs: K first, A when means of the weights were added to the study."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk:
    """One trunk with its branches: `path`, `held` {branch: rows} as (tokens, loss, {bits: ln delta}), `decayed`,
    `averaged` and `rewarmed` at their ends."""

    run_id: str
    N: float
    lr: float
    weight_decay: float
    tau: float
    path: pd.DataFrame
    decayed: pd.DataFrame
    held: Mapping[str, pd.DataFrame]
    rewarmed: pd.DataFrame
    averaged: pd.DataFrame


def trunks(frame: pd.DataFrame) -> list[Trunk]:
    """All trunks of a table of rows of one quantizer, models trained in 16 bits."""
    points = outcomes(frame)
    runs = points.drop_duplicates("run_id").set_index("run_id")
    roots = runs[runs["parent_id"].isna() & (runs["schedule"] == "constant")]
    return [_trunk(run_id, root, runs, points) for run_id, root in roots.iterrows()]


def outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """A row an evaluated model: its run's settings, `tokens_seen`, `loss` before quantization, and a column with
    ln delta for each of CLEAR_WIDTHS (NaN where a gap is zero or less, or has saturated)."""
    frame = full_precision(frame)
    base = frame[frame["ptq"].isna()]
    after = frame[frame["P_post"].isin(CLEAR_WIDTHS) & (frame["gap"] > 0) & (frame["gap"] < LOG_GAP_BELOW)]
    logs = after.assign(log=np.log(after["gap"].astype(float)))
    wide = logs.pivot_table(index=["run_id", "tokens_seen"], columns="P_post", values="log").reset_index()
    columns = ["run_id", "parent_id", "N", "D", "tokens_seen", "loss", "schedule", "lr_peak", "lr_end", "decay_tokens"]
    points = base[[*columns, "weight_decay", "tau", "seed_init"]].merge(wide, on=["run_id", "tokens_seen"], how="left")
    for bits in CLEAR_WIDTHS:
        if bits not in points:
            points[bits] = np.nan
    return points


def _trunk(run_id: str, root: pd.Series, runs: pd.DataFrame, points: pd.DataFrame) -> Trunk:
    children = runs[runs["parent_id"] == run_id]
    decays, means = (children[children["schedule"] == kind] for kind in ("wsd", "average"))
    lower = children[(children["schedule"] == "constant") & (children["lr_peak"] < LOWER * root["lr_peak"])]
    again = runs[runs["parent_id"].isin(decays.index) & (runs["schedule"] == "constant")]
    ends = points[points["tokens_seen"] >= points["D"]].set_index("run_id", drop=False)
    ends = ends.assign(D_d=ends["decay_tokens"], D_b=ends["D"] - ends["decay_tokens"])
    return Trunk(
        run_id=run_id,
        N=root["N"],
        lr=root["lr_peak"],
        weight_decay=root["weight_decay"],
        tau=root["tau"] if root["tau"] == root["tau"] else math.inf,
        path=points[points["run_id"] == run_id].sort_values("tokens_seen"),
        decayed=ends.loc[ends.index.intersection(decays.index)],
        held={child: points[points["run_id"] == child].sort_values("tokens_seen") for child in lower.index},
        rewarmed=ends.loc[ends.index.intersection(again.index)],
        averaged=ends.loc[ends.index.intersection(means.index)],
    )


def contrasts(trunk: Trunk) -> dict[str, float]:
    """Each contrast of `NAMES`, NaN where the trunk does not determine it."""
    widths = [dict(_of_width(trunk, bits)) for bits in CLEAR_WIDTHS]
    return {name: _average([of_width[name] for of_width in widths]) for name in NAMES}


def _average(values) -> float:
    known = finite(list(values))
    return float(known.mean()) if len(known) else math.nan


def _of_width(trunk: Trunk, bits: float) -> Iterator[tuple[str, float]]:
    path = trunk.path[["tokens_seen", "loss", bits]].dropna()
    ends = trunk.decayed.dropna(subset=[bits])
    yield "K1", log_slope(path, "tokens_seen", bits)
    yield "K1 late", log_slope(path[path["tokens_seen"] > MEMORIES * trunk.tau], "tokens_seen", bits)
    yield from zip(("K2", "K3", "K6"), _of_branches(path, ends, bits), strict=True)
    yield "K4", log_slope(ends.assign(share=(ends["D_d"] / ends["D_b"]).astype(float).round(2)), "D", bits, "share")
    again = trunk.rewarmed.set_index("parent_id")[bits]
    yield "K5", _average(value - ends.loc[parent, bits] for parent, value in again.items() if parent in ends.index)
    yield "K7", _average(log_slope(rows, "tokens_seen", bits) for rows in trunk.held.values())
    means = trunk.averaged.dropna(subset=[bits])
    yield from zip(("A2", "A3", "A6"), _of_branches(path, means, bits), strict=True)
    less = means.set_index(["D", "D_d"])[["loss", bits]] - ends.set_index(["D", "D_d"])[["loss", bits]]
    yield "AD", _average(less[bits])
    yield "AL", _average(less["loss"])


def _of_branches(path: pd.DataFrame, ends: pd.DataFrame, bits: float) -> tuple[float, float, float]:
    """The slope in ln D_b at fixed D_d, and the branches less their trunk at equal tokens and at equal loss."""
    return (
        log_slope(ends, "D_b", bits, "D_d"),
        _average(r[bits] - _at(path, r["D"], bits) for _, r in ends.iterrows()),
        _average(r[bits] - _at_loss(path, r["loss"], bits) for _, r in ends.iterrows()),
    )


def _at(path: pd.DataFrame, tokens: float, bits: float) -> float:
    """ln delta of the trunk at that many tokens."""
    seen = path["tokens_seen"].to_numpy(float)
    if not len(seen) or not seen[0] / BEYOND <= tokens <= seen[-1] * BEYOND:
        return math.nan
    return float(np.interp(math.log(tokens), np.log(seen), path[bits].to_numpy(float)))


def _at_loss(path: pd.DataFrame, loss: float, bits: float) -> float:
    """ln delta of the trunk where it has that loss; NaN where it never has."""
    ordered = path.sort_values("loss")
    known = ordered["loss"].to_numpy(float)
    if len(known) < 2 or not known[0] <= loss <= known[-1]:
        return math.nan
    return float(np.interp(loss, known, ordered[bits].to_numpy(float)))
