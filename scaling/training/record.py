"""What a run leaves behind while it is trained: points of its curve, measurements and its result, in its folder and in
W&B. (What it goes on from is in `scaling.training.checkpoints`.)"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scaling.console.accelerators import peak_of
from scaling.console.tracking import names as wandb_names
from scaling.console.tracking.runs import Tracked, Trackers
from scaling.data.corpus import Corpus, Windows
from scaling.ptq.measure import Measurement
from scaling.records import provenance
from scaling.records.columns import declared
from scaling.records.files import SCHEMA
from scaling.records.run_folder import trunk_of
from scaling.records.window_losses import clustered_mean
from scaling.training.gradients import Gradients
from scaling.training.members import Member, SharedModel
from scaling.training.schedule import learning_rate
from scaling.training.stack import Stack


def tracked(models: Sequence[SharedModel], stack: Stack, device: torch.device) -> list[Tracked]:
    """What is sent to W&B of the members of a stack at its start."""
    made = provenance.made_with(device)
    return [
        Tracked.of(member.run, made, continues=step > member.run.first_step)
        for model, step in zip(models, stack.optimizer.steps, strict=True)
        for member in model.members
    ]


class Recorder:
    """Writes what the members of one stack leave behind. Of several processes the first one alone calls it."""

    def __init__(self, corpus: Corpus, windows: Windows, gradients: Gradients, trackers: Trackers):
        self.corpus, self.windows, self.gradients, self.trackers = corpus, windows, gradients, trackers
        self.counted: dict[str, tuple[int, float]] = {}
        """Tokens and seconds of each run at its last point."""

    def point(self, member: Member, step: int, loss: float, norm: float) -> None:
        """One point of the training curve: loss, gradient norm and learning rate of the update that makes `step` of
        them."""
        tokens = step * member.run.data.batch_tokens
        values = {"loss_train": loss, "grad_norm": norm, "lr": learning_rate(member.run, step - 1)}
        member.folder.log({"tokens": tokens, **values})
        self.trackers.log(member.run.run_id, tokens, wandb_names.training(values) | self._speed(member, tokens))

    def val_point(self, member: Member, tokens: int, loss: float) -> None:
        """One point of the curve on held-out windows."""
        member.folder.log_val({"tokens": tokens, "loss_val": loss})
        self.trackers.log(member.run.run_id, tokens, {"val/subset_loss": loss})

    def measurement(self, member: Member, tokens: int, measured: Measurement) -> None:
        """What was measured of the member's model behind so many tokens."""
        member.folder.add_windows(measured.windows)
        member.folder.add_ptq(measured.rows)
        self.trackers.log(member.run.run_id, tokens, wandb_names.evaluation(measured.loss, measured.rows))

    def end(self, member: Member) -> None:
        """The result, behind which a run counts as done."""
        result = self.result(member)
        member.folder.write_result(result)
        rows = member.folder.ptq()
        summary = wandb_names.summary(result, rows, member.folder.curve_end())
        if "perf/tokens_per_second" in summary:
            summary |= self._performance(member, summary["perf/tokens_per_second"])
        seen = (member.last_step or member.run.steps) * member.run.data.batch_tokens
        self.trackers.finish(member.run.run_id, seen, summary, rows, failed=member.diverged)

    def _speed(self, member: Member, tokens: int) -> dict[str, float]:
        """How fast the run has gone since its last point. Its seconds are its share of the stack's, so this is how fast
        all the stack is."""
        tokens_before, seconds_before = self.counted.get(member.run.run_id, (tokens, member.seconds))
        self.counted[member.run.run_id] = tokens, member.seconds
        seconds = member.seconds - seconds_before
        return self._performance(member, (tokens - tokens_before) / seconds) if seconds > 0 else {}

    def _performance(self, member: Member, speed: float) -> dict[str, float]:
        """`speed` in tokens a second; the share of the accelerators' peak that 6 N D reach at it, where that is known;
        and the most memory that this process, with all the stack, has had."""
        device, processes = self.gradients.device, self.gradients.processes.size
        values = {"perf/tokens_per_second": speed, "perf/memory_gb": provenance.peak_memory(device) / 1e9}
        if peak := peak_of(provenance.device_name(device)):
            values["perf/mfu"] = 6 * member.run.N * speed / (peak * processes)
        return values

    def result(self, member: Member) -> dict[str, Any]:
        """The content of `result.json`."""
        return {
            "schema": SCHEMA,
            **_identity(member),
            **_size(member, self.corpus),
            "evaluations": evaluations(member, self.windows),
            **_data(member, self.corpus, self.windows),
            **_training(member),
            **_computation(member, self.gradients),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
        }


def _identity(member: Member) -> dict[str, Any]:
    run = member.run
    return {
        "run_id": run.run_id,
        "base_run_id": run.base_run_id,
        "parent_id": run.branch.parent,
        "trunk_id": trunk_of(member.folder.path),
    }


def _size(member: Member, corpus: Corpus) -> dict[str, Any]:
    run = member.run
    return {"parameters": run.model.count(corpus.vocab_size), "N": run.N, "D": run.D}


def evaluations(member: Member, windows: Windows) -> list[dict[str, float]]:
    """The loss at every token count that was evaluated, from the stored losses of the windows: an earlier attempt's
    count too."""
    losses = {int(name): values for name, values in member.folder.windows().items() if name.isdigit()}
    entries = []
    for tokens in sorted(losses):
        loss, loss_se = clustered_mean(losses[tokens], windows.documents)
        entries.append(declared("evaluation", {"tokens_seen": tokens, "loss": loss, "loss_se": loss_se}))
    return entries


def _data(member: Member, corpus: Corpus, windows: Windows) -> dict[str, Any]:
    return {
        "n_windows": len(windows.tokens),
        "n_docs": len(np.unique(windows.documents)),
        "unique_tokens": corpus.unique_tokens(member.run.data.sequence_length),
        "corpus": corpus.name,
        "vocab_size": corpus.vocab_size,
        "bytes_per_token": corpus.bytes_per_token,
        "data_sha": corpus.data_sha,
        "eval_sha": windows.sha,
    }


def _training(member: Member) -> dict[str, Any]:
    run = member.run
    trained = (run.steps - run.first_step) * run.data.batch_tokens
    return {
        "diverged": member.diverged,
        "skipped_updates": member.skipped,
        "shared_steps": member.shared_steps,
        "seconds": member.seconds,
        "tokens_per_second": trained / member.seconds,
    }


def _computation(member: Member, gradients: Gradients) -> dict[str, Any]:
    """How the updates were computed; of this only the dtype is part of the run's identity."""
    runtime = member.run.runtime
    return {
        "compiled": gradients.compiled,
        "processes": gradients.processes.size,
        "micro_batch_tokens": runtime.micro_batch_tokens,
        "device": provenance.device_name(gradients.device),
        "dtype": runtime.dtype,
        "threads": torch.get_num_threads(),
    }
