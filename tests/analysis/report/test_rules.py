"""Verdict rules: the sentence and the verdict come from the same data, and numbers carry honest intervals."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from analysis import table
from analysis.errors import InputError
from analysis.report.claims.claim import Finding, flips, verdicts
from analysis.report.claims.training import growth_of_costs
from analysis.report.evidence import numbers
from analysis.report.evidence.numbers import Number, Scatter, left_out, mean, quotient
from analysis.report.evidence.rules import (
    NO,
    OPEN,
    UNREFUTED,
    YES,
    Flag,
    Measured,
    Rule,
    above,
    at_least,
    below,
    published,
    within,
)
from analysis.report.verdicts import (
    AGREES,
    DIFFERS,
    NONE_PUBLISHED,
    NOT_DECIDABLE,
    NOT_DECIDED,
    NOT_REPRODUCED,
    REPRODUCED,
)

MEASURED = Measured(estimator="mean", filter="all", weights="alike")


def number(low, high):
    return Number(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    "condition, low, high, holds",
    [
        (above("x", "x"), 0.1, 0.2, YES),
        (above("x", "x"), -0.1, 0.2, OPEN),
        (above("x", "x"), -0.2, -0.1, NO),
        (above("x", "x", 0.7), 0.3, 0.6, NO),
        (below("x", "x", 1.0), 0.3, 0.6, YES),
        (below("x", "x", 1.0), 1.1, 1.2, NO),
        (within("x", "x", -1, 1), -0.9, 0.9, YES),
        (within("x", "x", -1, 1), -1.1, 0.9, OPEN),
        (within("x", "x", -1, 1), 1.1, 1.9, NO),
        (above("x", "x", lenient=True), 0.1, 0.2, YES),
        (above("x", "x", lenient=True), -0.1, 0.2, UNREFUTED),
        (above("x", "x", lenient=True), -0.2, -0.1, NO),
        (above("x", "x"), math.nan, math.nan, OPEN),
        (above("x", "x", lenient=True), math.nan, math.nan, UNREFUTED),
    ],
)
def test_an_interval_holds_fails_or_leaves_it_open(condition, low, high, holds):
    assert condition.judge({"x": number(low, high)}, {}) == holds


def test_a_low_r2_leaves_it_open_for_noise_lowers_it_too():
    condition = at_least("r2", "R2", 0.5)
    assert [condition.judge({"r2": Number.plain(v)}, {}) for v in (0.6, 0.4)] == [YES, OPEN]
    assert "A low R2 only leaves it open" in Rule.of(condition, measured=MEASURED).text


def test_a_test_elsewhere_is_taken_at_its_word():
    condition = Flag(number="c", what="the slope", yes="constant", no="not constant")
    words = ("constant", "not constant", "not decidable")
    assert [condition.judge({}, {"c": word}) for word in words] == [YES, NO, OPEN]
    assert condition.judge({}, {}) == OPEN


def test_one_failure_decides_and_all_must_hold():
    rule = Rule.of(above("a", "a"), above("b", "b"), measured=MEASURED)
    yes, no, unsure = number(1, 2), number(-2, -1), number(-1, 1)
    assert rule.judge({"a": yes, "b": yes}, {})[0] == REPRODUCED
    assert rule.judge({"a": yes, "b": unsure}, {}) == (NOT_DECIDABLE, [YES, OPEN])
    assert rule.judge({"a": unsure, "b": no}, {}) == (NOT_REPRODUCED, [OPEN, NO])
    assert rule.judge({}, {})[0] == NOT_DECIDABLE  # nothing given


def test_the_sentence_says_what_is_applied():
    rule = Rule.of(above("a", "gamma_D"), above("b", "the slope"), within("c", "the ratio", 0.5, 2), measured=MEASURED)
    assert rule.text == (
        "Estimator: mean. Filter: all. Weights: alike. Direction: reproduced if the "
        "intervals of gamma_D and the slope lie above 0 and the interval of the ratio lies between "
        "0.5 and 2. Not reproduced if one of these surely fails, by an interval wholly outside. Else not decidable at "
        "this scale. Size: none published."
    )
    alone = Rule.of(below("S", "S", 0.3), measured=MEASURED, meaning="tokens", published=(published("S", "S"),))
    assert alone.direction_text.startswith(
        "reproduced if the interval of S lies below 0.3. Not reproduced if it lies wholly outside"
    )
    assert alone.size_text == (
        "agrees if the interval of S lies within a factor of 1.5 of the published number, differs if it lies wholly "
        "outside, else not decided."
    )


@pytest.mark.parametrize(
    ("low", "high", "paper", "size"),
    [
        (0.40, 0.60, 0.507, AGREES),  # 0.338 to 0.761
        (0.09, 0.32, 0.507, DIFFERS),
        (0.80, 0.90, 0.507, DIFFERS),
        (0.30, 0.60, 0.507, NOT_DECIDED),
        (-0.31, -0.25, -0.2, NOT_DECIDED),
        (-0.29, -0.14, -0.2, AGREES),
        (0.40, 0.60, None, NOT_DECIDED),
    ],
)
def test_a_size_agrees_within_a_factor_of_the_published_number(low, high, paper, size):
    rule = Rule.of(above("x", "x"), measured=MEASURED, published=(published("x", "gamma_D"),))
    known = dataclasses.replace(number(low, high), paper=paper)
    assert rule.judge_size({"x": known}).verdict == size
    assert rule.judge_size({}).verdict == NOT_DECIDED
    assert rule.judge_size({"x": known}).reason.startswith(f"gamma_D: {known.text} against ")


def test_of_several_sizes_one_that_differs_decides():
    rule = Rule.of(above("x", "x"), measured=MEASURED, published=(published("x", "x"), published("y", "y")))
    near, far, wide = (dataclasses.replace(number(*ends), paper=1.0) for ends in ((0.9, 1.1), (2, 3), (0.5, 1)))
    assert rule.judge_size({"x": near, "y": near}).verdict == AGREES
    assert rule.judge_size({"x": wide, "y": near}).verdict == NOT_DECIDED
    decided = rule.judge_size({"x": wide, "y": far})
    assert (decided.verdict, decided.reason) == (DIFFERS, f"y: {far.text} against 1")
    assert Rule.of(above("x", "x"), measured=MEASURED).judge_size({"x": far}).verdict == NONE_PUBLISHED


def test_a_verdict_that_other_rows_change_says_so():
    rule = Rule.of(above("x", "x"), measured=MEASURED, published=(published("x", "x"),))

    def judged(low, high):
        return verdicts(rule, Finding(numbers={"x": dataclasses.replace(number(low, high), paper=1.0)}))

    main = judged(0.1, 0.2)
    assert (main.direction.verdict, main.size.verdict) == (REPRODUCED, DIFFERS)
    again = {"A": judged(-0.1, 0.2), "B": judged(0.9, 1.1), "C": judged(0.2, 0.3), "D": judged(-0.1, 0.3)}
    assert flips(main, again) == (
        "Other rows change it: direction not decidable at this scale with A and D; size agrees with B."
    )
    assert flips(main, {"C": again["C"]}) == ""


@pytest.mark.parametrize(
    "found, text",
    [
        (Number(value=0.5123, low=0.43, high=0.59), "0.512 [0.430, 0.590]"),
        (Number(value=0.5, low=0.1, high=3.0), "0.50 [0.10, 3.00]"),
        (Number(value=-0.0001, low=-0.2, high=0.2), "0.00 [-0.20, 0.20]"),
        (Number(value=1.5, low=math.nan, high=math.nan), "1.5 (no interval)"),
        (Number.plain(0.97, unit="bits"), "0.97 bits"),
        (Number.none("no rows"), "not estimated"),
        (Number(value=3.0, low=1.0, high=math.inf), "3 [1, inf]"),
        (Number(value=2e6, low=1e6, high=4e6), "2e+06 [1e+06, 4e+06]"),
    ],
)
def test_numbers_are_told_to_the_digits_of_their_interval(found, text):
    assert found.text == text


def test_means_have_students_t_and_need_two_units():
    found = mean([1.0, 2.0, 3.0, math.nan])
    assert (found.value, found.high - found.value) == (2.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-5))
    assert not mean([1.0]).sure
    with pytest.raises(InputError, match="no rows"):
        mean([])


def test_leaving_out_covers_the_mean_as_the_standard_error_does():
    draw = np.random.default_rng(0)
    rows = pd.DataFrame({"cluster": np.arange(40).astype(str), "x": draw.normal(size=40)})
    found = left_out(lambda part: part["x"].mean(), rows)
    assert found.value == pytest.approx(rows["x"].mean())
    assert found.high - found.value == pytest.approx(2.0244 * rows["x"].std() / math.sqrt(40), rel=1e-3)
    assert not left_out(lambda part: part["x"].mean(), rows[:2]).sure


def test_a_quotient_of_positive_numbers_stays_positive():
    found = quotient(number(0.4, 0.6), number(0.1, 0.9))
    assert 0 < found.low < found.value == 1.0 < found.high
    crossing = quotient(number(-0.1, 0.3), number(0.4, 0.6))
    assert crossing.low < 0 < crossing.high
    assert not quotient(Number.none("missing"), number(1, 2)).known


def test_scatter_widens_with_what_was_chosen_from():
    scatter = Scatter(loss=0.01, gap=0.2, freedom=10)
    assert scatter.sd(2.0, 0.5) == pytest.approx(math.hypot(0.02, 0.1))
    one, five = scatter.around(0.1, 0.05), scatter.around(0.1, 0.05, asked=5)
    assert five.low < one.low == pytest.approx(0.1 - 2.228139 * 0.05, rel=1e-5)
    assert "corrected for 5 comparisons" in five.note


def test_reasons_come_without_the_list_of_columns():
    def measure():
        return Number.plain(table.numbers(pd.DataFrame({"N": [1.0], "D": [2.0]}), "x").sum())

    with pytest.raises(InputError, match=r"^x: the table has no such column; it has N, D$"):
        measure()
    assert numbers.attempt(measure).note == "x: the table has no such column"


def test_widths_of_one_part_are_one_unit():
    slopes = pd.DataFrame({"part": ["P_w", "P_w", "P_a", "P_a"], "slope": [0.1, 0.3, 0.5, 0.5]})
    both = growth_of_costs(slopes)
    assert both.value == pytest.approx(0.35) and both.high - both.value == pytest.approx(12.7062 * 0.15, rel=1e-4)
    assert not growth_of_costs(slopes[:2]).sure
