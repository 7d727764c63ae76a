"""The command `python -m bench.unchanged COMMIT`."""

import argparse
import os
import sys
import time
from pathlib import Path

import bench.unchanged
from bench.unchanged.compare import compared
from bench.unchanged.sides import FailedError, base, run, tree

PROG = "python -m bench.unchanged"
MOST_SHOWN = 5  # differences of a group
REPOSITORY = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 only if everything is the same."""
    parser = argparse.ArgumentParser(PROG, description=bench.unchanged.__doc__.partition("\n\n")[0])
    parser.add_argument("base", metavar="COMMIT", help="to compare the working tree with")
    parser.add_argument(
        "--processes", type=int, default=min(2, os.cpu_count() or 1), help="at a time, of one thread each"
    )
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        before, done = base(REPOSITORY, chosen.base)
        after = tree(REPOSITORY)
        sides = (after,) if done.exists() else (before, after)
        _say(f"{before.name} is {'kept from before' if done.exists() else 'run as well'}; output in {done.parent}")
        run(sides, chosen.processes, _say)
        done.touch()
    except FailedError as fault:
        print(f"{PROG}: {fault}", file=sys.stderr)
        return 1
    same = True
    for outcome in compared(before.out, after.out):
        print(outcome)
        for difference in outcome.differences[:MOST_SHOWN]:
            print(f"  {difference}")
        if len(outcome.differences) > MOST_SHOWN:
            print(f"  and {len(outcome.differences) - MOST_SHOWN} more")
        same &= not outcome.differences
    verdict = "nothing changed" if same else "something changed"
    print(f"{verdict} from {before.name} to the tree; {time.monotonic() - began:.0f} s; output in {done.parent.parent}")
    return 0 if same else 1


def _say(line: str) -> None:
    print(f"unchanged: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
