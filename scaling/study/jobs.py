"""From runs to jobs: who has to wait for whom, who is trained together, and the files that list the runs of a job."""

import dataclasses
import heapq
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from scaling.config.from_dict import plain
from scaling.config.run import Run, build_run
from scaling.console.allocation import cores
from scaling.errors import InputError
from scaling.model.stack_size import best_size
from scaling.records.files import is_intact, with_checksum, write_new
from scaling.records.run_folder import RunFolder, parent_snapshot, snapshot_path
from scaling.study.cost import cost, work
from scaling.study.machine import room
from scaling.study.memory import device_of, most_models
from scaling.training.families import at_once, busy, families

SLACK = 1.1
"""Workers may end this much apart, and runs that share less are not kept together for it: it would cost more than it
gains."""


def waves(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in the order in which they can be trained: each wave branches from snapshots that are there after the last.

    Raises:
        InputError: a run branches from a snapshot that is neither on disk nor made by another of the runs.
    """
    by_id = {run.run_id: run for run in runs}

    def depth(run: Run) -> int:
        parent, tokens = run.branch.parent, run.branch.tokens
        if parent is None or snapshot_path(RunFolder(run).path.parent / parent, tokens).exists():
            return 0
        if parent not in by_id:
            parent_snapshot(run)  # says what is not there
        if tokens not in by_id[parent].snapshots:
            made = ", ".join(map(str, by_id[parent].snapshots)) or "none"
            raise InputError(f"branch.tokens={tokens}: {parent} makes no such snapshot; it makes {made}")
        return 1 + depth(by_id[parent])

    ordered = sorted(((depth(run), i) for i, run in enumerate(runs)))
    return [[runs[i] for _, i in wave] for _, wave in groupby(ordered, key=lambda pair: pair[0])]


class Bundle(NamedTuple):
    """Runs that are trained in one stack in any case: a family, or a run that shares nothing."""

    runs: list[Run]
    cost: float
    busy: list[range]
    """When there is a copy of a model, one range a copy, in steps of the stack."""


def stacks(runs: Sequence[Run], workers: int) -> list[list[Run]]:
    """Group runs of one shape into stacks of at most `runtime.max_members` models at once (null: `best_size`), and no
    more than fit into a worker's share of the memory; the costliest first.

    Below that size stacks are split only as long as that lets `workers` that take them in this order end closer
    together. A run that costs more than its share stays whole: nothing can be done about it.

    So does a family (`scaling.training.families`), even where a worker has nothing to do: as a rule it takes little
    longer than its longest run, which has to be trained anyway, and in two stacks its trunk would be computed twice.
    Nor is the size that is fastest on a CPU a reason to split it; memory is, and a size that may stand for it:
    `runtime.max_members`, or the size on an accelerator.
    """
    bundle_lists: list[list[Bundle]] = []
    for _, group in groupby(sorted(runs, key=lambda run: run.stack_key), key=lambda run: run.stack_key):
        members = list(group)
        largest = members[0].runtime.max_members or best_size(
            members[0], device_of(members[0]), max(1, cores() // workers)
        )
        fitting = _fitting(members, workers)
        largest = min(largest, fitting or largest)
        bundles = bundled(members, largest if _is_hard(members[0]) else fitting)
        bundle_lists += spread(bundles, -(-at_once(_times(bundles)) // largest), largest)
    bundle_lists.sort(key=_cost, reverse=True)
    costs = [bundle.cost for stack in bundle_lists for bundle in stack]
    best_possible = max(sum(costs) / workers, max(costs, default=0.0))
    while makespan(map(_cost, bundle_lists), workers) > SLACK * best_possible:
        stack = next((stack for stack in bundle_lists if len(stack) > 1), None)
        if stack is None:
            break
        bundle_lists.remove(stack)
        bundle_lists = sorted([*bundle_lists, *spread(stack, 2, at_once(_times(stack)))], key=_cost, reverse=True)
    return [[run for bundle in stack for run in bundle.runs] for stack in bundle_lists]


def cost_together(runs: Sequence[Run]) -> float:
    """FLOPs of runs in one stack, with their evaluations: an update that several share is counted once."""
    return work(runs).total


def bundled(runs: Sequence[Run], largest: int | None) -> list[Bundle]:
    """The families of the runs: one of which more than `largest` copies are alive at once in smaller parts, one that
    saves next to nothing as single runs."""
    bundles = []
    for family in families(runs):
        ordered = sorted(family, key=lambda run: (-run.steps, run.run_id))
        if sum(map(cost, ordered)) < SLACK * cost_together(ordered):
            parts = [[run] for run in ordered]
        elif largest is None or at_once(busy(ordered)) <= largest:
            parts = [ordered]
        else:
            parts = _split(ordered, largest)
        bundles += [Bundle(part, cost_together(part), busy(part)) for part in parts]
    return bundles


def _split(family: Sequence[Run], largest: int) -> list[list[Run]]:
    """Each run of a family, farthest horizon first, goes where it adds least of those where it fits."""
    parts: list[list[Run]] = []
    for run in family:
        fitting = [part for part in parts if at_once(busy([*part, run])) <= largest]
        if fitting:
            min(fitting, key=lambda part: cost_together([*part, run]) - cost_together(part)).append(run)
        else:
            parts.append([run])
    return parts


def _cost(stack: Sequence[Bundle]) -> float:
    return sum(bundle.cost for bundle in stack)


def _times(stack: Sequence[Bundle]) -> list[range]:
    return [times for bundle in stack for times in bundle.busy]


def _is_hard(run: Run) -> bool:
    """Whether the largest size of a stack may stand for memory."""
    return run.runtime.max_members is not None or device_of(run) != "cpu"


def _fitting(members: Sequence[Run], workers: int) -> int | None:
    """How many models of this shape fit into a worker's share of the memory, at least one; None where that share is not
    known."""
    share = room(members[0], workers)
    return None if share is None else most_models(members, share)


def spread(bundles: Sequence[Bundle], parts: int, largest: int) -> list[list[Bundle]]:
    """Share out bundles over `parts` lists of nearly equal cost, or more: none with more than `largest` models at once,
    if it is not one bundle alone."""
    lists: list[list[Bundle]] = [[] for _ in range(parts)]
    for bundle in sorted(bundles, key=lambda bundle: (-bundle.cost, bundle.runs[0].run_id)):
        fitting = [part for part in lists if at_once(_times([*part, bundle])) <= largest]
        if fitting:
            min(fitting, key=_cost).append(bundle)
        else:
            lists.append([bundle])
    return [part for part in lists if part]


def makespan(costs: Iterable[float], workers: int) -> float:
    """When the last of `workers` ends, each taking the next of the costs as soon as it is free."""
    ends = [0.0] * workers
    for amount in costs:
        heapq.heapreplace(ends, ends[0] + amount)
    return max(ends)


def with_threads(runs: Sequence[Run], threads: int | None) -> list[Run]:
    """The runs with `runtime.threads` filled in where it is open."""
    return [run if run.runtime.threads else _with_runtime(run, threads=threads) for run in runs]


def with_memory(runs: Sequence[Run], gigabytes: float | None) -> list[Run]:
    """The runs with `runtime.memory_gb` filled in where it is open, and where it is the machine's and not a GPU's."""
    return [
        run if run.runtime.memory_gb or device_of(run) != "cpu" else _with_runtime(run, memory_gb=gigabytes)
        for run in runs
    ]


def _with_runtime(run: Run, **settings: object) -> Run:
    return dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, **settings))


def write_stack(runs: Sequence[Run]) -> Path:
    """Write the next free `<out>/<study>/stacks/NNN.json`: the resolved configs of the runs that one job trains."""
    folder = (RunFolder(runs[0]).path.parent / "stacks").absolute()
    number = max((int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()), default=-1) + 1
    text = json.dumps([with_checksum(plain(run)) for run in runs], indent=1) + "\n"
    while not write_new(path := folder / f"{number:03}.json", text):
        number += 1  # another sweep has just taken it
    return path


def read_stack(path: Path) -> list[Run]:
    """The runs of a stack file.

    Raises:
        InputError: the file is missing, damaged or is not a list of runs of one shape, whose study's folder is that of
            the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise InputError(f"stack={path}: cannot be read ({fault}); use a file that a sweep wrote") from None
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        raise InputError(f"stack={path}: not a list of runs; use a file that a sweep wrote")
    if not all(map(is_intact, values)):
        raise InputError(f"stack={path}: damaged or edited, a run has another checksum; use a file that a sweep wrote")
    try:
        runs = [build_run({name: of_run for name, of_run in value.items() if name != "sha256"}) for value in values]
    except InputError as fault:
        raise InputError(f"stack={path}: {fault}; use a file that a sweep wrote") from None
    if len({run.stack_key for run in runs}) > 1:
        raise InputError(f"stack={path}: its runs differ in shape and cannot be trained together")
    folder = RunFolder(runs[0]).path.parent
    if len({RunFolder(run).path.parent for run in runs}) > 1 or folder.resolve() != path.resolve().parent.parent:
        raise InputError(f"stack={path}: expected the file in a folder of that of its runs, {folder}")
    return runs
