"""Where the runs of a study stand."""

from collections.abc import Sequence
from typing import NamedTuple

from scaling.config.run import Run
from scaling.console.terminal import amount
from scaling.errors import InputError
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder

STATES = ("done", "failed", "partial", "refused", "new")


class Standing(NamedTuple):
    """Where a run stands: one of `STATES`, and in a few words why, or how far it is."""

    state: str
    detail: str


def standing(run: Run) -> Standing:
    """What is on disk of a run."""
    folder = RunFolder(run)
    try:
        state = folder.state()
        at = Checkpoint.load(folder.checkpoint_path).step * run.data.batch_tokens if state == "partial" else 0
    except InputError as fault:
        return Standing("refused", str(fault))
    reached = f"{amount(at)} of {amount(run.D)} tokens"
    if state != "done" and folder.has_error():
        return Standing("failed", f"{reached}; {folder.last_error()}")
    if state == "done":
        return Standing("done", "diverged" if folder.result()["diverged"] else "")
    return Standing(state, reached if state == "partial" else "")


def cells(runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
    """(N, D) -> its runs, in ascending order."""
    by_cell: dict[tuple[int, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.N, run.D)):
        by_cell.setdefault((run.N, run.D), []).append(run)
    return by_cell
