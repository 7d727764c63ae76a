"""Figures hold the table's numbers and the law's, and nothing else on the machine changes them."""

import itertools
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import palettes
from analysis.errors import InputError
from analysis.figures import style
from analysis.figures.registry import FIGURES

pytestmark = pytest.mark.usefixtures("few_starts")


@pytest.fixture(scope="module")
def study(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 4e6), trained=tables.TRAINED)
    laws = ("kumar_ptq", "kumar_neff_tied")
    return frame, {name: analysis.fit(name, frame, bootstrap=40) for name in laws}


def test_degradation_holds_every_gap_and_the_law(study, tables):
    frame, found = study
    drawn = FIGURES["degradation"](frame, found)
    assert len(drawn.figure.axes) == 4
    numbers = drawn.numbers
    points = numbers[(numbers["panel"] == "gap") & (numbers["kind"] == "point")]
    rows = frame[frame["ptq"].notna()]
    np.testing.assert_array_equal(np.sort(points["value"]), np.sort(rows["gap"]))
    assert points["fitted"].sum() == found["kumar_ptq"].rows
    means = numbers[(numbers["panel"] == "loss") & (numbers["kind"] == "mean")]
    four = means.query("N == 23600 and D == 1e6 and P_post == 4")["value"].item()
    assert four == rows.query("N == 23600 and D == 1e6 and P_post == 4")["loss"].mean()
    plain = means[means["P_post"].isna()].query("N == 82900 and D == 4e6")["value"].item()
    full = frame[frame["ptq"].isna()].query("N == 82900 and D == 4e6 and P_w == 16 and P_a == 16 and P_kv == 16")
    assert plain == full["loss"].mean()
    law = numbers[numbers["kind"] == "law"]
    np.testing.assert_allclose(law["value"], found["kumar_ptq"].predict(law))
    assert set(law["P_post"]) == {2, 3, 4, 5, 6, 7, 8}


def test_degradation_without_a_fit_and_with_gaps_below_the_axis(tables):
    frame = tables.simulate(sizes=(23_600,), seeds=1)
    frame.loc[frame["P_post"] == 8, "gap"] = -0.001
    drawn = FIGURES["degradation"](frame, {})
    marks = [line for line in drawn.figure.axes[1].lines if line.get_marker() == "v"]
    assert sum(len(line.get_xdata()) for line in marks) == (frame["gap"] <= 1e-4).sum() >= 4
    at_edge = {line.get_marker() for line in drawn.figure.axes[1].lines if {*line.get_ydata()} == {style.EDGE}}
    assert at_edge >= {"v", palettes.looks(sorted(frame["P_post"].dropna().unique()))[8][1]}  # which width it is
    assert "law" not in set(drawn.numbers["kind"])
    low, high = drawn.figure.axes[1].get_ylim()
    shown = frame.loc[frame["gap"] > 1e-4, "gap"]
    assert 0 < low < shown.min() < shown.max() < high


def test_weight_precision_shows_weights_alone(study):
    frame, found = study
    drawn = FIGURES["weight_precision"](frame, found)
    points = drawn.numbers[drawn.numbers["kind"] == "point"]
    rows = frame[frame["ptq"].isna() & (frame["P_a"] == 16) & (frame["P_kv"] == 16)]
    np.testing.assert_array_equal(np.sort(points["loss"]), np.sort(rows["loss"]))
    law = drawn.numbers[drawn.numbers["kind"] == "law"].assign(P_a=16, P_kv=16)
    np.testing.assert_allclose(law["loss"], found["kumar_neff_tied"].predict(law))
    assert [axes.get_title() for axes in drawn.figure.axes] == ["D = 1M tokens", "D = 4M tokens"]


def test_weight_precision_takes_a_table_without_other_parts(tables):
    frame = tables.simulate(seeds=1, post=(), trained=tables.TRAINED[:5]).drop(columns=["P_a", "P_kv"])
    assert len(FIGURES["weight_precision"](frame, {}).numbers) == 3 * 4 * 5


def test_tables_with_nothing_to_show_are_one_line(tables):
    plain = tables.simulate(post=())
    with pytest.raises(InputError, match="no row is quantized after training"):
        FIGURES["degradation"](plain, {})
    with pytest.raises(InputError, match="no token count has weights trained in two widths"):
        FIGURES["weight_precision"](plain, {})
    with pytest.raises(InputError, match="no column P_w"):
        FIGURES["weight_precision"](plain.drop(columns="P_w"), {})
    broken = tables.simulate()
    broken.loc[broken["P_post"] == 4, "gap"] = np.nan
    with pytest.raises(InputError, match="gap: row 3 holds nan"):
        FIGURES["degradation"](broken, {})


