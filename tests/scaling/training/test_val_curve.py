"""The curve of losses on a few held-out windows while a run is trained."""

import json

import numpy as np
import pytest

from scaling.records.loaded_run import load_run
from scaling.training.members import has_val_curve
from tests.scaling.training.test_interrupted import stopped_at_measurement
from tests.scaling.training.test_loop import assert_same, elsewhere, trained

LONG = ("data.tokens=20480", "ptq.formats=[int4]")
CURVE = ("tracking.val_windows=2", "tracking.val_points_per_doubling=1")


def points(folder):
    return [json.loads(line) for line in (folder.path / "val.jsonl").read_text().splitlines()]


def test_it_moves_no_number_and_is_of_a_few_windows(make_run):
    settings = [("seed=1",), ("precision.weights=int4", "precision.kv=e4m3", "data.tokens=19200")]
    runs = [make_run(*LONG, *CURVE, *more) for more in settings]
    plain = [elsewhere(make_run(*LONG, "tracking.val_windows=0", *more), "plain") for more in settings]
    assert [run.run_id for run in runs] == [run.run_id for run in plain]
    for folder, other, run in zip(trained(*runs), trained(*plain), runs, strict=True):
        assert_same(folder, other)
        assert not (other.path / "val.jsonl").exists()
        found = points(folder)
        assert [point["tokens"] // 128 for point in found] == [1, 2, 4, 8, 16, 32, 64, 128, run.steps]
        at_end = folder.windows()[str(run.D)]
        assert found[-1]["loss_val"] == pytest.approx(at_end[[0, len(at_end) - 1]].mean(), rel=1e-6)
        assert found[0]["loss_val"] > found[-1]["loss_val"] + 0.1
        assert load_run(folder.path).val_curve.to_dict("records") == found
        assert load_run(other.path).val_curve.columns.tolist() == ["tokens", "loss_val"]


@pytest.mark.parametrize("number", [0, 4, 8])
def test_an_interrupt_leaves_no_gap_and_no_point_twice(make_run, monkeypatch, number, apart):
    run = make_run(*LONG, *CURVE)
    stopped_at_measurement(monkeypatch, [run], number)
    (folder,) = trained(run)
    (whole,) = apart(run)
    assert points(folder) == points(whole)
    assert_same(folder, whole)


def test_points_behind_the_checkpoint_are_forgotten(make_run):
    (folder,) = trained(make_run(*LONG, *CURVE))
    found = points(folder)
    folder.forget_metrics_after(5000)
    kept = [point for point in found if point["tokens"] <= 5000]
    assert points(folder) == kept and len(kept) == 6 and folder.last_val_tokens == kept[-1]["tokens"] == 4096


def test_it_is_off_where_it_would_cost_more_than_two_percent(make_run):
    run = make_run(*LONG, *CURVE)
    # 160 steps: log2(160) + 2 points of 2 windows of 32 tokens at half of a trained token's cost, of 20,480.
    assert (np.log2(160) + 2) * 2 * 32 / 2 < 0.02 * 20480
    assert has_val_curve(run) and not has_val_curve(run, processes=2)
    for change in ("tracking.val_windows=3", "tracking.val_points_per_doubling=2", "data.tokens=10240"):
        assert not has_val_curve(make_run(*LONG, *CURVE, change))
    assert not has_val_curve(make_run(*LONG, "tracking.val_windows=0"))
