"""Trains one stack of runs to their ends: batches, updates, checkpoints, snapshots, records."""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling import provenance
from scaling.batching import divided
from scaling.config import Run
from scaling.data import Ahead, Batches, Corpus, Windows, prepare
from scaling.distributed import ALONE, Processes
from scaling.door import plain
from scaling.errors import InputError
from scaling.evaluate import clustered_mean
from scaling.gradients import Gradients
from scaling.measure import measure
from scaling.runs import SCHEMA, Checkpoint, RunFolder, snapshot_path, trunk_of
from scaling.stack import Stack
from scaling.terminal import Progress, note
from scaling.tracking import Trackers

# A model whose updates were skipped this often in a row, for gradients that were not finite, has diverged.
SKIPS = 100
# Batches of this many tokens are worth a thread that fetches the next one.
AHEAD_TOKENS = 2**16


def train_stack(runs: Sequence[Run], processes: Processes = ALONE) -> dict[str, str]:
    """Train every run that is not done, all as one stack; everything lands in the run folders. Of several processes
    each calls this with the same runs, and the first one alone reads and writes those folders.

    Runs that were interrupted go on from their checkpoints. A model that diverges is recorded and leaves; the others do
    not notice. On an interrupt or an error, checkpoints are written where the state is sound: a later call goes on
    there.

    Returns:
        run_id -> one line, for each run that could not be started (damaged checkpoint, missing parent, other tokens).

    Raises:
        InputError: what all the runs share cannot be used (corpus, device).
    """
    assert len({run.stack_key for run in runs}) == 1
    with processes.quiet():
        runs = processes.agreed(lambda: [divided(run, processes.size) for run in runs])
        first = runs[0]
        torch.set_num_threads(first.runtime.threads or max(1, (os.cpu_count() or 1) // processes.local_size))
        device = processes.agreed(lambda: processes.device(first.runtime.device))
        corpus = processes.in_turn(lambda: prepare(first.data, Path(first.runtime.cache), note))
        windows = corpus.windows(first.data.eval_windows, first.data.sequence_length)
        members = [_Member(run, corpus, processes) for run in runs]
        todo, failures = processes.from_first(lambda: _opened(members, corpus, windows))
        if todo:
            _Training([members[i] for i in todo], corpus, windows, device, processes).run()
    return failures


def _opened(members: Sequence["_Member"], corpus: Corpus, windows: Windows) -> tuple[list[int], dict[str, str]]:
    """Open the folders of the runs that are not done, each at its start: their places, and a line for each other."""
    todo, failures = [], {}
    for i, member in enumerate(members):
        try:
            if member.folder.state() != "done":
                corpus.check_horizon(member.run.data)
                member.open(corpus.data_sha, windows.sha)
                todo.append(i)
        except InputError as fault:
            failures[member.run.run_id] = str(fault)
    return todo, failures


class _Member:
    """One run on its way through a stack."""

    def __init__(self, run: Run, corpus: Corpus, processes: Processes):
        self.run, self.corpus, self.processes = run, corpus, processes
        self.folder = RunFolder(run)
        self.start: Checkpoint | None = None
        self.seconds, self.skipped, self.skipped_in_a_row = 0.0, 0, 0
        self.snapshot_steps = {run.step_at(tokens): tokens for tokens in run.snapshots}

    def open(self, data_sha: str, eval_sha: str) -> None:
        self.start = self._find_start()
        self.folder.open(data_sha, eval_sha)
        self.seconds = self.start.seconds if self.start else 0.0
        self.skipped = self.start.skipped if self.start else 0

    @cached_property
    def batches(self) -> Batches | Ahead:
        run = self.run
        batches = Batches(self.corpus, run.data.sequence_length, run.batch_size, run.seed_data, self.processes.share)
        return Ahead(batches) if run.data.batch_tokens >= AHEAD_TOKENS else batches

    def _find_start(self) -> Checkpoint | None:
        if self.folder.state() == "partial":
            return self.folder.load_checkpoint(self.folder.checkpoint_path)
        branch = self.run.branch
        if branch.parent is None:
            return None
        path = snapshot_path(self.folder.path.parent / branch.parent, branch.tokens)
        if not path.exists():
            raise InputError(f"branch.parent={branch.parent}: no snapshot at {branch.tokens} tokens ({path})")
        parent = self.folder.load_checkpoint(path)
        return Checkpoint(parent.weights, parent.first, parent.second, parent.step, seconds=0.0, skipped=0)


class _Training:
    """The loop over one stack. `members[m]` is model m of `stack`."""

    def __init__(
        self, members: list[_Member], corpus: Corpus, windows: Windows, device: torch.device, processes: Processes
    ):
        self.members, self.corpus, self.windows, self.device = members, corpus, windows, device
        self.processes = processes
        runs = [m.run for m in members]
        self.stack = Stack.start(runs, corpus.vocab_size, [m.start for m in members], device)
        self._share_start()
        for member, step in zip(members, self.stack.optimizer.steps, strict=True):
            if processes.first:
                member.folder.forget_metrics_after(step * member.run.data.batch_tokens)
            member.start = None  # the stack holds it now
        self.gradients = Gradients(runs, device, processes)
        self.sound = True  # False while an update is half done

    def _share_start(self) -> None:
        """Every process starts where the first does, which alone has read the checkpoints."""
        optimizer = self.stack.optimizer
        optimizer.steps = self.processes.from_first(lambda: optimizer.steps)
        for group in (self.stack.weights, optimizer.first, optimizer.second):
            self.processes.copy_from_first_(group.values())

    def run(self) -> None:
        study = self.members[0].run.study
        folder = self.members[0].folder.path.parent
        total = sum(m.run.steps - s for m, s in zip(self.members, self.stack.optimizer.steps, strict=True))
        total *= self.members[0].run.data.batch_tokens
        configs = {m.run.run_id: plain(m.run) for m in self.members}
        title = f"{study}: {len(self.members)} x N={self.members[0].run.N:,}"
        tracking = self.members[0].run.tracking
        if not self.processes.first:
            tracking = dataclasses.replace(tracking, mode="off")
        self.trackers = Trackers(tracking, study, folder, configs)
        with (
            contextlib.closing(self.trackers) as self.trackers,
            Progress(title, total) as self.progress,
            _Interrupt() as stop,
        ):
            self.done_tokens, self.saved_at = 0, time.monotonic()
            try:
                self._leave()  # whoever was killed between the last update and the result
                while self.members:
                    self._step()
                    if self.processes.any(stop.asked):
                        raise KeyboardInterrupt
            except BaseException:
                if self.sound:
                    self._save()
                raise

    def _step(self) -> None:
        began = time.monotonic()
        self.sound = False
        steps = list(self.stack.optimizer.steps)
        batch = np.stack([m.batches.at(step) for m, step in zip(self.members, steps, strict=True)])
        tokens = torch.from_numpy(batch).to(self.device)
        loss_M = self.gradients(self.stack, tokens)
        norms, rates = self.stack.optimizer.step(self.stack.weights)
        self.sound = True
        self._watch(norms)
        elapsed = (time.monotonic() - began) / len(self.members)
        for m, (member, step) in enumerate(zip(self.members, steps, strict=True)):
            member.seconds += elapsed
            if step + 1 == member.run.steps or member.run.tracking.is_point(step + 1):
                self._log(member, step + 1, loss_M[m], norms[m], rates[m])
        self.done_tokens += len(self.members) * self.members[0].run.data.batch_tokens
        self.progress.update(self.done_tokens, models=str(len(self.members)))
        self._take_snapshots()
        self._leave()
        if self.members and time.monotonic() - self.saved_at > self.members[0].run.runtime.checkpoint_seconds:
            self._save()

    def _watch(self, norms: torch.Tensor) -> None:
        """Count updates that were skipped because a gradient was not finite."""
        for member, finite in zip(self.members, torch.isfinite(norms).tolist(), strict=True):
            member.skipped += not finite
            member.skipped_in_a_row = 0 if finite else member.skipped_in_a_row + 1

    def _log(self, member: _Member, step: int, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        if not self.processes.first:
            return
        tokens = step * member.run.data.batch_tokens
        values = {"loss_train": loss.item(), "grad_norm": norm.item(), "lr": rate}
        member.folder.log({"tokens": tokens, **values})
        self.trackers.log(member.run.run_id, tokens, values)

    def _take_snapshots(self) -> None:
        for m, member in enumerate(self.members):
            tokens = member.snapshot_steps.get(self.stack.optimizer.steps[m])
            if tokens is not None and self.processes.first:
                state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped)
                member.folder.save_checkpoint(snapshot_path(member.folder.path, tokens), state)
                self._measure(m, member)

    def _leave(self) -> None:
        """Finish the models that are at their end or have diverged, and go on without them."""
        staying = []
        for m, member in enumerate(self.members):
            diverged = member.skipped_in_a_row >= SKIPS
            if not diverged and self.stack.optimizer.steps[m] < member.run.steps:
                staying.append(m)
            elif self.processes.first:
                self._finish(m, member, diverged)
        if len(staying) < len(self.members):
            self.members = [self.members[m] for m in staying]
            if staying:
                self.stack = self.stack.take(staying)

    def _measure(self, m: int, member: _Member) -> None:
        tokens = self.stack.optimizer.steps[m] * member.run.data.batch_tokens
        found = measure(member.run, self.stack.member(m), self.corpus, self.windows, tokens)
        member.folder.add_windows(found.windows)
        member.folder.add_ptq(found.rows)
        self.trackers.log(member.run.run_id, tokens, {"loss": found.loss})

    def _finish(self, m: int, member: _Member, diverged: bool) -> None:
        if not diverged:
            self._measure(m, member)
        # Without moments the model cannot be trained on: a diverged one that is killed here still has to be.
        state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped, moments=diverged)
        member.folder.save_checkpoint(member.folder.checkpoint_path, state)
        result = self._result(member, diverged)
        member.folder.write_result(result)
        last = result["evaluations"][-1] if result["evaluations"] else {}
        summary = {"N": result["N"], "D": result["D"], **last}
        self.trackers.finish(member.run.run_id, summary, member.folder.ptq(), failed=diverged)

    def _save(self) -> None:
        for m, member in enumerate(self.members if self.processes.first else ()):
            state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped)
            member.folder.save_checkpoint(member.folder.checkpoint_path, state)
        self.saved_at = time.monotonic()

    def _result(self, member: _Member, diverged: bool) -> dict[str, Any]:
        run = member.run
        trained = (run.steps - run.first_step) * run.data.batch_tokens
        return {
            "schema": SCHEMA,
            "run_id": run.run_id,
            "base_run_id": run.base_run_id,
            "parent_id": run.branch.parent,
            "trunk_id": trunk_of(member.folder.path),
            "parameters": run.model.count(self.corpus.vocab_size),
            "N": run.N,
            "D": run.D,
            "evaluations": self._evaluations(member),
            "n_windows": len(self.windows.tokens),
            "n_docs": len(np.unique(self.windows.documents)),
            "unique_tokens": self.corpus.unique_tokens(run.data.sequence_length),
            "corpus": self.corpus.name,
            "vocab_size": self.corpus.vocab_size,
            "data_sha": self.corpus.data_sha,
            "eval_sha": self.windows.sha,
            "diverged": diverged,
            "skipped_updates": member.skipped,
            "seconds": member.seconds,
            "tokens_per_second": trained / member.seconds,
            "compiled": self.gradients.compiled,
            "processes": self.processes.size,
            "micro_batch_tokens": run.runtime.micro_batch_tokens,
            "device": provenance.device_name(self.device),
            "dtype": run.runtime.dtype,
            "threads": torch.get_num_threads(),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
        }

    def _evaluations(self, member: _Member) -> list[dict[str, float]]:
        """The loss at every token count that was evaluated, from the kept windows: an earlier attempt's count too."""
        kept = {int(name): values for name, values in member.folder.windows().items() if name.isdigit()}
        found = []
        for tokens in sorted(kept):
            loss, loss_se = clustered_mean(kept[tokens], self.windows.documents)
            found.append({"tokens_seen": tokens, "loss": loss, "loss_se": loss_se})
        return found


class _Interrupt:
    """Ctrl-C and a polite kill (SIGTERM, as schedulers send it) wait for the end of the step; a second one does not."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False

    def _handle(self, number, frame) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> "_Interrupt":
        # Handlers can be set in the main thread only; elsewhere the caller's stay.
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
