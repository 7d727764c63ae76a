"""The place of a process among others, from torchrun, and how many processes print as one.

Nothing heavy is imported here: `--help` asks as well.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from scaling.console.cli import EXPECTED

SECONDS_TO_SPEAK = 10.0


class Place(NamedTuple):
    """One process of those that train a run together. `local`: among those on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def place() -> Place:
    """Where torchrun has put this process; alone where it did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process say what all have to say: bad input is found by each of them, and an interrupt is agreed
    upon. The others wait for it to end, upon which torchrun ends them; ending first, they would cut it short."""
    if place().rank == 0:
        yield
        return
    try:
        try:
            yield
        except EXPECTED:
            time.sleep(SECONDS_TO_SPEAK)
            raise  # the first has found no fault
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Let a process that has peers end at once where it ends with a fault: what torch would clean up behind it has
    threads that wait for the peers, and aborts on them."""
    try:
        yield
    except SystemExit as end:
        if place().size == 1 or not end.code:
            raise
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
