"""One D that was asked for, rounded down to batches of several sizes, is one D again in every figure and fit."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.diagnostics.slopes import slopes_by_width
from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.laws import formulas

pytestmark = pytest.mark.usefixtures("few_starts")

ASKED = (4e6, 64e6)
NOMINAL = {3_997_696, 63_995_904}  # whole batches of 8,192 tokens
OTHERS = {3_999_744, 64_000_000}  # whole batches of 2,048
BITS = (3, 4, 5)
TRAINED = ((16, 16, 16), (3, 16, 16), (4, 16, 16), (6, 16, 16))


@pytest.fixture(scope="module")
def rounded(tables):
    """Two seeds, each with a batch of its own; weights in several widths, in training and after it."""
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=ASKED, trained=TRAINED, noise=0.3, post=BITS)
    low = frame[frame["P_w"] < 16]
    more = []
    for bits in BITS:
        rows = low[low["P_w"] > bits]
        share = np.ravel(formulas.effective_share(tables.PARTS, {"P_w": rows["P_w"].to_numpy()}))
        gap = tables.gap_of(rows["N"] * share, rows["D"], bits) * -np.expm1(-0.5 * (rows["P_w"] - bits))
        quantized = {"ptq": "rtn", "granularity_post": "channel", "format_post": f"int{bits}", "P_post": bits}
        more.append(rows.assign(**quantized, gap=gap, gap_se=1e-4, loss=rows["loss"] + gap))
    frame = pd.concat([frame, *more], ignore_index=True)
    batch = np.where(frame["seed_init"] == 0, 2048, 8192)
    tokens = (frame["D"] // batch * batch).astype(int)
    assert set(tokens) == NOMINAL | OTHERS
    return frame.assign(D=tokens, tokens_seen=tokens, batch_tokens=batch)


def several(frame, column, values, **more):
    """The runs once for each value of a column."""
    parts = [frame.assign(**{column: v}, **more, run_id=frame["run_id"] + f"-{v}") for v in values]
    return pd.concat(parts, ignore_index=True)


def by_decay(frame):
    frame = several(frame, "weight_decay", (0.1, 0.3), lr_peak=4e-3)
    return frame.assign(tau=frame["batch_tokens"] / (frame["lr_peak"] * frame["weight_decay"]))


TABLES = {
    "degradation": lambda frame: frame,
    "during_and_after": lambda frame: frame,
    "gap_heatmap": lambda frame: frame,
    "isoloss": lambda frame: frame,
    "part_sweeps": lambda frame: frame,
    "weight_precision": lambda frame: frame,
    "learning_rates": lambda frame: several(frame, "lr_peak", (1e-3, 2e-3, 4e-3)),
    "memory": by_decay,
    "quantizers": lambda frame: several(frame, "granularity_post", ("channel", "block32")),
    # Of one size, to which no law can be fitted: lines are means.
    "schedules": lambda frame: several(
        frame[frame["N"] == 23_600], "schedule", ("cosine", "linear"), lr_peak=4e-3, lr_end=0.0
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_grouped_by_what_was_asked_for(name, rounded):
    numbers = FIGURES[name](TABLES[name](rounded), {}).numbers
    if "kind" in numbers:
        numbers = numbers[~numbers["kind"].isin(["law", "paper"])]
    assert set(numbers["D"]) <= NOMINAL and len(numbers) > 3
    means = numbers[numbers["kind"] == "mean"] if "kind" in numbers else numbers[:0]
    if name in ("degradation", "schedules"):
        assert len(means) and set(means.groupby(["N", "P_post"], dropna=False)["D"].nunique()) == {2}
        keys = [c for c in ("panel", "name", "N", "D", "P_post") if c in means]
        assert not means.duplicated(keys).any()


@pytest.mark.parametrize("name", ["memory", "quantizers"])
def test_mean_lines_have_a_point_for_each_d(name, rounded):
    panel = FIGURES[name](TABLES[name](rounded), {}).figure.axes[0]
    lines = [line for line in panel.get_lines() if line.get_linestyle() != "None" and line.get_zorder() == 3]
    assert [len(line.get_xdata()) for line in lines] == [2, 2]


def test_slopes_are_between_what_was_asked_for(rounded):
    (slope,) = slopes_by_width("kumar_ptq", rounded).together.local
    assert {slope.low_D, slope.high_D} == NOMINAL
    one = rounded[rounded["D"] < 1e7]
    with pytest.raises(InputError, match="D has 1 different value, needs at least 2"):
        slopes_by_width("kumar_ptq", one)


def test_rounding_makes_no_d_to_fit_an_exponent_to(rounded):
    with pytest.raises(InputError, match="chinchilla: D has 2 different values, needs at least 3"):
        analysis.fit("chinchilla", pd.concat([rounded, rounded.assign(N=9e4)]), bootstrap=0)
    fit = analysis.fit("kumar_ptq", rounded, bootstrap=0)
    assert any("D has only 2 different values" in warning for warning in fit.warnings)
    assert any("differ in batch_tokens (2 values)" in warning for warning in fit.warnings)
