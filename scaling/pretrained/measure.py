"""Checkpoints measured one after the other: the loss of each as it is, and in every setting that it lacks.

What is found is written after each setting, so an interrupted command goes on where it was.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.pretrained.series import SeriesConfig
from scaling.config.runtime import resolve_device
from scaling.console.allocation import cores
from scaling.console.terminal import Progress, note
from scaling.console.tracking import names as wandb_names
from scaling.console.tracking.runs import Tracked, Trackers
from scaling.errors import InputError
from scaling.pretrained.attention import check_cache
from scaling.pretrained.calibration import Statistician
from scaling.pretrained.files import Files, drop, locate
from scaling.pretrained.inference import Said, window_losses
from scaling.pretrained.linears import layout_of
from scaling.pretrained.loading import load
from scaling.pretrained.quantize import InPlace, check_fit
from scaling.pretrained.scratch import Scratch
from scaling.pretrained.texts import Text, text_of
from scaling.ptq.calibration import windows_of
from scaling.ptq.measure import row_of
from scaling.ptq.settings import Setting, lacking, settings_of
from scaling.records import provenance
from scaling.records.columns import declared
from scaling.records.files import SCHEMA
from scaling.records.run_folder import RunFolder
from scaling.records.window_losses import clustered_mean, evaluation_name


def measure_all(runs: Sequence[MeasuredRun], series: SeriesConfig) -> dict[str, str]:
    """Measure the checkpoints of a job, skipping what is done.

    Returns:
        run_id -> one line, for each that could not be measured.
    """
    runtime = runs[0].runtime
    torch.set_num_threads(runtime.threads or cores())
    device = torch.device(resolve_device(runtime.device))
    failed: dict[str, str] = {}
    todo = []
    for run in runs:
        try:
            if is_lacking(RunFolder(run)):
                todo.append(run)
        except InputError as fault:
            failed[run.run_id] = str(fault)
    note(f"{runs[0].study}: {len(runs)} checkpoints, {len(todo)} to measure")
    if not todo:
        return failed
    expected = [tokens_of(run, lacking(RunFolder(run))) for run in todo]
    made = provenance.made_with(device)
    tracked = [Tracked.of(run, made, continues=RunFolder(run).result() is not None) for run in todo]
    with (
        Trackers(RunFolder(runs[0]).path.parent, tracked) as trackers,
        Progress(runs[0].study, sum(expected)) as progress,
    ):
        done = 0
        for run, tokens in zip(todo, expected, strict=True):
            try:
                Measuring(run, series, device, trackers, _Counter(progress, done)).all()
            except InputError as fault:
                failed[run.run_id] = str(fault)
                _write_error(RunFolder(run), str(fault))
            done += tokens
            progress.update(done)
    return failed


def is_lacking(folder: RunFolder) -> bool:
    """Whether anything is to be measured."""
    return folder.state() != "done" or bool(lacking(folder))


def tokens_of(run: MeasuredRun, settings: Sequence[Setting]) -> int:
    """Tokens of forward passes that measuring takes, about: the fewest windows are not known before the text is."""
    each = run.data.eval_windows * run.data.sequence_length
    calibrating = [setting for setting in settings if setting.calibration_tokens]
    passes = sum(bool(setting.sequential) for setting in calibrating) + any(not s.sequential for s in calibrating)
    return each * (1 + len(settings)) + passes * run.ptq.calibration_tokens


def _write_error(folder: RunFolder, line: str) -> None:
    # A run that never began leaves no folder.
    if folder.path.exists():
        folder.write_error(line + "\n")


class _Counter:
    """Adds up the tokens that are done, for the progress line."""

    def __init__(self, progress: Progress, done: int):
        self.progress, self.done = progress, done
        self.fields: dict[str, str] = {}

    def __call__(self, tokens: int) -> None:
        self.done += tokens
        self.progress.update(self.done, **self.fields)


@dataclasses.dataclass
class Measuring:
    """One checkpoint that is being measured."""

    run: MeasuredRun
    series: SeriesConfig
    device: torch.device
    trackers: Trackers
    said: Said

    def all(self) -> None:
        """Measure what the folder lacks.

        Raises:
            InputError: the checkpoint cannot be fetched, loaded or quantized so, or its text is another now.
        """
        began = time.monotonic()
        folder, run = RunFolder(self.run), self.run
        files = locate(run.checkpoint, self.series)
        self._say("loading")
        text = text_of(run, files)
        self.model = load(files, run, self.series, self.device)
        self.layout = layout_of(self.model, self.series.least_share)
        self._check(text)
        folder.lock()
        try:
            with Scratch(Path(run.runtime.cache)) as scratch:
                self._measure(folder, files, text, scratch, began)
        finally:
            folder.unlock()
        if not self.series.keep:
            drop(run.checkpoint, files)

    def _check(self, text: Text) -> None:
        """Raise InputError where something that is asked for cannot be done, before anything is."""
        run = self.run
        largest = int(max(text.windows.tokens.max(), text.corpus.train.max(initial=0)))
        rows = self.layout.embedding.weight.shape[0]
        if largest >= rows:
            raise InputError(
                f"{run.checkpoint.source}: the text has token {largest}, and the model knows {rows}; its tokenizer is "
                "another's (pretrained.tokenizer)"
            )
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and run.data.sequence_length + run.checkpoint.start_token > most:
            raise InputError(f"data.sequence_length={run.data.sequence_length}: the model takes at most {most} tokens")
        if run.ptq.calibrates and run.ptq.calibration_tokens < self.layout.widest:
            raise InputError(
                f"ptq.calibration_tokens={run.ptq.calibration_tokens}: fewer than the {self.layout.widest} inputs of "
                f"the widest matrix; use at least {self.layout.widest}, better ten times as many"
            )
        settings = settings_of(run)
        for setting in settings:
            check_fit(self.layout, setting)
        if run.ptq.calibrates:
            windows_of(run, text.corpus)
        if kv := [setting.kv for setting in settings if setting.kv is not None]:
            check_cache(self.layout, torch.from_numpy(text.windows.tokens[:1, :-1]).to(self.device), kv)

    def _measure(self, folder: RunFolder, files: Files, text: Text, scratch: Scratch, began: float) -> None:
        run, name = self.run, evaluation_name(self.run.tokens_seen)
        settings = lacking(folder)
        quantizable = InPlace(self.layout, scratch, lambda: self._statistician(text, scratch))
        folder.open(text.corpus.data_sha, text.windows.sha)
        stored = folder.windows()
        if name not in stored:
            self._say("as it is")
            base = window_losses(self.layout, run, text.windows, run.precision, text.start, self.said)
            if not np.isfinite(base).all():
                raise InputError(f"{run.checkpoint.source}: its losses are not finite")
            folder.add_windows({"documents": text.windows.documents, name: base})
        else:
            base = stored[name]
            self.said(text.windows.tokens[:, 1:].size)
        loss, loss_se = clustered_mean(base, text.windows.documents)
        self.trackers.log(run.run_id, run.tokens_seen, wandb_names.evaluation(loss))
        for setting in settings:
            self._say(setting.key)
            notes = quantizable.apply(setting, self.said)
            precision = setting.precision(run.precision)
            values = window_losses(self.layout, run, text.windows, precision, text.start, self.said)
            row = row_of(run.tokens_seen, setting, values, base, text.windows, notes, self._calibrated)
            folder.add_windows({evaluation_name(run.tokens_seen, setting.key): values})
            folder.add_ptq([row])
        evaluation = declared("evaluation", {"tokens_seen": run.tokens_seen, "loss": loss, "loss_se": loss_se})
        if folder.result() is None:
            folder.write_result(self._result(files, text, evaluation, time.monotonic() - began))
        rows = folder.ptq()
        self.trackers.finish(run.run_id, run.tokens_seen, wandb_names.summary(folder.finished(), rows), rows)

    def _statistician(self, text: Text, scratch: Scratch) -> Statistician:
        windows = windows_of(self.run, text.corpus)
        self._calibration = Statistician(self.layout, self.run, windows, text.start, scratch)
        return self._calibration

    def _calibrated(self):
        return self._calibration.calibration

    def _say(self, what: str) -> None:
        self.said.fields = {"of": self.run.checkpoint.revision, "setting": what}
        self.said(0)

    def _result(self, files: Files, text: Text, evaluation: dict, seconds: float) -> dict:
        run, layout, corpus = self.run, self.layout, text.corpus
        return {
            "schema": SCHEMA,
            "run_id": run.run_id,
            "base_run_id": run.run_id,
            "parent_id": None,
            "trunk_id": run.run_id,
            "source": run.checkpoint.source,
            "commit_source": files.commit,
            "parameters": layout.parameters,
            "N": layout.parameters["N"],
            "D": run.D,
            "tables": layout.tables,
            "shape": layout.shape,
            "matrices": layout.matrices,
            "evaluations": [evaluation],
            "n_windows": len(text.windows.tokens),
            "n_docs": len(np.unique(text.windows.documents)),
            "corpus": corpus.name,
            "vocab_size": corpus.vocab_size,
            "bytes_per_token": corpus.bytes_per_token,
            "data_sha": corpus.data_sha,
            "eval_sha": text.windows.sha,
            "diverged": False,
            "seconds": seconds,
            "device": provenance.device_name(self.device),
            "dtype": run.runtime.dtype,
            "threads": torch.get_num_threads(),
            "commit": provenance.commit(),
            "versions": provenance.versions() | _versions(),
        }


def _versions() -> dict[str, str]:
    import transformers

    return {"transformers": transformers.__version__}
