"""Runs that are one copy until their learning rates part: who they are, until when, and what they take together."""

from itertools import combinations

import pytest

from scaling.training.families import at_once, busy, families, family, model_steps, own_updates, parting
from scaling.training.schedule import learning_rate


def wsd(tokens, decay, *more):
    return ("schedule=wsd", f"data.tokens={tokens}", f"schedule.decay_tokens={decay}", *more)


def test_members_of_a_family_differ_in_horizon_decay_and_what_is_looked_at(make_run):
    run = make_run(*wsd(5120, 1024))
    others = [
        make_run(*wsd(2560, 512)),
        make_run(*wsd(5120, 1024, "schedule.end_fraction=0.5")),
        make_run("schedule=constant"),
        make_run("schedule=average", "data.tokens=3840", "schedule.decay_tokens=1024"),
        make_run(*wsd(5120, 1024, "snapshots=[1280]")),
        make_run(*wsd(5120, 1024, "data.repeat=true", "ptq=none", "tracking.points_per_doubling=3")),
    ]
    assert family(run) and {family(other) for other in others} == {family(run)}


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "seed_init=1",
        "seed_data=1",
        "optimizer.lr=1e-3",
        "optimizer.weight_decay=0",
        "optimizer.clip=2",
        "schedule.warmup_tokens=640",
        "precision.weights=int4",
        "model.d_ff=32",
        "data.batch_tokens=256",
        "runtime.dtype=bfloat16",
        "study=other",
    ],
)
def test_runs_that_compute_anything_else_are_of_another_family(make_run, change):
    assert family(make_run(*wsd(5120, 1024, change))) != family(make_run(*wsd(5120, 1024)))


def test_branches_share_only_from_one_snapshot(make_run):
    def branch(tokens, at):
        return family(make_run(*wsd(tokens, 1024, "branch.parent=p", f"branch.tokens={at}")))

    assert branch(5120, 1280) == branch(3840, 1280) != branch(5120, 2560)
    assert branch(5120, 1280) != family(make_run(*wsd(5120, 1024)))


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_schedules_that_fall_at_once_share_nothing(make_run, kind):
    runs = [make_run(f"schedule={kind}", f"data.tokens={tokens}") for tokens in (2560, 5120)]
    assert [family(run) for run in runs] == [None, None]
    assert len(families(runs)) == 2 and model_steps(runs) == 60 and at_once(busy(runs)) == 2


@pytest.fixture
def many(make_run):
    """Decays that begin at one place, within a step or in the warm-up, or never fall; horizons within a step."""
    return [
        make_run("schedule=constant"),
        make_run("schedule=constant", "data.tokens=2600"),
        make_run(*wsd(5120, 1024)),
        make_run(*wsd(5120, 1024, "schedule.end_fraction=0.5")),
        make_run(*wsd(5120, 1024, "schedule.end_fraction=1.0")),
        make_run(*wsd(5120, 1024, "snapshots=[1280]")),
        make_run(*wsd(4608, 512)),
        make_run(*wsd(4700, 4180)),
        make_run(*wsd(2560, 1)),
        make_run(*wsd(2560, 130)),
        make_run(*wsd(1300, 788)),
        make_run("schedule=average", "data.tokens=4096", "schedule.decay_tokens=1024"),
    ]


@pytest.mark.parametrize("start", [0, 7, 33])
def test_partings_are_where_rates_differ_first(many, start):
    assert len({family(run) for run in many}) == 1
    found = set()
    for a, b in combinations(many, 2):
        end = min(a.steps, b.steps)
        expected = next((s for s in range(start, end) if learning_rate(a, s) != learning_rate(b, s)), end)
        assert parting(a, b, start) == parting(b, a, start) == expected
        found.add(expected)
    assert len(found) >= 4


@pytest.mark.parametrize("start", [None, 0, 7, 25])
def test_a_tree_by_brute_force(many, start):
    """At each update count the copies: classes of runs that are alive and were equal in all updates so far."""
    first, copies = start or 0, []
    rates = [[learning_rate(run, step) for step in range(run.steps)] for run in many]
    for step in range(first, max(run.steps for run in many)):
        alive: list[list] = []  # the rates up to here of each copy
        for rate in rates:
            if step < len(rate) and rate[first : step + 1] not in alive:
                alive.append(rate[first : step + 1])
        copies.append(len(alive))
    assert max(copies) > 3
    assert model_steps(many, start) == sum(copies)
    assert at_once(own_updates(many, start)) == max(copies)


def test_a_grid_of_horizons_costs_its_longest_run_and_the_decays(make_run):
    horizons = (1, 2, 4, 8, 16, 32)
    runs = [make_run(*wsd(d * 12800, d * 2560, "data.repeat=true")) for d in horizons]
    # The first decaying update has the peak rate, and is shared.
    assert model_steps(runs) == 3200 + sum(20 * d - 1 for d in horizons[:-1])
    assert model_steps(runs) < 0.62 * sum(run.steps for run in runs)
    assert at_once(busy(runs)) == 2


def test_busy_counts_from_where_branches_start(make_run):
    runs = [make_run(*wsd(d, 256, "branch.parent=p", "branch.tokens=1280")) for d in (2560, 5120)]
    assert sorted(busy(runs), key=lambda r: r.start) == [range(30), range(9, 10)]
