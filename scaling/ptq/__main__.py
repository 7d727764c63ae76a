"""The command `python -m scaling.ptq`: adds quantizations to finished runs, without training."""

import sys

import hydra
from omegaconf import DictConfig

from scaling.config import compose
from scaling.console.cli import EXPECTED, UnfinishedError, guarded

_faults: list[Exception] = []
"""What went wrong: Hydra reports in its own way what a job raises."""


def main() -> None:
    def app():
        _faults.clear()
        compose.check_places(sys.argv[1:])
        hydra.main(config_path=str(compose.CONFIGS), config_name="quantize", **compose.BEHAVIOUR)(_job)()
        if _faults:
            raise _faults[0]

    guarded(app, "scaling.ptq")


def _job(config: DictConfig) -> None:
    from scaling.config.from_dict import build
    from scaling.console.terminal import note
    from scaling.model.allocator import keep_memory
    from scaling.ptq.requantize import PTQJob, add_rows

    keep_memory()
    try:
        job = build(PTQJob, compose.plain_config(config))
        failed = add_rows(job)
        for run_id, line in failed.items():
            note(f"{run_id}: {line}")
        if failed:
            raise UnfinishedError(f"{len(failed)} runs of {job.study} not quantized")
        print(f"{job.study}: done; python -m scaling.sweep collect {job.study} puts the rows into the table")
    except EXPECTED as fault:
        _faults.append(fault)


if __name__ == "__main__":
    main()
