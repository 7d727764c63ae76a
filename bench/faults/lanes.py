"""Work side by side: a few processes, each with a place of its own, that take the next task when they are done."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.faults.outcomes import Case
from bench.faults.place import Place

Task = Callable[..., list[Case]]
"""Takes the place to work in, a folder for what is printed, and what the task is about."""

_places: dict[int, tuple[Place, Path]] = {}
"""Process -> its place and the folder for what is printed there."""


def in_lanes(
    task: Task, abouts: Iterable[Sequence[Any]], root: Path, processes: int, **place: bool
) -> Iterator[list[Case]]:
    """The cases of each task, as they are done. Lanes are forked here: what is imported by now is theirs as well."""
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(_in_lane, task, root, place, about) for about in abouts]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def _in_lane(task: Task, root: Path, options: dict[str, bool], about: Sequence[Any]) -> list[Case]:
    if os.getpid() not in _places:
        folder = root / f"lane-{os.getpid()}"
        _places[os.getpid()] = Place(folder / "place", root.parent, **options), folder / "logs"
        (folder / "logs").mkdir()
    return task(*_places[os.getpid()], *about)
