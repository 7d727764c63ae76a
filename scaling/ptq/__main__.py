"""The command `python -m scaling.ptq`: adds quantizations to finished runs, without training."""

import sys

from omegaconf import DictConfig

from scaling.config import compose
from scaling.console.cli import UnfinishedError, guarded
from scaling.console.job import hydra_job, start


def main() -> None:
    def app():
        with compose.with_folder(compose.folder_of(sys.argv[1:])):
            start("quantize", _job)

    guarded(app, "scaling.ptq")


@hydra_job
def _job(config: DictConfig) -> None:
    from scaling.config.from_dict import build
    from scaling.console.terminal import note
    from scaling.model.allocator import keep_memory
    from scaling.ptq.requantize import PTQJob, add_rows

    keep_memory()
    job = build(PTQJob, compose.plain_config(config))
    failed = add_rows(job)
    for run_id, line in failed.items():
        note(f"{run_id}: {line}")
    if failed:
        raise UnfinishedError(f"{len(failed)} runs of {job.study} not quantized")
    print(f"{job.study}: done; python -m scaling.sweep collect {job.study} puts the rows into the table")


if __name__ == "__main__":
    main()
