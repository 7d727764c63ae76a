"""SIGKILL at random times: sweeps by both launchers, two sweeps of one study at once, and what comes after a sweep.

An episode starts from nothing, is killed some times over, each time goes on with the same command, and is then left to
its end.
"""

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.faults.commands import Command, Ended, Running, run
from bench.faults.lanes import in_lanes
from bench.faults.outcomes import TRACEBACK, Case, crashed, last_line
from bench.faults.place import (
    COLLECT,
    FIGURES,
    JOBLIB,
    QUANTIZE,
    SWEEP,
    Place,
    State,
    differences,
    files_state,
    study_state,
    table_state,
)
from scaling.errors import InputError

SECTION = "kills"
EARLY = 0.2
"""Share of the kills at any time since the start; all others come once the command has begun to write."""
TRIES = 5
"""A command that was killed must succeed within so many further calls."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What is killed, how often of a hundred, and how often in an episode."""

    name: str
    commands: tuple[Command, ...]
    """Started at once."""
    of_hundred: int
    at_a_time: int
    stage: str | None = None
    """What it finds: the stage of the reference before it; None: nothing."""
    writes: str = "outputs/faults/*/writer.json"
    """Files by whose times it is seen that a command has begun to write."""
    resumes: bool = True
    """Whether a call does only what is left."""

    @property
    def how(self) -> str:
        """A launcher with workers starts them from an interpreter of its own."""
        return "new" if JOBLIB in self.commands else "fork"

    @property
    def trains(self) -> bool:
        return SWEEP in self.commands or JOBLIB in self.commands


