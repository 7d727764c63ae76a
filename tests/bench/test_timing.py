"""Goals, and what a row derives from times: no times are asserted."""

import time

import numpy as np
import pytest
import torch

from bench.timing import Against, Group, Variant, measure


@pytest.mark.parametrize(
    ("goal", "ratio", "met"),
    [
        (None, 1.0, None),
        ("<= 1.15", 1.15, True),
        ("<= 1.15", 1.16, False),
        ("> 1", 1.0, False),
        (">= 2.5x", 0.4, True),  # done in four tenths of the time
        (">= 2.5x", 0.41, False),
        (">= 0.5x", 2.0, True),
        (">= 0.5x", 2.1, False),
    ],
)
def test_goals(goal, ratio, met):
    assert Against(name="other", goal=goal).met(ratio) is met


def naps(seconds):
    return lambda: lambda: time.sleep(seconds)


def test_rows_of_a_group():
    stack = Variant(
        name="stack",
        make=naps(0.01),
        tokens=400,
        flops=1e6,
        peak="peak",
        against=(Against(name="single", times=4, goal=">= 1.5x"), Against(name="absent")),
    )
    others = (Variant(name="single", make=naps(0.01)), Variant(name="peak", make=naps(0.004), flops=1e6))
    absent = Variant(name="absent", make=lambda: 1 / 0)
    group = Group(name="g", variants=(stack, *others, absent), repeats=3, block_seconds=0.02, memory="cpu")
    first, second, single, peak, failed = measure(group, lambda line: None)
    assert (first.against, second.against) == ("4 x single", "absent")
    assert first.met and first.speed_up.median == pytest.approx(1 / first.ratio.median)
    assert first.speed_up.low <= first.speed_up.median <= first.speed_up.high
    assert first.tokens_per_second == pytest.approx(400 / first.seconds.median)
    assert first.model_flops == pytest.approx(1e6 / first.seconds.median)
    assert 0 < first.peak_share.median < 1
    assert first.peak_memory_mb == 0
    assert second.ratio is None and second.speed_up is None and second.met is None
    assert single.tokens_per_second is None and single.model_flops is None and single.peak_share is None
    assert peak.model_flops and peak.peak_share is None
    assert failed.failed and "ZeroDivisionError" in failed.note and failed.seconds is None


def test_the_same_seed_for_every_variant():
    drawn = []

    def make():
        drawn.append(torch.rand(3).numpy())
        return lambda: None

    variants = tuple(Variant(name=name, make=make) for name in "ab")
    measure(Group(name="g", variants=variants, repeats=1, block_seconds=1e-4), lambda line: None)
    np.testing.assert_array_equal(*drawn)
