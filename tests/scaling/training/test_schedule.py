import dataclasses
import math

import pytest

from scaling.training.schedule import learning_rate


def rates(run):
    return [learning_rate(run, step) for step in range(run.steps)]


# 40 steps of 128 tokens, the first four of them warm-up; peak 0.008 * (32 / 16) ** 0.5.
PEAK = 0.008 * 2**0.5


def test_cosine_by_hand(make_run):
    lr = rates(make_run("schedule=cosine", "schedule.end_fraction=0.1"))
    assert lr[:4] == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK])
    assert lr[4] == pytest.approx(PEAK)
    assert lr[22] == pytest.approx(PEAK * 0.55)  # half of the 36 steps after the warm-up
    assert lr[39] == pytest.approx(PEAK * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 35 / 36))))


def test_linear_by_hand(make_run):
    lr = rates(make_run("schedule=linear", "schedule.end_fraction=0"))
    assert lr[13] == pytest.approx(PEAK * 0.75) and lr[39] == pytest.approx(PEAK / 36)


def test_wsd_is_constant_and_then_falls(make_run):
    lr = rates(make_run("schedule=wsd", "schedule.decay_tokens=1280", "schedule.end_fraction=0"))
    assert lr[4:31] == pytest.approx([PEAK] * 27)
    assert lr[30:] == pytest.approx([PEAK * (1 - k / 10) for k in range(10)])


def test_an_average_is_trained_at_a_constant_rate(make_run):
    assert rates(make_run("schedule=average", "schedule.decay_tokens=1280")) == rates(make_run("schedule=constant"))


def test_constant_is_the_trunk_of_wsd(make_run):
    constant = rates(make_run("schedule=constant"))
    wsd = rates(make_run("schedule=wsd", "schedule.decay_tokens=1280"))
    assert constant[:30] == wsd[:30] and constant[30:] == [constant[4]] * 10


def test_width_rule(make_run):
    narrow = make_run("optimizer.lr=0.01", "optimizer.lr_width=16", "optimizer.lr_exponent=1")
    wide = dataclasses.replace(narrow, model=dataclasses.replace(narrow.model, d_model=64))
    assert narrow.lr_peak == pytest.approx(0.01) and wide.lr_peak == pytest.approx(0.0025)
