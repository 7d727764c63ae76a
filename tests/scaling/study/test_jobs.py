import dataclasses
from itertools import product

import pytest

from scaling.errors import InputError
from scaling.records.run_folder import RunFolder, snapshot_path
from scaling.study.cost import cost, evaluation_cost, training_cost
from scaling.study.jobs import (
    bundled,
    cost_together,
    makespan,
    read_stack,
    spread,
    stacks,
    waves,
    with_threads,
    write_stack,
)
from scaling.training.families import at_once, busy, families


@pytest.fixture
def grid(make_run):
    """Runs of two shapes, each at four lengths and two seeds."""
    small = make_run("ptq=none")

    def variant(seed, tokens, d_ff):
        return dataclasses.replace(
            small,
            seed_init=seed,
            data=dataclasses.replace(small.data, tokens=tokens),
            model=dataclasses.replace(small.model, d_ff=d_ff),
        )

    return [variant(*values) for values in product((0, 1), (1280, 2560, 5120, 10240), (16, 64))]


def ids(groups):
    return sorted(run.run_id for group in groups for run in group)


@pytest.mark.parametrize("workers", [1, 2, 3, 16, 40])
def test_stacks_hold_every_run_once_and_one_shape_each(grid, workers):
    found = stacks(grid, workers)
    assert ids(found) == ids([grid])
    assert all(len({run.stack_key for run in stack}) == 1 for stack in found)
    costs = [sum(map(cost, stack)) for stack in found]
    assert costs == sorted(costs, reverse=True)


def test_one_worker_gets_the_largest_stacks(grid):
    assert [len(stack) for stack in stacks(grid, 1)] == [8, 8]


def test_no_runs_are_no_stacks():
    assert stacks([], 1) == []  # as of a wave that SLURM has already


def test_no_stack_is_larger_than_asked_for(grid):
    capped = [dataclasses.replace(r, runtime=dataclasses.replace(r.runtime, max_members=3)) for r in grid]
    found = stacks(capped, 1)
    assert ids(found) == ids([capped]) and max(map(len, found)) == 3 and len(found) == 6


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_end_together(grid, workers):
    found = stacks(grid, workers)
    ends = makespan([sum(map(cost, stack)) for stack in found], workers)
    assert ends <= 1.1 * max(sum(map(cost, grid)) / workers, max(map(cost, grid)))


def test_a_run_that_outweighs_all_others_stays_alone_on_its_worker(make_run):
    runs = [make_run("ptq=none", f"data.tokens={tokens}") for tokens in (102400, 1280, 2560, 5120)]
    assert [[run.data.tokens for run in stack] for stack in stacks(runs, 2)] == [[102400], [5120, 2560, 1280]]


def test_spread_is_even_in_number_where_costs_are_equal(make_run):
    bundles = bundled([make_run(f"seed={seed}") for seed in range(7)], None)
    assert sorted(map(len, spread(bundles, 3, 7))) == [2, 2, 3]
    assert sorted(map(len, spread(bundles, 4, 2))) == [1, 2, 2, 2]
    assert sorted(map(len, spread(bundles, 1, 3))) == [1, 3, 3]


# -- families ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def horizons(make_run):
    """horizons(seeds, *more): for each seed a family of D = 20, 40, 80 and 160 steps with a decay of a fifth."""

    def of(seeds, *more):
        first = make_run("schedule=wsd", "schedule.decay_tokens=512", "ptq=none", *more)
        return [
            dataclasses.replace(
                first,
                seed_init=seed,
                data=dataclasses.replace(first.data, tokens=tokens),
                schedule=dataclasses.replace(first.schedule, decay_tokens=tokens // 5),
            )
            for tokens, seed in product((2560, 5120, 10240, 20480), range(seeds))
        ]

    return of


def with_cosine(run):
    return dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, kind="cosine", decay_tokens=None))


def seeds(stack):
    return {run.seed_init for run in stack}


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
def test_a_family_is_kept_together(horizons, workers):
    runs = horizons(4)
    found = stacks(runs, workers)
    assert ids(found) == ids([runs]) and len(found) == min(workers, 4)
    assert sum(len(seeds(stack)) for stack in found) == 4
    costs = [cost_together(stack) for stack in found]
    assert costs == sorted(costs, reverse=True)


def test_a_trunk_is_counted_once(horizons):
    runs = horizons(1)
    steps = 160 + (20 - 17) + (40 - 33) + (80 - 65)
    each = training_cost(runs[0]) / 20
    assert cost_together(runs) == pytest.approx(each * steps + sum(map(evaluation_cost, runs)))
    assert cost_together(runs[:1]) == cost(runs[0])
    cosines = [with_cosine(run) for run in runs]
    assert cost_together(cosines) == pytest.approx(sum(map(cost, cosines)))


def test_workers_are_balanced_by_what_families_take_together(horizons):
    """A family of 185 steps gets one of four runs of 80 to itself. Counted run by run it would be 300, and get none."""
    loners = [with_cosine(run) for run in horizons(4) if run.steps == 80]
    found = stacks([*horizons(1), *loners], 2)
    assert [len(stack) for stack in found] == [5, 3]
    ends = makespan(map(cost_together, found), 2)
    assert ends <= 1.1 * (cost_together(horizons(1)) + sum(map(cost, loners))) / 2


