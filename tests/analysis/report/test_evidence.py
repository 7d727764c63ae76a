"""Means, filters and rows of the report on planted truths: a sign that changes with N, a term in P x N, texts that a
filter cuts differently, sizes that scatter about a law."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.fitting import estimate
from analysis.report import sensitivity
from analysis.report.claims import bits, controls, tokens
from analysis.report.evidence.numbers import BySize, Number, geometric_mean_or_by_size, mean_or_by_size
from analysis.report.evidence.other_rows import changed
from analysis.report.evidence.rules import NO, OPEN, YES, Measured, Rule, above, published
from analysis.report.evidence.studies import STUDIES
from analysis.report.evidence.tables import Rows, Tables, at_common_cells, checked
from analysis.report.verdicts import NOT_DECIDED
from analysis.validation import simulated_studies
from analysis.validation.simulator import Truth

SIZES = (24e3, 83e3, 201e3, 378e3)


@pytest.fixture(autouse=True)
def few_starts(monkeypatch):
    monkeypatch.setattr(estimate, "STARTS", 4)


def tables(truth, studies, mend=lambda study, frame: frame):
    made = Tables(Path("nowhere"), STUDIES, draws=8, seed=0, progress=lambda line: None)
    for study, frame in simulated_studies.tables(truth, only=studies, plain=True).items():
        made.frames[study] = checked(mend(study, frame), Path("nowhere"))
    return made


# ---- a number whose sign changes with N ----


def units(slope, noise, level=0.0, seed=0):
    """Six units at each of four N, on a line in ln N that crosses zero in the middle of the sizes if `level` is 0."""
    draw, rows = np.random.default_rng(seed), pd.DataFrame({"N": np.repeat(SIZES, 6)})
    middle = np.log(SIZES).mean()
    value = level + slope * (np.log(rows["N"]) - middle) + noise * draw.normal(size=len(rows))
    return rows.assign(value=value, cluster=[f"c{i}" for i in range(len(rows))])


def test_a_sign_that_changes_with_n_has_no_mean():
    rows = units(0.3, 0.05)
    found = mean_or_by_size(rows, "value")
    assert isinstance(found, BySize) and math.isnan(found.value) and list(found.each) == list(SIZES)
    for size, number in found.each.items():
        assert number.value == pytest.approx(rows.loc[rows["N"] == size, "value"].mean())
    assert found.each[SIZES[0]].high < 0 < found.each[SIZES[-1]].low
    assert found.text.startswith(f"{found.each[SIZES[0]].text} at N = 24k; ")


@pytest.mark.parametrize(("slope", "noise", "level"), [(0.0, 0.05, 0.0), (0.3, 0.05, 2.0), (0.0, 0.05, 1.0)])
def test_noise_about_zero_or_a_trend_on_one_side_has_one(slope, noise, level):
    rows = units(slope, noise, level)
    found = mean_or_by_size(rows, "value")
    assert not isinstance(found, BySize) and found.value == pytest.approx(rows["value"].mean())


def test_intervals_at_each_n_hold_together():
    found = mean_or_by_size(units(0.3, 0.05), "value")
    alone = mean_or_by_size(units(0.3, 0.05).query("N == 24e3"), "value")
    assert found.each[24e3].value == alone.value
    assert found.each[24e3].high - found.each[24e3].low > 1.2 * (alone.high - alone.low)


def test_a_number_at_each_n_is_judged_at_each():
    sure, unsure, against = (Number(value=(a + b) / 2, low=a, high=b) for a, b in ((1, 2), (-1, 2), (-2, -1)))
    condition = above("x", "x")
    for each, expected in (((sure, sure), YES), ((sure, unsure), OPEN), ((sure, against), NO), ((unsure, against), NO)):
        number = BySize(each=dict(zip(SIZES, each, strict=False)), paper=1.0)
        assert condition.judge({"x": number}, {}) == expected
    measured = Measured(estimator="", filter="", weights="")
    rule = Rule.of(condition, measured=measured, published=(published("x", "x"),))
    assert rule.judge_size({"x": number}).verdict == NOT_DECIDED  # there is no mean to compare


def test_small_pairs_count_as_much_as_large_ones():
    pairs = pd.DataFrame({"gap": [0.5, 0.02, 0.03], "plain": [1.0, 0.01, 0.03], "cluster": list("abc"), "N": 1e5})
    assert geometric_mean_or_by_size(pairs, "gap", "plain").value == pytest.approx(1.0)  # 1/2, 2 and 1
    assert geometric_mean_or_by_size(pairs.assign(gap=[0.5, -1.0, 0.03]), "gap", "plain").value == pytest.approx(
        math.sqrt(0.5)
    )
    with pytest.raises(InputError):
        geometric_mean_or_by_size(pairs.assign(gap=-1.0), "gap", "plain")


# ---- the shape in bits ----


def test_a_term_in_p_times_n_is_found_and_the_shape_stands_at_each_n():
    term = 0.15

    def mend(study, frame):
        factor = np.exp(-term * (frame["P_post"].astype(float) - 4) * np.log(frame["N"].astype(float) / 1e5))
        return frame.assign(gap=frame["gap"].astype(float) * factor)

    finding = bits.bits(tables(Truth(noise=0.2), ["overtraining"], mend))
    found = finding.shown["what an e-fold of N adds to the fall of ln delta_PTQ with a bit"]
    assert found.low < term < found.high and found.low > 0.5 * term
    (grid,) = finding.grids
    falls = [float(row[-1].split()[0]) for row in grid.rows]
    assert [row[0] for row in grid.rows] == ["24k", "83k", "201k", "378k", "664k"] and falls == sorted(falls)
    assert falls[2] == pytest.approx(1 / 0.6 + term * math.log(200_704 / 1e5), abs=0.1)


def test_a_bend_that_changes_its_sign_with_n_is_no_mean():
    def mend(study, frame):
        size, width = frame["N"].astype(float), frame["P_post"].astype(float)
        return frame.assign(gap=frame["gap"].astype(float) * np.exp((width == 3) * 0.4 * np.log(size / 1e5)))

    found = bits.bits(tables(Truth(noise=0.2), ["overtraining"], mend)).numbers["bend"]
    assert isinstance(found, BySize)
    for size, number in found.each.items():
        assert number.value == pytest.approx(0.4 * math.log(size / 1e5), abs=0.12), size


# ---- rows ----


def test_cells_that_one_group_lacks_are_taken_from_all():
    one = pd.DataFrame({"N": [1, 1, 2], "tokens": [1, 2, 1], "P_post": 3, "x": [1, 2, 3]})
    other = pd.DataFrame({"N": [1, 2, 2, 1], "tokens": [1, 1, 2, 1], "P_post": 3, "x": [4, 5, 6, 7]})
    both = at_common_cells({"one": one, "other": other})
    assert [list(rows["x"]) for rows in both.values()] == [[1, 3], [4, 5, 7]]
    with pytest.raises(InputError, match=r"^no N, tokens, P_post that all of one, other have$"):
        at_common_cells({"one": one, "other": other.assign(P_post=4)})


def test_texts_that_a_filter_cuts_differently_are_compared_at_the_same_cells():
    """Growth that ends with D, alike on both texts, of which Python loses more: its long runs go first."""

    def mend(study, frame):
        return frame.assign(gap=frame["gap"].astype(float) * (1.7 if study == "overtraining" else 1.0))

    truth = Truth(noise=0.0, bend=-0.12, gap={**Truth().gap, "gamma_D": 0.3, "C_T": 11.0}, english=0.3)
    finding = controls.corpus(tables(truth, ["overtraining", "corpus"], mend))
    apart = next(number for name, number in finding.shown.items() if "cut by its own law" in name)
    assert finding.numbers["ratio"].value == pytest.approx(1.0, abs=0.02)
    assert abs(apart.value - 1) > 0.1
    less = finding.shown["ln delta_PTQ on English less that on Python, the same cells"]
    assert less.value == pytest.approx(-math.log(1.7), abs=0.01)


def test_other_rows_differ_in_what_their_name_says():
    usual = Rows(studies=("overtraining",))
    assert changed(usual, "blocks of 16", "4 to 6 bits") == dataclasses.replace(
        usual, granularity="block16", bits=(4.0, 6.0)
    )
    assert usual.limits == "3 to 6 bits, below 0.5 nats of the predicted gap"
    assert changed(usual, "no limit to the gap").limits == "3 to 6 bits, no limit to the predicted gap"
    assert changed(usual, "GPTQ").how == "GPTQ, a scale a channel, integers"


def test_the_section_on_rows_says_what_the_filter_takes(monkeypatch):
    monkeypatch.setattr(sensitivity, "CHOICES", ((), ("no limit to the gap",), ("AWQ",)))
    truth = Truth(noise=0.3, gap={**Truth().gap, "C_T": 3.0})
    _, rule, grid, published_constants, reading = sensitivity.blocks(tables(truth, ["overtraining"]))
    assert "rule that stood before the runs" in rule.text and "gamma_D = 0.507" in published_constants.text
    main, whole, missing = grid.rows
    assert main[0].endswith("(the main fit)") and "of 3 bits" not in main[-1] and "of 3 bits" in whole[-1]
    assert int(main[-2]) < int(whole[-2]) and missing[-1] == "-"
    assert reading.text.startswith("In the main fit N = 24k")


# ---- what is predicted of a new size ----


def test_predictions_at_a_new_n_hold_the_scatter_of_sizes():
    def mend(study, frame):
        off = frame["N"].map(dict(zip(sorted(frame["N"].unique()), (0.4, -0.4, 0.4, -0.4, 0.0), strict=True)))
        return frame.assign(gap=frame["gap"].astype(float) * np.exp(off))

    known = tables(Truth(noise=0.2), ["overtraining"], mend)
    frame = known.rows(tokens.RTN)
    frame = frame[frame["ptq"].notna()]
    largest = frame["N"].max()
    of_sizes = tokens._scatter_of_sizes(frame[frame["N"] < largest], tokens.RTN)
    assert 0.2 < of_sizes(largest, 8e6) < 1.2
    assert of_sizes(frame["N"].min(), 8e6) == 0.0
    fit = tokens.gap_fit(known)
    rows = frame[(frame["N"] == largest) & frame["P_post"].between(3, 6)]
    rows = rows.assign(predicted=fit.predict(rows), fitted=True)
    with_sizes, without = (tokens._ratio(rows, fit, sd) for sd in (of_sizes, lambda N, D: 0.0))
    assert with_sizes.value == without.value
    widths = [math.log(n.high / n.value) ** 2 for n in (with_sizes, without)]
    sd = np.average([of_sizes(N, D) for N, D in zip(rows["N"], rows["D"], strict=True)], weights=rows["predicted"])
    assert widths[0] - widths[1] == pytest.approx((fit.bootstrap.t * sd) ** 2, rel=1e-6)
