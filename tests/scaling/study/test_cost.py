"""Arithmetic, time and money of runs, by hand."""

import pytest

from scaling.errors import InputError
from scaling.study.cost import (
    Price,
    Work,
    cost,
    evaluation_cost,
    measured_rates,
    recorded_rates,
    seconds,
    total_work,
    training_cost,
    work,
)

# Two FLOPs a weight (1,792 of the blocks, 9 x 16 of the head) and four for each position, layer and channel.
FORWARD = 2 * (1792 + 9 * 16) + 4 * 32 * 16


def test_costs_by_hand(make_run):
    run = make_run("snapshots=[1280]")
    assert training_cost(run) == 3 * FORWARD * 5120
    # Two evaluated models, each as trained and in two formats.
    assert evaluation_cost(run) == 2 * 3 * FORWARD * 64 * 32
    assert cost(run) == training_cost(run) + evaluation_cost(run)


def test_work_of_a_small_study_by_hand(make_run):
    runs = [make_run(f"data.tokens={tokens}") for tokens in (2560, 5120)]
    found = work(runs)
    assert found.tokens == 7680
    assert found.six_nd == 6 * 1792 * 7680 == sum(run.flops for run in runs)
    assert found.training == 3 * FORWARD * 7680
    assert found.evaluation == 2 * 3 * FORWARD * 64 * 32
    assert found.total == found.training + found.evaluation == sum(map(cost, runs))
    assert total_work([runs[:1], runs[1:]]) == found


def test_what_runs_share_counts_once(make_run):
    """20 steps with a decay over the last 4, and 40 steps with one over the last 8: the shorter one has 4 of its own,
    or 3, where a decay's first update is still at the peak."""
    runs = [
        make_run("schedule=wsd", f"data.tokens={128 * steps}", f"schedule.decay_tokens={128 * steps // 5}")
        for steps in (20, 40)
    ]
    together, apart = work(runs), total_work([[run] for run in runs])
    assert apart.tokens == 128 * 60 and together.tokens == 128 * (40 + 3)
    assert together.training / apart.training == together.six_nd / apart.six_nd == 43 / 60
    assert together.evaluation == apart.evaluation


def test_hours_of_a_gpu_by_hand():
    # 3.6e18 FLOPs at a quarter of 989e12 a second.
    assert Price(mfu=0.25).hours(3.6e18) == pytest.approx(1e15 / (0.25 * 989e12))
    assert Price(device="a100", mfu=1.0).hours(312e12 * 7200) == pytest.approx(2)


@pytest.mark.parametrize(
    "values, line",
    [
        ({"device": "h1000"}, "--device h1000: no such device; use one of a100, h100, h200, b200"),
        ({"mfu": 0.0}, "--mfu 0.0: must be above 0 and at most 1"),
        ({"mfu": 1.5}, "--mfu 1.5: must be above 0 and at most 1"),
        ({"mfu": float("nan")}, "--mfu nan: must be above 0 and at most 1"),
        ({"per_hour": -1.0}, "--price-per-hour -1.0: must be 0 or above"),
    ],
)
def test_prices_that_make_no_sense(values, line):
    with pytest.raises(InputError, match=f"^{line}"):
        Price(**values)


def test_speed_is_what_finished_runs_took(make_run):
    runs = [make_run(f"seed={seed}") for seed in (0, 1)]
    rates = recorded_rates([(run, {"seconds": 2.0}) for run in runs])
    assert rates == {1792: training_cost(runs[0]) / 2}
    assert seconds(runs, rates) == pytest.approx(2 * cost(runs[0]) / rates[1792])
    assert recorded_rates([(runs[0], {"seconds": 0.0})]) == {}


def test_speed_counts_shared_updates_once(make_run):
    runs = [make_run("schedule=wsd", f"data.tokens={t}", "schedule.decay_tokens=512") for t in (2560, 5120)]
    together = [(run, {"seconds": 1.0, "shared_steps": 16}) for run in runs]
    assert recorded_rates(together) == {1792: work(runs).training / 2}
    alone = [(run, {"seconds": 1.0, "shared_steps": 0}) for run in runs]
    assert recorded_rates(alone) == {1792: sum(map(training_cost, runs)) / 2}


def test_models_that_are_too_large_to_wait_for_are_not_measured(make_run, monkeypatch):
    small, large = make_run(), make_run("model=24k")
    monkeypatch.setattr("scaling.study.cost.CALIBRATION_FLOPS", 3 * FORWARD * 32 * 1.5)  # one sequence of the small one
    assert list(measured_rates([large, small], 1)) == [1792]
    assert measured_rates([large], 1) == {}


def test_work_adds_up():
    one = Work(tokens=1, six_nd=2, training=3, evaluation=4)
    assert one + one == Work(tokens=2, six_nd=4, training=6, evaluation=8)
