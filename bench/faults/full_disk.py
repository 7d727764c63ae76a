"""A disk that fills up: commands run on a file system of a few hundred kilobytes, or of a few inodes, at whose limit
they stop; then there is room, and the same command has to go on.

The file systems are tmpfs mounts of a namespace of their own, which needs no rights where the system lets users make
such namespaces, and vanishes with the process. `python -m bench.faults.full_disk` is that process.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from bench.faults.commands import Command, preload, run
from bench.faults.kills import Reference
from bench.faults.outcomes import Case, crashed, judged, last_line
from bench.faults.place import COLLECT, FIGURES, QUANTIZE, SWEEP, Place, differences, files_state, study_state
from scaling.errors import InputError

SECTION = "full disk"
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
ROOM = "64m"
"""A file system that is large enough."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A command, what it finds and what it makes, and at how many points its disk is full."""

    name: str
    command: Command
    points: int
    expected: str
    """Kind of kill with the same command, for what must be there in the end."""
    after: str
    """Stage of the reference that is there then."""
    makes: tuple[str, ...]
    """Folders of the place that it writes to."""
    stage: str | None = None
    """Stage that it finds; None: nothing."""
    finds: tuple[str, ...] = ("cache", "outputs")
    inodes: bool = False
    """Whether it is inodes that run out."""


ANEW = {"expected": "sweep, basic", "after": "sweep", "makes": ("cache", "outputs")}
KINDS = (
    Kind(name="sweep", command=SWEEP, points=7, **ANEW),
    Kind(name="sweep, W&B offline", command=Command.of(*SWEEP.words, "tracking=offline"), points=3, **ANEW),
    Kind(name="sweep, no inodes", command=SWEEP, points=3, inodes=True, **ANEW),
    Kind(name="ptq", command=QUANTIZE, points=3, expected="ptq", stage="sweep", after="ptq", makes=("outputs",)),
    Kind(
        name="collect",
        command=COLLECT,
        points=2,
        expected="collect",
        stage="sweep",
        after="collect",
        makes=("results",),
    ),
    Kind(
        name="figures",
        command=FIGURES,
        points=2,
        expected="figures",
        stage="collect",
        finds=("results",),
        after="figures",
        makes=("results",),
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}


class Use(NamedTuple):
    """What is taken of a file system."""

    bytes: int
    inodes: int

    @classmethod
    def of(cls, path: Path) -> "Use":
        usage = os.statvfs(path)
        return cls((usage.f_blocks - usage.f_bfree) * usage.f_frsize, usage.f_files - usage.f_ffree)


def cases(reference: Reference, root: Path, processes: int, seed: int, count: int | None) -> Iterator[list[Case]]:
    """Twenty points, or about so many, at least one of each kind; none, with a line, where nothing can be mounted."""
    if (why := _cannot_mount()) is not None:
        print(f"full disk: skipped, no file system can be mounted here: {why}", file=sys.stderr, flush=True)
        return
    draw, abouts = random.Random(seed), []
    for kind in KINDS:
        points = kind.points if count is None else max(1, round(kind.points * count / 20))
        abouts += [(kind.name, (point + draw.random()) / points) for point in range(points)]
    draw.shuffle(abouts)
    folder = root / SECTION
    folder.mkdir()
    (folder / "reference").write_bytes(pickle.dumps(reference))
    lanes = [_Lane(folder / str(number), abouts[number::processes]) for number in range(processes)]
    for about in zip_longest(*(lane.cases() for lane in lanes)):
        yield [case for case in about if case is not None]


def _cannot_mount() -> str | None:
    """Why there can be no file system here; None where there can."""
    if shutil.which("unshare") is None:
        return "there is no command unshare"
    words = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return last_line(tried.stderr) if tried.returncode else None


class _Lane:
    """A process in a namespace of its own, which tries one point after the other. `folder` is its."""

    def __init__(self, folder: Path, abouts: Sequence[tuple[str, float]]):
        folder.mkdir()
        words = [*NAMESPACE, sys.executable, "-m", __name__, folder, json.dumps(abouts)]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        self.log = folder / "log"

    def cases(self) -> Iterator[Case]:
        """What became of each, as they are done.

        Raises:
            InputError: the process ended early.
        """
        for line in self.process.stdout:
            yield Case(**json.loads(line))
        if self.process.wait():
            raise InputError(f"{SECTION}: {last_line(self.log.read_text(encoding='utf-8', errors='replace'))}")


def main(folder: Path, abouts: Sequence[tuple[str, float]]) -> None:
    """Try each point, of a kind and a share of what its command takes, and print the case as JSON."""
    preload()
    reference: Reference = pickle.loads((folder.parent / "reference").read_bytes())
    (folder / "logs").mkdir()
    (disk := folder / "disk").mkdir()
    for name, share in abouts:
        kind = BY_NAME[name]
        limits = _limits(kind, disk, reference.stages, share)
        with _mounted(disk, limits):
            case = _case(kind, share, disk, folder, reference)
        print(json.dumps(dataclasses.asdict(case)), flush=True)


def _limits(kind: Kind, disk: Path, stages: Path, share: float) -> str:
    """Options of a file system that is full where a command has made such a share of all that it makes."""
    with _mounted(disk, f"size={ROOM}"):
        place = Place(disk / "place", disk)
        if kind.stage:
            place.take(stages / kind.stage, *kind.finds)
        before = Use.of(disk)
        for name in kind.makes:
            place.take(stages / kind.after, name)
        after = Use.of(disk)
    if kind.inodes:
        return f"size={ROOM},nr_inodes={before.inodes + 1 + int(share * (after.inodes - before.inodes))}"
    return f"size={before.bytes + int(share * (after.bytes - before.bytes))}"


def _case(kind: Kind, share: float, disk: Path, folder: Path, reference: Reference) -> Case:
    place, logs = Place(disk / "place", folder.parents[1]), folder / "logs"
    if kind.stage:
        place.take(reference.stages / kind.stage, *kind.finds)
    ended = run(kind.command, place.root, logs)
    outcome, detail = judged(ended, _changes(kind, place, reference), ("No space left on device",))
    if outcome == "one line":
        _mount(disk, f"remount,size={ROOM},nr_inodes=0")
        again = run(kind.command, place.root, logs)
        if fault := crashed([again]):
            outcome, detail = "traceback", fault
        elif again.status:
            outcome, detail = "lost", f"with room again, {again.command}: {last_line(again.err)}"
        elif changed := _changes(kind, place, reference):
            outcome, detail = "lost", f"with room again, others are: {', '.join(changed[:4])}"
    what = f"{'inodes' if kind.inodes else 'bytes'} for {share:.0%} of what it makes"
    return Case(section=SECTION, kind=kind.name, what=what, outcome=outcome, detail=detail)


def _changes(kind: Kind, place: Place, reference: Reference) -> list[str]:
    of_runs = kind.after in ("sweep", "ptq")
    try:
        state = study_state(place.study) if of_runs else files_state(place.results)
    except InputError as fault:
        return [str(fault)]
    return differences(state, reference.states[kind.expected])


@contextlib.contextmanager
def _mounted(disk: Path, options: str) -> Iterator[None]:
    _mount(disk, options)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # W&B's service may not have ended yet


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)


if __name__ == "__main__":
    # Pickled by the names of modules, which must not be __main__.
    from bench.faults.full_disk import main as entry

    entry(Path(sys.argv[1]), json.loads(sys.argv[2]))
