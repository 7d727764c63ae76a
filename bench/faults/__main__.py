"""The command `python -m bench.faults`."""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bench.faults
from bench.faults import damage, full_disk, kills, outcomes
from bench.faults.commands import preload
from bench.faults.outcomes import Case
from bench.faults.place import Place, write_words
from scaling.errors import InputError

PROG = "python -m bench.faults"
SECTIONS = {module.SECTION: module for module in (kills, damage, full_disk)}
"""Name of a part -> its module, whose `cases` yields what became of each of its tasks."""


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 only if no case was silent, lost, unclear or a traceback."""
    parser = argparse.ArgumentParser(PROG, description=bench.faults.__doc__.partition("\n\n")[0])
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a part; may be repeated")
    parser.add_argument("--cases", type=int, metavar="N", help="about so many of each part; all, if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, metavar="N", default=2, help="so many cases side by side")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave everything behind")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        with _folder(chosen.keep) as root:
            cases = list(_cases(root, chosen, say))
    except InputError as fault:
        print(f"{PROG}: {fault}", file=sys.stderr)
        return 1
    print("\n".join(outcomes.table(cases)))
    bad = sum(case.outcome not in outcomes.GOOD for case in cases)
    print(f"{len(cases)} cases, {bad} bad; seed {chosen.seed}, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="faults-") as name:
            yield Path(name).resolve()
    elif keep.exists():
        raise InputError(f"--keep {keep}: is there already; name a new folder")
    else:
        keep.mkdir(parents=True)
        yield keep.resolve()


def _cases(root: Path, chosen: argparse.Namespace, say: Callable[[str], None]) -> Iterator[Case]:
    preload()
    write_words(root)
    logs = root / "undisturbed" / "logs"
    place = Place(root / "undisturbed" / "place", root)
    logs.mkdir()
    reference = kills.reference(place, root / "stages", logs, say)
    for name in chosen.only or SECTIONS:
        done, bad = 0, 0
        for cases in SECTIONS[name].cases(reference, root, chosen.processes, chosen.seed, chosen.cases):
            done, bad = done + len(cases), bad + sum(case.outcome not in outcomes.GOOD for case in cases)
            say(f"{name}: {done} cases, {bad} bad; {cases[-1].kind}: {cases[-1].outcome}")
            yield from cases


if __name__ == "__main__":
    sys.exit(main())
