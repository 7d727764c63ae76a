"""Files cut, zeroed, swapped with another of their kind, or with one bit flipped: every file of run folders, of a
corpus and of a study's results, each under the commands that may read it.
"""

import dataclasses
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.faults.commands import Command, Ended, run
from bench.faults.kills import Reference
from bench.faults.lanes import in_lanes
from bench.faults.outcomes import Case, judged, last_line
from bench.faults.place import COLLECT, FIGURES, QUANTIZE, STUDY, Place, State, differences, files_state, study_state
from scaling.errors import InputError

SECTION = "damage"
CASES = 1000
AT_A_TIME = 10
DAMAGES = ("cut", "zeroed", "swapped", "bit flipped", "bit flipped")
AS_PROCESS = 40
"""One in so many cases is a process of its own; the others are calls, which take a fraction of the time."""
HEALED = 8
"""In one in so many refused cases the file is put back, and the command must do as if nothing had been."""
HALF = 60
"""Steps after which training is stopped that is to go on with damaged files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """A command with what it reads."""

    name: str
    command: Command
    stage: str
    """Of the reference: what it finds."""
    finds: str
    """The folder of it that is needed, beside the corpus."""
    files: tuple[str, ...]
    """Patterns of those that are damaged."""
    state: Callable[[Place, Ended], State]
    """What of its work must be the same."""
    of_thousand: int
    as_process: bool = False
    """Whether every case is a process: in one that lives on, what was read is not read again."""


def _runs(place: Place, ended: Ended) -> State:
    return study_state(place.study, curves=False)


def _results(place: Place, ended: Ended) -> State:
    return files_state(place.results)


def _made(place: Place, ended: Ended) -> State:
    return files_state(place.root / "made")


def _printed(place: Place, ended: Ended) -> State:
    return {"what it prints": ended.out}


RUN_FILES = f"outputs/{STUDY}/n*/**/*"
CORPUS_FILES = "cache/*/*"
TABLE = f"results/{STUDY}/runs.csv"
TABLE_FILES = (TABLE, f"{TABLE}.sha256", f"results/{STUDY}/provenance.json")
RESUME = Command.of("scaling.train", f"+stack=outputs/{STUDY}/stacks/000.json", "hydra.run.dir=.")
FIT = Command.of("analysis", "fit", "kumar_ptq", TABLE, "--out", "made/fits.json", "--bootstrap", "0")
SLOPES = Command.of("analysis", "slopes", "kumar_ptq", TABLE, "--out", "made/slopes.csv")
PREDICT = Command.of("analysis", "predict", f"results/{STUDY}/fits.json", "--N", "2e5", "--D", "2e6", "--post", "int4")
READERS = (
    Reader(
        name="collect",
        command=COLLECT,
        stage="sweep",
        finds="outputs",
        files=(RUN_FILES,),
        state=_results,
        of_thousand=330,
    ),
    Reader(
        name="ptq", command=QUANTIZE, stage="sweep", finds="outputs", files=(RUN_FILES,), state=_runs, of_thousand=150
    ),
    Reader(
        name="training goes on",
        command=RESUME,
        stage="half",
        finds="outputs",
        files=(RUN_FILES, f"outputs/{STUDY}/stacks/*"),
        state=_runs,
        of_thousand=220,
    ),
    Reader(
        name="training",
        command=RESUME,
        stage="half",
        finds="outputs",
        files=(CORPUS_FILES,),
        state=_runs,
        of_thousand=125,
    ),
    Reader(
        name="ptq (corpus)",
        command=QUANTIZE,
        stage="sweep",
        finds="outputs",
        files=(CORPUS_FILES,),
        state=_runs,
        of_thousand=15,
        as_process=True,
    ),
    Reader(name="fit", command=FIT, stage="figures", finds="results", files=TABLE_FILES, state=_made, of_thousand=60),
    Reader(
        name="slopes", command=SLOPES, stage="figures", finds="results", files=TABLE_FILES, state=_made, of_thousand=30
    ),
    Reader(
        name="predict",
        command=PREDICT,
        stage="figures",
        finds="results",
        files=(f"results/{STUDY}/fits.json",),
        state=_printed,
        of_thousand=64,
    ),
    Reader(
        name="figures",
        command=FIGURES,
        stage="figures",
        finds="results",
        files=(f"results/{STUDY}/**/*",),
        state=_results,
        of_thousand=6,
    ),
)
BY_NAME = {reader.name: reader for reader in READERS}


def cases(reference: Reference, root: Path, processes: int, seed: int, count: int | None) -> Iterator[list[Case]]:
    """The cases of each reader: a thousand, or about so many, at least one of each reader.

    Raises:
        InputError: a command fails that was not disturbed.
    """
    whole = Place(root / SECTION / "undisturbed", root)
    (logs := root / SECTION / "logs").mkdir()
    _halve(whole, reference.stages)
    abouts = []
    for reader in READERS:
        _restore(whole, reference.stages, reader)
        ended = run(reader.command, whole.root, logs)
        if ended.status:
            raise InputError(f"undisturbed, {ended.command} failed: {last_line(ended.err)}")
        expected = reader.state(whole, ended)
        left = max(1, round(reader.of_thousand * (CASES if count is None else count) / 1000))
        for number in range(-(-left // AT_A_TIME)):
            size = min(AT_A_TIME, left - number * AT_A_TIME)
            abouts.append((reader.name, size, reference.stages, expected, f"{seed} {reader.name} {number}"))
    random.Random(seed).shuffle(abouts)
    return in_lanes(_some, abouts, root / SECTION, processes, with_study=False)


def _halve(place: Place, stages: Path) -> None:
    """Keep, as a stage, a study of which a stack was stopped half way, with a run of it that had ended by then."""
    place.take(stages / "sweep", "cache")
    process = multiprocessing.get_context("fork").Process(target=_train_half, args=(place,))
    process.start()
    process.join()
    if process.exitcode:
        raise InputError("undisturbed, a stack could not be trained to its half")
    Place.copy(place.root, stages / "half")


def _train_half(place: Place) -> None:
    from scaling import sweep
    from scaling.study.jobs import write_stack
    from scaling.training.loop import Loop, train_stack

    os.chdir(place.root)
    every = [run for run in sweep.load(STUDY, []).runs if run.branch.parent is None and run.data.batch_tokens == 128]
    shape = every[0].stack_key
    runs = [run for run in every if run.stack_key == shape]
    write_stack(runs)
    update, done = Loop.update, []

    def stopped(loop: Loop) -> None:
        if len(done) == HALF:
            raise KeyboardInterrupt
        done.append(update(loop))

    Loop.update = stopped
    try:
        train_stack(runs)
    except KeyboardInterrupt:
        os._exit(0)
    os._exit(1)


def _restore(place: Place, stages: Path, reader: Reader) -> None:
    place.remove("made", "results", "outputs")
    place.take(stages / reader.stage, "cache", reader.finds)


def _some(place: Place, logs: Path, name: str, size: int, stages: Path, expected: State, seed: str) -> list[Case]:
    """Some cases of one reader."""
    draw = random.Random(seed)
    os.chdir(place.root)
    return [_case(place, logs, BY_NAME[name], stages, expected, draw) for _ in range(size)]


def _case(place: Place, logs: Path, reader: Reader, stages: Path, expected: State, draw: random.Random) -> Case:
    _restore(place, stages, reader)
    files = sorted(path for pattern in reader.files for path in place.root.glob(pattern) if path.is_file())
    path = draw.choice(files)
    content = path.read_bytes()
    damage, changed = _damaged(path, content, files, draw)
    path.write_bytes(changed)
    how = "fork" if reader.as_process or draw.randrange(AS_PROCESS) == 0 else "here"
    ended = run(reader.command, place.root, logs, how)
    if path.exists() and path.read_bytes() == changed:
        path.write_bytes(content)  # what nobody has read or mended says nothing of the rest
    outcome, detail = judged(ended, _changes(reader, place, ended, expected), (path.name, path.parent.name))
    if outcome == "one line" and draw.randrange(HEALED) == 0:
        path.write_bytes(content)
        again = run(reader.command, place.root, logs, how)
        if again.status or (left := _changes(reader, place, again, expected)):
            outcome, detail = "lost", f"put back, {again.command}: {last_line(again.err) if again.status else left}"
    kind = f"{reader.name}, {damage}"
    return Case(section=SECTION, kind=kind, what=str(path.relative_to(place.root)), outcome=outcome, detail=detail)


def _changes(reader: Reader, place: Place, ended: Ended, expected: State) -> list[str]:
    try:
        return differences(reader.state(place, ended), expected)
    except (InputError, OSError) as fault:
        return [str(fault)]


def _damaged(path: Path, content: bytes, files: list[Path], draw: random.Random) -> tuple[str, bytes]:
    """The kind of damage, and what a file then holds, which is something else."""
    while True:
        damage = draw.choice(DAMAGES)
        changed = bytearray(content)
        if damage == "cut":
            ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]  # where a line ends it looks whole
            del changed[draw.choice(ends) if ends and draw.random() < 0.3 else draw.randrange(len(content) + 1) :]
        elif damage == "zeroed":
            places = [0, len(content) // 2, len(content), draw.randrange(len(content) + 1)]
            first, last = sorted(draw.sample(places, 2))
            changed[first:last] = bytes(last - first)
        elif damage == "swapped":
            alike = [other for other in files if other.name == path.name or other.parent == path.parent]
            changed = bytearray(draw.choice(alike).read_bytes())
        elif content:
            changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        if changed != content:
            return damage, bytes(changed)
