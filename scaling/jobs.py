"""From runs to jobs: who has to wait for whom, who is trained together, and the files that tell a job its runs."""

import dataclasses
import heapq
import json
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from scaling.config import Run, build_run, resolve_device
from scaling.door import plain
from scaling.errors import InputError
from scaling.estimate import cost
from scaling.runs import RunFolder, snapshot_path, write_text
from scaling.stack import best_size

# Workers may end this much apart; splitting stacks further would cost more than it gains.
SLACK = 1.1


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
            raise InputError(
                f"branch.parent={parent}: not a run of this study, and no snapshot {tokens} of it is there"
            )
        if tokens not in by_id[parent].snapshots:
            made = ", ".join(map(str, by_id[parent].snapshots)) or "none"
            raise InputError(f"branch.tokens={tokens}: {parent} makes no such snapshot; it makes {made}")
        return 1 + depth(by_id[parent])

    ordered = sorted(((depth(run), i) for i, run in enumerate(runs)))
    return [[runs[i] for _, i in wave] for _, wave in groupby(ordered, key=lambda pair: pair[0])]


def stacks(runs: Sequence[Run], workers: int) -> list[list[Run]]:
    """Group runs of one shape into stacks of at most `runtime.max_members` (null: `best_size`), the costliest first.

    Below that size stacks are split only as long as that lets `workers` that take them in this order end closer
    together. A run that costs more than its share stays whole: nothing can be done about it.
    """
    costs = {id(run): cost(run) for run in runs}

    def weight(stack: list[Run]) -> float:
        return sum(costs[id(run)] for run in stack)

    found = []
    for _, group in groupby(sorted(runs, key=lambda run: run.stack_key), key=lambda run: run.stack_key):
        members = list(group)
        largest = members[0].runtime.max_members or _best_size(members[0], max(1, cores() // workers))
        found += spread(members, -(-len(members) // largest), largest)
    found.sort(key=weight, reverse=True)
    best_possible = max(sum(costs.values()) / workers, max(costs.values()))
    while makespan(map(weight, found), workers) > SLACK * best_possible:
        stack = next((stack for stack in found if len(stack) > 1), None)
        if stack is None:
            break
        found.remove(stack)
        found = sorted([*found, *spread(stack, 2, len(stack) - 1)], key=weight, reverse=True)
    return found


def _best_size(run: Run, threads: int) -> int:
    device = run.runtime.device
    return best_size(run, resolve_device(device) if device == "auto" else device, threads)


def spread(runs: Sequence[Run], parts: int, largest: int) -> list[list[Run]]:
    """Share out runs over `parts` lists of nearly equal cost, none with more than `largest` runs."""
    heap = [(0.0, i, []) for i in range(parts)]
    full = []
    for run in sorted(runs, key=lambda run: (-cost(run), run.run_id)):
        total, i, members = heapq.heappop(heap)
        members.append(run)
        if len(members) < largest:
            heapq.heappush(heap, (total + cost(run), i, members))
        else:
            full.append(members)
    return [*full, *(members for _, _, members in heap if members)]


def makespan(costs: Iterable[float], workers: int) -> float:
    """When the last of `workers` ends, each taking the next of the costs as soon as it is free."""
    ends = [0.0] * workers
    for amount in costs:
        heapq.heapreplace(ends, ends[0] + amount)
    return max(ends)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_threads(runs: Sequence[Run], threads: int) -> list[Run]:
    """The runs with `runtime.threads` filled in where it is open."""
    return [
        run
        if run.runtime.threads
        else dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, threads=threads))
        for run in runs
    ]


def write_stack(runs: Sequence[Run]) -> Path:
    """Write the next free `<out>/<study>/stacks/NNN.json`: the resolved configs of the runs that one job trains."""
    folder = (RunFolder(runs[0]).path.parent / "stacks").absolute()
    number = max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=-1) + 1
    path = folder / f"{number:03}.json"
    write_text(path, json.dumps([plain(run) for run in runs], indent=1) + "\n")
    return path


def read_stack(path: Path) -> list[Run]:
    """The runs of a stack file.

    Raises:
        InputError: the file is missing or is not a list of runs of one shape.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as fault:
        raise InputError(f"stack={path}: cannot be read ({fault}); use a file that a sweep wrote") from None
    if not isinstance(values, list) or not values:
        raise InputError(f"stack={path}: not a list of runs; use a file that a sweep wrote")
    runs = [build_run(value) for value in values]
    if len({run.stack_key for run in runs}) > 1:
        raise InputError(f"stack={path}: its runs differ in shape and cannot be trained together")
    return runs
