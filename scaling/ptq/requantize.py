"""Adds quantizations to finished runs: of every model that a run has stored (its end, its snapshots), in every
setting that it lacks."""

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import torch

from scaling.config.from_dict import build, plain
from scaling.config.limits import FolderName
from scaling.config.ptq import PTQConfig
from scaling.config.runtime import RuntimeConfig, resolve_device
from scaling.config.tracking import TrackingConfig
from scaling.console.allocation import cores
from scaling.console.terminal import Progress, note
from scaling.console.tracking import names as wandb_names
from scaling.console.tracking.runs import Tracked, Trackers
from scaling.data.corpus import Corpus, Windows
from scaling.errors import InputError
from scaling.model.transformer import as_stack
from scaling.ptq.measure import Trained, measure_quantized
from scaling.ptq.settings import Setting, settings_of
from scaling.records.checkpoint import Checkpoint
from scaling.records.loaded_run import data_of
from scaling.records.run_folder import RunFolder, snapshot_path, stored_run
from scaling.records.window_losses import evaluation_name

PLACE = ("project", "entity", "group", "name", "job_type", "tags", "notes")
"""Settings of tracking that a run keeps unless they are given anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PTQJob:
    """What `python -m scaling.ptq` is asked to do."""

    study: Annotated[str, FolderName()]
    """Folder of the runs below `runtime.out`."""
    runs: str
    """Pattern of run ids."""
    ptq: PTQConfig
    tracking: TrackingConfig
    runtime: RuntimeConfig
    """Where it is computed. What changes numbers there, dtype and micro_batch_tokens, is that of each run."""


@dataclasses.dataclass(frozen=True)
class _Model:
    """One model that a run has stored, and what it has not been quantized to yet."""

    folder: RunFolder
    path: Path
    tokens_seen: int
    settings: list[Setting]


def add_rows(job: PTQJob) -> dict[str, str]:
    """Quantize and evaluate; rows and losses are written after each model, so an interrupted job goes on where it was.

    Returns:
        run_id -> one line, for each run that could not be quantized.

    Raises:
        InputError: the study has no finished run that matches, or the device is not there.
    """
    torch.set_num_threads(job.runtime.threads or cores())
    device = torch.device(resolve_device(job.runtime.device))
    failures: dict[str, str] = {}
    folders = list(_finished(job, failures))
    models: list[_Model] = []
    for folder in folders:
        try:
            models += _models(folder)
        except InputError as fault:
            failures[folder.run.run_id] = str(fault)
    rows = sum(len(m.settings) for m in models)
    wanted = folders and settings_of(folders[0].run)
    why = "" if rows or failures else "; all are there already" if wanted else "; no method or no format was asked for"
    note(f"{job.study}: {len(folders)} finished runs, {len(models)} models to quantize, {rows} rows to add{why}")
    if not rows:
        return failures
    total = sum(len(m.settings) * m.folder.run.data.eval_windows * m.folder.run.data.sequence_length for m in models)
    done, changed = 0, {}
    with Progress(f"{job.study}: evaluating", total) as progress:
        for model in models:
            run = model.folder.run
            try:
                corpus, windows = data_of(model.folder, model.folder.finished(), Path(job.runtime.cache))
                _quantize(model, corpus, windows, device)
                changed[run.run_id] = model.folder
            except InputError as fault:
                failures[run.run_id] = str(fault)
            done += len(model.settings) * run.data.eval_windows * run.data.sequence_length
            progress.update(done)
    _track(job, list(changed.values()))
    return failures


def _finished(job: PTQJob, failures: dict[str, str]) -> Iterator[RunFolder]:
    """Folders of the finished runs that match, each run with the job's settings in place of its own; those that are
    damaged go to `failures`."""
    study = Path(job.runtime.out) / job.study
    finished = [path.parent for path in sorted(study.glob("*/result.json"))]
    if not finished:
        raise InputError(f"study={job.study}: no finished run in {study}; train some with python -m scaling.train")
    matching = [path for path in finished if fnmatch(path.name, job.runs)]
    if not matching:
        raise InputError(f"runs={job.runs}: none of the {len(finished)} finished runs of {study} matches")
    for path in matching:
        try:
            folder = RunFolder.at(path)
            folder.finished()
        except InputError as fault:
            failures[path.name] = str(fault)
            continue
        stored = folder.run
        numerics = {"dtype": stored.runtime.dtype, "micro_batch_tokens": stored.runtime.micro_batch_tokens}
        runtime = dataclasses.replace(job.runtime, **numerics)
        yield RunFolder(dataclasses.replace(stored, ptq=job.ptq, runtime=runtime), path)


def _models(folder: RunFolder) -> Iterator[_Model]:
    """Models of a run that lack rows."""
    if folder.result()["diverged"]:
        return
    run = folder.run
    there = {(row["tokens_seen"], row["setting"]) for row in folder.ptq()}
    models = {run.step_at(tokens): snapshot_path(folder.path, tokens) for tokens in run.snapshots}
    models[run.steps] = folder.checkpoint_path
    for step, path in models.items():
        seen = step * run.data.batch_tokens
        settings = [s for s in settings_of(run) if (seen, s.key) not in there]
        if settings:
            yield _Model(folder, path, seen, settings)


def _quantize(model: _Model, corpus: Corpus, windows: Windows, device: torch.device) -> None:
    folder = model.folder
    folder.lock()
    try:
        stored = Checkpoint.load(model.path)
        if stored.step * folder.run.data.batch_tokens != model.tokens_seen:
            raise InputError(
                f"{model.path}: is of step {stored.step}, not of the model behind {model.tokens_seen} tokens; delete "
                "the run's folder to train it again"
            )
        weights = as_stack(stored.weights, device)
        base = folder.windows()[evaluation_name(model.tokens_seen)]
        trained = Trained(run=folder.run, weights=weights, tokens_seen=model.tokens_seen, settings=model.settings)
        (measurement,) = measure_quantized([trained], corpus, windows, [base])
        folder.add_windows(measurement.windows)
        folder.add_ptq(measurement.rows)
    finally:
        folder.unlock()


def _track(job: PTQJob, folders: list[RunFolder]) -> None:
    """Add to the W&B run of each model what it has now. Where that run is and what it is called its own config says,
    where the command does not; whether anything is written, the command alone."""
    if not folders:
        return
    settings = {name: value for name, value in plain(job.tracking).items() if value or name not in PLACE}
    tracked, results = [], {}
    for folder in folders:
        run, result = stored_run(folder.path), folder.finished()
        run = dataclasses.replace(run, tracking=build(TrackingConfig, {**plain(run.tracking), **settings}))
        made = {"commit": result["commit"], "machine": {"device": result["device"]}}
        tracked.append(Tracked.of(run, made, continues=True))
        results[run.run_id] = result
    with Trackers(folders[0].path.parent, tracked) as trackers:
        for folder in folders:
            result, rows = results[folder.run.run_id], folder.ptq()
            summary = wandb_names.summary(result, rows, folder.curve_end())
            trackers.finish(folder.run.run_id, result["evaluations"][-1]["tokens_seen"], summary, rows)