def test_the_limit_counts_copies_that_are_alive_together(horizons):
    """At most two of the four runs of a family are: two trunks and two tails in each stack of eight runs."""
    runs = horizons(4, "runtime.max_members=4")
    assert at_once(busy(runs)) == 8
    found = stacks(runs, 1)
    assert [(len(stack), len(seeds(stack))) for stack in found] == [(8, 2), (8, 2)]
    assert all(at_once(busy(stack)) == 4 for stack in found)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_family_is_split_only_where_it_alone_exceeds_the_limit(make_run, limit):
    """Three copies at once: two runs decay over the same steps, each at its own pace."""
    at = f"runtime.max_members={limit}"
    runs = [
        make_run("schedule=constant", "data.tokens=5120", at),
        make_run("schedule=wsd", "data.tokens=3840", "schedule.decay_tokens=1280", at),
        make_run("schedule=wsd", "data.tokens=3968", "schedule.decay_tokens=1408", at),
    ]
    assert len(families(runs)) == 1 and at_once(busy(runs)) == 3
    found = stacks(runs, 1)
    assert ids(found) == ids([runs])
    assert len(found) == 4 - limit and max(at_once(busy(stack)) for stack in found) == limit


def test_speed_alone_does_not_split_a_family(horizons, monkeypatch):
    monkeypatch.setattr("scaling.study.jobs.best_size", lambda run, device, threads: 1)
    assert [len(stack) for stack in stacks(horizons(2), 1)] == [4, 4]
    on_gpu = [dataclasses.replace(r, runtime=dataclasses.replace(r.runtime, device="cuda")) for r in horizons(1)]
    assert [len(stack) for stack in stacks(on_gpu, 1)] == [1, 1, 1, 1]


def test_runs_that_share_next_to_nothing_are_not_held_together(make_run):
    """Branches whose decays begin where they branch share one update: each may go to the worker that is free."""
    branch = ("schedule=wsd", "branch.parent=p", "branch.tokens=2560")
    runs = [
        make_run(*branch, f"data.tokens={2560 + d}", f"schedule.decay_tokens={d}", f"seed={seed}")
        for d in (1280, 1408)
        for seed in (0, 1, 2)
    ]
    assert sorted(map(len, stacks(runs, 6))) == [1] * 6


def test_makespan_by_hand():
    assert makespan([5, 4, 3, 3], 2) == 8  # 5 + 3 | 4 + 3
    assert makespan([7, 1, 1, 1], 2) == 7
    assert makespan([1, 2, 3], 1) == 6


def test_branches_wait_for_their_parents(make_run):
    trunk = make_run("schedule=constant", "data.tokens=5120", "snapshots=[1280,2560]")
    child = make_run(f"branch.parent={trunk.run_id}", "branch.tokens=2560", "snapshots=[3840]")
    grandchild = make_run(f"branch.parent={child.run_id}", "branch.tokens=3840", "optimizer.lr=1e-3")
    other = make_run("seed=5")
    assert waves([grandchild, child, other, trunk]) == [[other, trunk], [child], [grandchild]]


def test_a_parent_that_is_nowhere_is_named(make_run):
    with pytest.raises(InputError, match=r"^branch\.parent=nobody: no such run in "):
        waves([make_run("branch.parent=nobody", "branch.tokens=1280")])


def test_a_snapshot_that_a_finished_parent_lacks_is_named_with_those_there(make_run):
    trunk = make_run("snapshots=[1280,2560]")
    folder = RunFolder(trunk).path
    (folder / "snapshots").mkdir(parents=True)
    (folder / "config.yaml").touch()
    for tokens in trunk.snapshots:
        snapshot_path(folder, tokens).touch()
    with pytest.raises(InputError, match=r"^branch\.tokens=3840: .* has no such snapshot; it has 1280, 2560$"):
        waves([make_run(f"branch.parent={trunk.run_id}", "branch.tokens=3840")])


def test_a_snapshot_that_the_parent_will_not_make_is_named(make_run):
    trunk = make_run("snapshots=[1280,2560]")
    with pytest.raises(InputError, match=r"^branch\.tokens=640: .* makes no such snapshot; it makes 1280, 2560$"):
        waves([trunk, make_run(f"branch.parent={trunk.run_id}", "branch.tokens=640")])


def test_stack_files_give_back_their_runs_and_never_replace_another(make_run):
    runs = with_threads([make_run(f"seed={seed}", "runtime.threads=null") for seed in range(3)], 2)
    assert [run.runtime.threads for run in runs] == [2, 2, 2]
    first, second = write_stack(runs[:2]), write_stack(runs[2:])
    assert (first.name, second.name) == ("000.json", "001.json")
    assert first.parent.parent.name == runs[0].study
    assert read_stack(first) == runs[:2] and read_stack(second) == runs[2:]


def test_threads_that_were_asked_for_stay(make_run):
    assert with_threads([make_run("runtime.threads=3")], 1)[0].runtime.threads == 3


@pytest.mark.parametrize(
    "text, line", [("{", "cannot be read"), ("[]", "not a list of runs"), ("{}", "not a list of runs")]
)
def test_a_damaged_stack_file_is_named(tmp_path, text, line):
    path = tmp_path / "000.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"stack={path}: {line}"):
        read_stack(path)


def test_a_stack_of_two_shapes_is_refused(make_run):
    path = write_stack([make_run(), make_run("model.d_ff=32")])
    with pytest.raises(InputError, match="differ in shape"):
        read_stack(path)
