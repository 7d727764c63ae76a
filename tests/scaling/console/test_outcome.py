"""The end of a run, of records as they are on disk."""

import math

import pytest

from scaling.console.outcome import LOSS, optimized, outcome
from scaling.errors import InputError


def row(tokens, setting, loss, gap, gap_se):
    return {"tokens_seen": tokens, "setting": setting, "loss": loss, "loss_se": 0.01, "gap": gap, "gap_se": gap_se}


def test_the_last_model_is_shown_in_each_format():
    first = {"tokens_seen": 1280, "loss": 3.0, "loss_se": 0.1}
    evaluations = [first, {"tokens_seen": 2560, "loss": 2.5, "loss_se": 0.02}]
    rows = [
        row(1280, "rtn/int3/channel/absmax", 3.5, 0.5, 0.1),
        row(2560, "rtn/int3/channel/absmax", 2.75, 0.25, 0.005),
        row(2560, "rtn/int16/channel/absmax", 2.5, -0.00001, 0.0),
        row(2560, "rtn/int2/channel/absmax", None, None, None),
    ]
    assert outcome({"evaluations": evaluations}, rows) == [
        "loss 2.5000 +- 0.0200",
        "  quantized by                  loss  gap",
        "  rtn/int3/channel/absmax     2.7500  0.2500 +- 0.0050",
        "  rtn/int16/channel/absmax    2.5000  -0.0000 +- 0.0000",
        "  rtn/int2/channel/absmax          -  - +- -",
    ]


def test_a_run_without_quantizations_or_that_diverged_is_one_line():
    assert outcome({"evaluations": [{"tokens_seen": 1, "loss": 1.0, "loss_se": 0.5}]}, []) == ["loss 1.0000 +- 0.5000"]
    assert outcome({"evaluations": []}, []) == ["diverged"]


def test_a_sweeper_gets_a_number_in_any_case():
    name = "rtn/int3/channel/absmax"
    result = {"diverged": False, "evaluations": [{"tokens_seen": 1, "loss": 4.0}, {"tokens_seen": 2, "loss": 2.5}]}
    rows = [
        row(1, name, 1.0, 0.0, 0.0),
        row(2, name, 3.5, 1.0, 0.0),
        row(2, "rtn/int2/channel/absmax", None, None, 0.0),
    ]
    assert (optimized(LOSS, result), optimized(name, result, rows)) == (2.5, 3.5)
    assert optimized("rtn/int2/channel/absmax", result, rows) == math.inf
    assert optimized(LOSS, {**result, "diverged": True}) == optimized(name, {**result, "evaluations": []}) == math.inf
    with pytest.raises(InputError, match=f"^optimized_metric={name}: the run is done without it; .*scaling.ptq"):
        optimized(name, result, rows[:1])
