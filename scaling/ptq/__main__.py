"""The command `python -m scaling.ptq`: adds quantizations to finished runs, without training."""

import hydra
from omegaconf import DictConfig

from scaling import compose
from scaling.cli import EXPECTED, UnfinishedError, guarded

_faults: list[Exception] = []
"""What went wrong: Hydra reports in its own way what a job raises."""


def main() -> None:
    def app():
        _faults.clear()
        hydra.main(config_path=str(compose.CONFIGS), config_name="quantize", version_base="1.3")(_job)()
        if _faults:
            raise _faults[0]

    guarded(app, "scaling.ptq")


def _job(config: DictConfig) -> None:
    from scaling.allocator import keep_memory
    from scaling.door import build
    from scaling.requantize import PTQJob, add_rows
    from scaling.terminal import note

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
