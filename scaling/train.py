"""The command `python -m scaling.train`: trains one run, the runs of one stack file, or (--multirun) a whole study.

A member that fails never stops the others: why it failed is written into its run folder. Nothing heavy is imported
before it is needed, so that `--help` answers at once.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from scaling.cli import EXPECTED, UnfinishedError, guarded
from scaling.errors import InputError

if TYPE_CHECKING:
    from scaling.config import Run

CONFIGS = Path(__file__).parents[1] / "configs"

_faults: list[Exception] = []
"""What went wrong in a single run: Hydra drops what a job returns, and reports in its own way what it raises."""


def main() -> None:
    def app():
        _faults.clear()
        # Python's parser takes no setting behind a flag that stands among them.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("--multirun", "-m"))
        # Not a decorator: workers look `job` up by its name, which then has to lead to the plain function.
        hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")(job)()
        if _faults:
            raise _faults[0]

    guarded(app, "scaling.train")


def job(config: DictConfig) -> None:
    """What Hydra runs: here, or in a worker of a launcher."""
    try:
        if "stack" in config:
            _train_file(Path(config.stack))
        else:
            _train_one(config)
    except EXPECTED as fault:
        _faults.append(fault)


def _train_one(config: DictConfig) -> None:
    from scaling.config import build_run
    from scaling.runs import RunFolder
    from scaling.terminal import note

    run = build_run(plain_config(config))
    folder = RunFolder(run)
    if folder.state() == "done":
        note(f"{run.run_id} is done already; python -m scaling.ptq adds quantizations to finished runs")
    elif failed := train([run]):
        raise UnfinishedError(failed[run.run_id])
    losses = folder.result()["evaluations"]
    loss = f"loss {losses[-1]['loss']:.4f} +- {losses[-1]['loss_se']:.4f}" if losses else "diverged"
    print(f"{folder.path}: {loss}")


def _train_file(path: Path) -> None:
    from scaling.jobs import read_stack
    from scaling.terminal import note

    runs = read_stack(path)
    failed = train(runs)
    for run_id, line in failed.items():
        note(f"{run_id}: {line}")
    if failed:
        raise UnfinishedError(f"{len(failed)} of {len(runs)} runs of {path} not done")


def plain_config(config: DictConfig) -> dict:
    """A composed config with all interpolations resolved; a mandatory value that is missing is a fault."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def train(runs: Sequence["Run"]) -> dict[str, str]:
    """Train the runs of one stack to their ends, and write into the folder of each that could not be why.

    Returns:
        run_id -> one line, for each run that is not done now.
    """
    from scaling.runs import RunFolder
    from scaling.trainer import train_stack

    folders = {run.run_id: RunFolder(run) for run in runs}
    details = ""
    try:
        failed = train_stack(runs)
    except InputError as fault:
        failed = {run_id: str(fault) for run_id, folder in folders.items() if folder.result() is None}
    except Exception as fault:
        line, details = f"{type(fault).__name__}: {' '.join(str(fault).split())}", traceback.format_exc()
        failed = {
            run_id: f"{line} (traceback in {folder.path / 'error.txt'})"
            for run_id, folder in folders.items()
            if folder.result() is None
        }
    for run_id, line in failed.items():
        # Bad input leaves no folder of a run that never began.
        if details or folders[run_id].path.exists():
            folders[run_id].write_error(details or f"{line}\n")
    return failed


if __name__ == "__main__":
    # Workers unpickle functions by the name of their module, which must not be __main__.
    from scaling.train import main as entry

    entry()
