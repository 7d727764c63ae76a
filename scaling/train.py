"""The command `python -m scaling.train`: trains one run, the runs of one stack file, or (--multirun) a whole study.

Under torchrun every process runs this command and trains on its share of each batch; the first one alone writes. A
member that fails never stops the others: why it failed is written into its run folder. Nothing heavy is imported
before it is needed, so that `--help` answers at once.
"""

import contextlib
import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from scaling.config import compose
from scaling.config.compose import CONFIG_DIR
from scaling.console import interrupt, streams
from scaling.console.allocation import slurm_job
from scaling.console.cli import UnfinishedError, guarded
from scaling.console.interrupt import Interrupted
from scaling.console.job import hydra_job, start
from scaling.console.terminal import note
from scaling.console.torchrun import leaving, one_voice, place
from scaling.errors import InputError

if TYPE_CHECKING:
    from scaling.config.run import Run
    from scaling.training.distributed import Processes


MULTIRUN = ("--multirun", "-m")


def main() -> None:
    def app():
        # Python's parser takes no setting behind a flag that stands among them.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in MULTIRUN)
        with one_voice(), compose.with_folder(compose.folder_of(sys.argv[1:])):
            if place().size > 1 and any(a in MULTIRUN or a.startswith("sweeps=") for a in sys.argv[1:]):
                raise InputError("torchrun trains one run, or the runs of one +stack=FILE; a study goes without it")
            for argument in sys.argv[1:]:
                if argument.startswith("sweeps=") and (name := argument.partition("=")[2].strip("'\"")):
                    path = compose.study_file(name)
                    flags = [a for a in sys.argv[1:] if a.startswith("-") and a.partition("=")[0] not in CONFIG_DIR]
                    # Hydra 1.4 refuses to learn it from the study, which it reads too late.
                    if path and compose.is_multirun(path) and not flags:
                        sys.argv.insert(1, MULTIRUN[0])
            with _queued_again():
                start("train", job)

    with leaving():
        guarded(app, "scaling.train")


@contextlib.contextmanager
def _queued_again() -> Iterator[None]:
    """Let SLURM queue its job again, where this is one and it was asked to end: the same command then goes on."""
    try:
        yield
    except Interrupted as stop:
        if not stop.by_scheduler or slurm_job() is None or place().rank > 0:
            raise
        from scaling.study.slurm.work import requeued

        interrupt.ignore()
        raise Interrupted(stop.number, requeued()) from None


@hydra_job
def job(config: DictConfig) -> float | dict[str, float]:
    """What Hydra or a job of SLURM runs: here, or in a worker of a launcher.

    Returns:
        Of a run what a sweeper of Hydra's is to minimize: its loss, that of a quantization if `optimized_metric` names
        one, infinity if it diverged. Of a stack run_id -> loss. In processes but the first of a group nothing of use.

    Raises:
        InputError: the settings cannot be used.
        UnfinishedError: a run is not done; the reason was printed, and is in its folder.
    """
    streams.secure()
    interrupt.end_with_parent()
    from scaling.study.gpus import take

    take()
    return _train_file(config.stack) if "stack" in config else _train_one(config)


def _train_one(config: DictConfig) -> float:
    from scaling.config.run import build_run
    from scaling.console.outcome import check_metric, optimized, outcome
    from scaling.ptq.settings import settings_of
    from scaling.records.run_folder import RunFolder
    from scaling.training.distributed import joined

    run, metric = build_run(compose.plain_config(config)), config.optimized_metric
    folder = RunFolder(run)
    with joined() as processes:
        check_metric(metric, [row["setting"] for row in folder.ptq()] + [setting.key for setting in settings_of(run)])
        if processes.from_first(folder.state) == "done":
            if processes.first:
                note(f"{run.run_id} is done already; python -m scaling.ptq adds quantizations to finished runs")
        elif failed := train([run], processes):
            raise UnfinishedError(str(failed[run.run_id]))
    if not processes.first:
        return math.nan
    result, rows = folder.finished(), folder.ptq()
    note(f"run in {folder.path.absolute()}, corpora in {Path(run.runtime.cache).absolute()}")
    print(f"{folder.path}: " + "\n".join(outcome(result, rows)))
    return optimized(metric, result, rows)


def _train_file(stack: object) -> dict[str, float]:
    from scaling.console.outcome import LOSS, optimized
    from scaling.records.run_folder import RunFolder
    from scaling.study.jobs import read_stack
    from scaling.training.distributed import joined

    if not isinstance(stack, str):
        raise InputError(f"stack={stack}: expected the path of a file that a sweep wrote")
    runs = read_stack(path := Path(stack))
    with joined() as processes:
        failed = train(runs, processes)
        alike: dict[str, list[str]] = {}
        for run_id, line in failed.items():
            alike.setdefault(str(line), []).append(run_id)
        for line, (first, *others) in alike.items() if processes.first else ():
            note(f"{first}{f' and {len(others)} more' if others else ''}: {line}")
        if failed:
            raise UnfinishedError(f"{len(failed)} of {len(runs)} runs of {path} not done")
    return {run.run_id: optimized(LOSS, RunFolder(run).finished()) for run in runs if processes.first}


def train(runs: Sequence["Run"], processes: "Processes | None" = None) -> dict[str, InputError]:
    """Train the runs of one stack to their ends, and write into the folder of each that could not be why. Of several
    processes it is the one with the fault that writes.

    Returns:
        run_id -> why, in one line, for each run that is not done now.
    """
    from scaling.model.allocator import keep_memory
    from scaling.records.run_folder import RunFolder
    from scaling.records.writer import HeldError, holder
    from scaling.training.distributed import ALONE
    from scaling.training.loop import train_stack

    keep_memory()
    folders = {run.run_id: RunFolder(run) for run in runs}
    processes, details = processes or ALONE, ""
    try:
        failed = train_stack(runs, processes)
    except InputError as fault:
        failed = {run_id: fault for run_id, folder in folders.items() if folder.result() is None}
    except Exception as fault:
        if processes.is_loss_of_peer(fault):
            if not any(folder.has_error() for folder in folders.values()):
                raise UnfinishedError("another process of the run has ended; run again to go on") from None
            raise SystemExit(1) from None  # it has said why
        line, details = f"{type(fault).__name__}: {' '.join(str(fault).split())}", traceback.format_exc()
        failed = {
            run_id: InputError(f"{line} (traceback in {folder.path / 'error.txt'})")
            for run_id, folder in folders.items()
            if folder.result() is None
        }
    for run_id, line in failed.items():
        # Bad input leaves no folder of a run that never began; one that another process writes to is not touched.
        is_ours = not isinstance(line, HeldError) and holder(folders[run_id].path) is None
        if is_ours and (details or (processes.first and folders[run_id].path.exists())):
            with contextlib.suppress(InputError):  # a full disk, as a rule: the line is said in any case
                folders[run_id].write_error(details or f"{line}\n")
    if details and not processes.first:
        note(f"scaling.train: process {processes.rank}: {next(iter(failed.values()), details)}")
        raise SystemExit(1)
    return failed


if __name__ == "__main__":
    # Workers unpickle functions by the name of their module, which must not be __main__.
    from scaling.train import main as entry

    entry()