def test_saved_twice_is_the_same_and_global_style_stays(study, tmp_path):
    frame, found = study
    before = dict(matplotlib.rcParams)
    first = style.save(FIGURES["weight_precision"](frame, found), tmp_path / "a", "weights")
    again = style.save(FIGURES["weight_precision"](frame, found), tmp_path / "b", "weights")
    assert [p.name for p in first] == ["weights.pdf", "weights.png", "weights.csv"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    assert dict(matplotlib.rcParams) == before
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert len(pd.read_csv(first[2])) > 40


def test_magnitudes():
    cases = {
        23_600: "24k",
        201_000: "201k",
        1e6: "1M",
        1.64e9: "1.6B",
        64e6: "64M",
        2.6e12: "2.6T",
        500: "500",
        0.5: "0.5",
    }
    assert [style.magnitude(v) for v in cases] == list(cases.values())
    assert style.magnitude(999_600) == "1M"


LIMITS = [(19, 90), (70, 3200), (1e-4, 2), (3, 3.9), (78e3, 213e3), (2.02e7, 2.65e7), (93, 100), (1e24, 1e47)]


@pytest.mark.parametrize(("low", "high"), LIMITS)
def test_log_ticks_are_some_and_few_inside_and_apart(low, high):
    figure, axes = style.subplots(1, 1, width=2.6, height=2)
    style.log_axis(axes[0, 0], "x", low, high, most=5, text=style.magnitude)
    figure.draw_without_rendering()
    ticks = [t for t in axes[0, 0].xaxis.get_major_ticks() if low <= t.get_loc() <= high]
    assert 3 <= len(ticks) == len({t.label1.get_text() for t in ticks}) <= 5
    boxes = [t.label1.get_window_extent() for t in ticks] if high < 1e20 else []
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_ticks_of_powers_of_ten_are_all_or_evenly_some():
    _, axes = style.subplots(1, 1, width=3, height=2)
    style.log_axis(axes[0, 0], "y", 5e23, 2e47, most=5)
    np.testing.assert_allclose(np.log10(axes[0, 0].yaxis.get_majorticklocs()), [25, 30, 35, 40, 45])
    style.log_axis(axes[0, 0], "y", 1e8, 1e13, most=5)
    np.testing.assert_allclose(np.log10(axes[0, 0].yaxis.get_majorticklocs()), range(8, 14))


def test_one_value_alone_is_the_tick_of_its_axis():
    _, axes = style.subplots(1, 1, width=3, height=2)
    style.log_axis_of(axes[0, 0], "x", pd.Series([96.4, 96.4]), text=style.magnitude)
    assert axes[0, 0].xaxis.get_majorticklocs().tolist() == [96.4]
    assert axes[0, 0].get_xlim()[0] < 96.4 < axes[0, 0].get_xlim()[1]


def test_the_lowest_panel_of_each_column_has_the_labels_of_its_axis():
    figure, axes = style.wrapped(4, 3, base=(1, 1), each=(2, 2))
    figure.draw_without_rendering()
    labelled = [any(t.label1.get_visible() for t in panel.xaxis.get_major_ticks()) for panel in axes]
    assert labelled == [False, True, True, True]


def test_losses_and_gaps_beyond_an_axis_are_marked_and_said_to_be(study):
    frame, found = study
    drawn = FIGURES["degradation"](frame, found).figure
    top = drawn.axes[0].get_ylim()[1]
    losses = frame[(frame["P_post"] == 2) & (frame["N"] == 23_600)]["loss"]
    marks = [line for line in drawn.axes[0].lines if line.get_marker() == "^"]
    assert sum(len(line.get_xdata()) for line in marks) == (losses > top).sum()
    said = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert ("above the axis" in said) == bool(marks)


def test_learning_rates_are_compared_where_there_are_three(tables, tmp_path):
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 4e6))
    at_rates = [
        frame[frame["N"] == 23_600].assign(lr_peak=rate, run_id=lambda r, rate=rate: r["run_id"] + f"-{rate:g}")
        for rate in (1e-3, 2e-3, 4e-3)
    ]
    mixed = pd.concat([*at_rates, frame[frame["N"] == 82_900].assign(lr_peak=1e-3)], ignore_index=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = FIGURES["learning_rates"](mixed, {})
        drawn.figure.savefig(tmp_path / "figure.png", dpi=40)
    assert set(drawn.numbers["N"]) == {23_600} and set(drawn.numbers["lr_peak"]) == {1e-3, 2e-3, 4e-3}
    gaps = mixed[mixed["P_post"] == 3].set_index("run_id")["gap"]
    shown = drawn.numbers.dropna(subset="gap").set_index("run_id")["gap"]
    assert len(shown) and shown.to_dict() == gaps[shown.index].to_dict()
    with pytest.raises(InputError, match="no N and D was trained at 3 peak learning rates"):
        FIGURES["learning_rates"](mixed[mixed["lr_peak"] < 4e-3], {})


def test_memory_is_drawn_by_what_was_varied(tables, tmp_path):
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 4e6))
    small = frame[frame["N"] == 23_600].assign(tau=1e6, weight_decay=0.1, batch_tokens=2048)
    without = small.assign(weight_decay=0.0, tau=np.nan, gap=small["gap"] * 2)
    branches = small.assign(weight_decay=0.3, parent_id="trunk")
    large = frame[frame["N"] == 82_900].assign(tau=1e6, weight_decay=0.1, batch_tokens=2048)
    batches = small.assign(batch_tokens=512, tau=0.25e6, D=small["D"] - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_decay = FIGURES["memory"](pd.concat([small, without, branches, large], ignore_index=True), {})
        by_batch = FIGURES["memory"](pd.concat([small, batches, large], ignore_index=True), {})
        by_decay.figure.savefig(tmp_path / "figure.png", dpi=40)
    assert set(by_decay.numbers["N"]) == set(by_batch.numbers["N"]) == {23_600}
    names = [t.get_text() for t in by_batch.figure.legends[0].get_texts()]
    assert names == ["batch of 512 tokens", "batch of 2,048 tokens"]
    lines = [line for line in by_batch.figure.axes[1].get_lines() if line.get_linestyle() == "-"]
    assert [list(np.round(line.get_xdata(), 3)) for line in lines] == [[4, 16], [1, 4]]  # D / tau
    assert [len(line.get_xdata()) for line in by_decay.figure.axes[1].get_lines()[1::2]] == [0, 2]  # no tau without it
    with pytest.raises(InputError, match="no N was trained with two weight decays or two batches"):
        FIGURES["memory"](small, {})
