"""The command `python -m scaling.pretrained`: measures models that others trained, as those of this program are."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from scaling.config import compose
from scaling.console.cli import UnfinishedError, guarded
from scaling.console.job import hydra_job, start


def main() -> None:
    def app():
        with compose.with_folder(compose.folder_of(sys.argv[1:])):
            sys.argv[1:] = [rewritten for argument in sys.argv[1:] for rewritten in _rewritten(argument)]
            start("pretrained", _job)

    guarded(app, "scaling.pretrained")


def _rewritten(argument: str) -> list[str]:
    """`plan` is a setting, and pythia-160m-deduped a variant of pythia-160m."""
    if argument == "plan":
        return ["plan=true"]
    name = argument.removeprefix("pretrained=")
    folders = (compose.CONFIGS, *compose.user_folders())
    if name == argument or any((folder / "pretrained" / f"{name}.yaml").is_file() for folder in folders):
        return [argument]
    series = [path.stem for folder in folders for path in Path(folder).glob("pretrained/*.yaml")]
    whole = [known for known in series if name.startswith(f"{known}-")]
    if not whole:
        return [argument]
    known = max(whole, key=len)
    return [f"pretrained={known}", f"pretrained.variant={name.removeprefix(f'{known}-')}"]


@hydra_job
def _job(config: DictConfig) -> None:
    from scaling.config.from_dict import build
    from scaling.config.pretrained.measured_run import MeasureJob
    from scaling.console.terminal import note
    from scaling.model.allocator import keep_memory

    keep_memory()
    job = build(MeasureJob, compose.plain_config(config))
    from scaling.pretrained.presets import runs_of

    runs = runs_of(job)
    if job.plan:
        from scaling.pretrained.plan import lines

        for line in lines(runs, job.pretrained):
            print(line)
        return
    from scaling.pretrained.measure import measure_all

    failed = measure_all(runs, job.pretrained)
    for run_id, line in failed.items() if len(failed) < len(runs) or len(runs) > 1 else ():
        note(f"{run_id}: {line}")
    if failed and len(runs) == 1:
        raise UnfinishedError(next(iter(failed.values())))
    if failed:
        raise UnfinishedError(f"{len(failed)} of {len(runs)} checkpoints of {job.study} not measured")
    print(f"{job.study}: done; python -m scaling.sweep collect {job.study} makes the table")


if __name__ == "__main__":
    main()