KINDS = (
    Kind(name="sweep, basic", commands=(SWEEP,), of_hundred=20, at_a_time=5),
    Kind(name="sweep, joblib", commands=(JOBLIB,), of_hundred=20, at_a_time=5),
    Kind(name="two sweeps at once", commands=(SWEEP, SWEEP), of_hundred=16, at_a_time=4),
    Kind(name="two sweeps, joblib", commands=(JOBLIB, SWEEP), of_hundred=4, at_a_time=4),
    Kind(name="ptq", commands=(QUANTIZE,), of_hundred=16, at_a_time=4, stage="sweep"),
    Kind(
        name="collect",
        commands=(COLLECT,),
        of_hundred=12,
        at_a_time=6,
        stage="sweep",
        writes="results/*/.*",
        resumes=False,
    ),
    Kind(
        name="figures",
        commands=(FIGURES,),
        of_hundred=12,
        at_a_time=6,
        stage="collect",
        writes="results/*/*",
        resumes=False,
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What undisturbed commands leave behind, and how long they take."""

    stages: Path
    """A folder for each command, with the place's folders as they are after it."""
    states: dict[str, State]
    """Kind -> what is there after it."""
    tables: dict[str, State]
    """Kind -> the table that is then collected."""
    seconds: dict[str, tuple[float, float]]
    """Kind -> seconds from its start to its first file, and from there to its end."""


def cases(reference: Reference, root: Path, processes: int, seed: int, count: int | None) -> Iterator[list[Case]]:
    """The kills of each episode: a hundred, or about so many, at least one of each kind."""
    abouts = []
    for kind in KINDS:
        left = max(1, round(kind.of_hundred * (100 if count is None else count) / 100))
        for number in range(-(-left // kind.at_a_time)):
            kills = min(kind.at_a_time, left - number * kind.at_a_time)
            abouts.append((kind.name, kills, reference, f"{seed} {kind.name} {number}"))
    return in_lanes(episode, abouts, root / SECTION, processes)


def reference(place: Place, stages: Path, logs: Path, say: Callable[[str], None]) -> Reference:
    """Run each kind of command once, undisturbed.

    Raises:
        InputError: one fails, or both launchers do not make the same of the study.
    """
    made = Reference(stages=stages, states={}, tables={}, seconds={})

    def undisturbed(name: str, stage: str) -> None:
        kind = BY_NAME[name]
        made.seconds[name] = until_first, writing = _timed(kind, place, logs)
        made.states[name] = _state(kind, place)
        if kind.writes.startswith("outputs"):
            made.tables[name] = _collected(place, logs)
        Place.copy(place.root, stages / stage)
        say(f"undisturbed: {name}: {until_first:.1f} s to its first file, {writing:.1f} s from there")

    undisturbed("sweep, joblib", "joblib")
    place.remove("outputs", "results", "cache")
    undisturbed("sweep, basic", "sweep")
    if other := differences(made.states["sweep, joblib"], made.states["sweep, basic"]):
        raise InputError(f"the launchers make different things of one study: {', '.join(other[:4])}")
    for name in ("two sweeps at once", "two sweeps, joblib"):
        of = "sweep, joblib" if name.endswith("joblib") else "sweep, basic"
        made.states[name], made.tables[name] = made.states[of], made.tables[of]
        made.seconds[name] = made.seconds[of]
    place.remove("results")
    undisturbed("collect", "collect")
    undisturbed("figures", "figures")
    undisturbed("ptq", "ptq")
    return made


def _timed(kind: Kind, place: Place, logs: Path) -> tuple[float, float]:
    running = Running(kind.commands[0], place.root, logs, kind.how)
    running.wait(lambda: _has_written(kind, place, running.began))
    first = time.time() - running.began
    ended = running.ended()
    if ended.status:
        raise InputError(f"undisturbed, {ended.command} failed: {last_line(ended.err)}")
    return first, time.time() - running.began - first


def _has_written(kind: Kind, place: Place, since: float) -> bool:
    for path in place.root.glob(kind.writes):
        try:
            if path.stat().st_mtime > since:
                return True
        except OSError:
            continue
    return False


def _state(kind: Kind, place: Place) -> State:
    return study_state(place.study) if kind.writes.startswith("outputs") else files_state(place.results)


def _collected(place: Place, logs: Path) -> State:
    ended = run(COLLECT, place.root, logs)
    if ended.status:
        raise InputError(f"{COLLECT} failed: {last_line(ended.err)}")
    return table_state(place.table)


def episode(place: Place, logs: Path, name: str, kills: int, reference: Reference, seed: str) -> list[Case]:
    """Start a kind of command, kill it so many times, let it end, and compare."""
    kind, draw = BY_NAME[name], random.Random(seed)
    ended: list[Ended] = []
    plan: list[str] = []
    running: list[Running] = []
    while len(plan) < kills:
        if not running or all(each.poll() is not None for each in running):
            _begin(kind, place, reference, draw)
            running = [Running(command, place.root, logs, kind.how) for command in kind.commands]
        victim, whole_group = draw.randrange(len(running)), draw.random() < 0.5
        when = _killed(kind, running[victim], place, reference, draw, whole_group, len(plan) if kind.resumes else 0)
        if when is None:
            continue
        plan.append(when)
        ended.append(running[victim].ended())
        running[victim] = Running(kind.commands[victim], place.root, logs, kind.how)
    last = [each.ended() for each in running]
    outcome, detail = _outcome(kind, place, logs, reference, ended, last)
    return [Case(section=SECTION, kind=kind.name, what=what, outcome=outcome, detail=detail) for what in plan]


def _begin(kind: Kind, place: Place, reference: Reference, draw: random.Random) -> None:
    """Prepare the folder that the kind of command starts from."""
    place.remove("outputs", "results")
    if kind.stage:
        place.take(reference.stages / kind.stage, "cache", "outputs", "results")
        if kind.stage == "sweep":
            place.remove("results")
    elif draw.random() < 0.5:
        place.remove("cache")


def _killed(
    kind: Kind, victim: Running, place: Place, reference: Reference, draw: random.Random, whole_group: bool, before: int
) -> str | None:
    """Kill a command at a random time, and say when that was; None where it had ended by then. What has been killed
    `before` has less left to do."""
    until_first, writing = reference.seconds[kind.name]
    early = draw.random() < EARLY
    seconds = draw.uniform(0, until_first + writing if early else writing / (1 + before))
    if not early:
        victim.wait(lambda: _has_written(kind, place, victim.began))
    victim.wait(seconds=seconds)
    if victim.poll() is not None:
        return None
    victim.kill(whole_group)
    with_children = ", with its children" if whole_group else ""
    return f"{seconds:.2f} s after {'its start' if early else 'its first file'}{with_children}"


def _outcome(
    kind: Kind, place: Place, logs: Path, reference: Reference, killed: list[Ended], last: list[Ended]
) -> tuple[str, str]:
    """What came of an episode whose last commands have ended."""
    every = list(last)
    for command in dict.fromkeys(kind.commands):
        tries = 0
        while any(each.status for each in last if each.command == command) and tries < TRIES:
            again, tries = run(command, place.root, logs, kind.how), tries + 1
            every.append(again)
            last = [again, *(each for each in last if each.command != command)]
    if fault := crashed(every) or next((f"{e.command}: {TRACEBACK}" for e in killed if TRACEBACK in e.err), ""):
        return "traceback", fault
    if bad := [each for each in last if each.status]:
        return "lost", f"{bad[0].command} still fails: {last_line(bad[0].err)}"
    try:
        changed = differences(_state(kind, place), reference.states[kind.name])
        if not changed and kind.name in reference.tables:
            changed = differences(_collected(place, logs), reference.tables[kind.name])
    except InputError as fault:
        return "lost", str(fault)
    return ("silent", f"exit status 0, and others are: {', '.join(changed[:4])}") if changed else ("same", "")
