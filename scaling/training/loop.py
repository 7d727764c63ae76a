"""Trains one stack of runs to their ends: batches, updates, forks, checkpoints, snapshots, records.

A model of the stack serves all members that are still one copy (`scaling.training.families`), and is forked where their
learning rates part. Each member's files are those of a run that is trained alone.
"""

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling.config.from_dict import plain
from scaling.config.run import Run
from scaling.console.terminal import Progress, note
from scaling.console.wandb_runs import Trackers
from scaling.data.corpus import Corpus, Windows
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.model.transformer import Weights
from scaling.ptq.measure import Measurement, measure
from scaling.records import provenance
from scaling.records.checkpoint import Checkpoint
from scaling.records.columns import declared
from scaling.records.files import SCHEMA
from scaling.records.run_folder import snapshot_path, trunk_of
from scaling.records.window_losses import clustered_mean
from scaling.training.distributed import ALONE, Processes, divided
from scaling.training.families import model_steps
from scaling.training.gradients import Gradients
from scaling.training.members import Member, Slot, joined
from scaling.training.stack import Stack

# A model whose updates were skipped this often in a row, for gradients that were not finite, has diverged.
SKIPS = 100


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
        members = [Member(run, corpus, processes) for run in runs]
        found, failures = processes.from_first(lambda: _opened(members, corpus, windows))
        if found:
            slots = [Slot([members[i] for i in places]) for places in found]
            _Training(slots, corpus, windows, device, processes).run()
    return failures


def _opened(members: Sequence[Member], corpus: Corpus, windows: Windows) -> tuple[list[list[int]], dict[str, str]]:
    """Open the folders of the runs that are not done, each at its start: the places of those of each slot, and a line
    for each that cannot be opened."""
    todo, failures = [], {}
    for i, member in enumerate(members):
        try:
            if member.folder.state() != "done":
                corpus.check_horizon(member.run.data)
                member.open(corpus.data_sha, windows.sha)
                todo.append(i)
        except InputError as fault:
            failures[member.run.run_id] = str(fault)
    return [[todo[i] for i in places] for places in joined([members[i] for i in todo])], failures


class _Training:
    """The loop over one stack. `slots[m]` is who model m of `stack` serves."""

    def __init__(self, slots: list[Slot], corpus: Corpus, windows: Windows, device: torch.device, processes: Processes):
        self.slots, self.corpus, self.windows, self.device = slots, corpus, windows, device
        self.processes = processes
        runs = [slot.run for slot in slots]
        # Only the first process has read checkpoints; those of one slot are equal.
        self.stack = Stack.start(runs, corpus.vocab_size, [slot.farthest.start for slot in slots], device)
        self._share_start()
        for slot, step in zip(slots, self.stack.optimizer.steps, strict=True):
            for member in slot.members:
                if processes.first:
                    member.folder.forget_metrics_after(step * member.run.data.batch_tokens)
                if member.mean and member.start:
                    member.mean.weights = {name: w[None].to(device) for name, w in member.start.mean.items()}
                member.start = None  # the stack holds it now
        self.gradients = Gradients(runs, device, processes)
        self.sound = True  # False while an update is half done

    @property
    def members(self) -> list[Member]:
        return [member for slot in self.slots for member in slot.members]

    def _share_start(self) -> None:
        """Every process starts where the first does, which alone has read the checkpoints."""
        optimizer = self.stack.optimizer
        optimizer.steps = self.processes.from_first(lambda: optimizer.steps)
        for group in (self.stack.weights, optimizer.first, optimizer.second):
            self.processes.copy_from_first_(group.values())

    def run(self) -> None:
        members = self.members
        first, folder = members[0].run, members[0].folder.path.parent
        starts = zip(self.slots, self.stack.optimizer.steps, strict=True)
        steps = sum(model_steps([member.run for member in slot.members], step) for slot, step in starts)
        configs = {m.run.run_id: plain(m.run) for m in members}
        title = f"{first.study}: {len(members)} x N={first.N:,}"
        tracking = first.tracking
        if not self.processes.first:
            tracking = dataclasses.replace(tracking, mode="off")
        self.trackers = Trackers(tracking, first.study, folder, configs)
        with (
            contextlib.closing(self.trackers) as self.trackers,
            Progress(title, steps * first.data.batch_tokens) as self.progress,
            _Interrupt() as stop,
        ):
            self.done_tokens, self.saved_at = 0, time.monotonic()
            try:
                self._leave()  # whoever was killed between the last update and the result
                while self.slots:
                    self._step()
                    if self.processes.any(stop.asked):
                        raise KeyboardInterrupt
            except BaseException:
                if self.sound:
                    self._save()
                raise

    def _step(self) -> None:
        began = time.monotonic()
        self._fork()
        self.sound = False
        steps = list(self.stack.optimizer.steps)
        batch = np.stack([slot.farthest.batches.at(step) for slot, step in zip(self.slots, steps, strict=True)])
        tokens = torch.from_numpy(batch).to(self.device)
        loss_M = self.gradients(self.stack, tokens)
        norms, rates = self.stack.optimizer.step(self.stack.weights)
        self._average()
        self.sound = True
        finite = torch.isfinite(norms).tolist()
        members = self.members
        elapsed = (time.monotonic() - began) / len(members)
        for m, (slot, step) in enumerate(zip(self.slots, steps, strict=True)):
            for member in slot.members:
                member.count(elapsed, finite[m], shared=len(slot.members) > 1)
                if step + 1 == member.run.steps or member.run.tracking.is_point(step + 1):
                    self._log(member, step + 1, loss_M[m], norms[m], rates[m])
        self.done_tokens += len(self.slots) * members[0].run.data.batch_tokens
        self.progress.update(self.done_tokens, models=str(len(self.slots)), runs=str(len(members)))
        self._take_snapshots()
        self._leave()
        if self.slots and time.monotonic() - self.saved_at > self.slots[0].run.runtime.checkpoint_seconds:
            self._save()

    def _average(self) -> None:
        for m, slot in enumerate(self.slots if self.processes.first else ()):
            step = self.stack.optimizer.steps[m]
            for member in slot.members:
                if member.mean and step > member.mean.first:
                    member.mean.add(step, self.stack.member(m))

    def _fork(self) -> None:
        """Members whose learning rates part in the next update go on in copies of their own."""
        parts = [slot.parted(step) for slot, step in zip(self.slots, self.stack.optimizer.steps, strict=True)]
        slots = [slot for part in parts for slot in part]
        if len(slots) > len(self.slots):
            self._take([m for m, part in enumerate(parts) for _ in part], slots)

    def _take(self, models: list[int], slots: list[Slot]) -> None:
        """Go on with these models of the stack, which serve these slots from now on."""
        stack = self.stack.take(models, [slot.run for slot in slots])
        self.sound = False  # if a second interrupt comes here, stack and slots may not belong together
        self.stack, self.slots = stack, slots
        self.sound = True

    def _log(self, member: Member, step: int, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        if not self.processes.first:
            return
        tokens = step * member.run.data.batch_tokens
        values = {"loss_train": loss.item(), "grad_norm": norm.item(), "lr": rate}
        member.folder.log({"tokens": tokens, **values})
        self.trackers.log(member.run.run_id, tokens, values)

    def _take_snapshots(self) -> None:
        for m, slot in enumerate(self.slots if self.processes.first else ()):
            for member in slot.members:
                tokens = member.snapshot_steps.get(self.stack.optimizer.steps[m])
                if tokens is not None:
                    state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped)
                    state.save(snapshot_path(member.folder.path, tokens))
                    self._measure(m, member)

    def _leave(self) -> None:
        """Finish the members that are at their end or have diverged, and go on without them and their models."""
        for m, slot in enumerate(self.slots):
            for member in list(slot.members):
                diverged = member.skipped_in_a_row >= SKIPS
                if diverged or self.stack.optimizer.steps[m] >= member.run.steps:
                    if self.processes.first:
                        self._finish(m, member, diverged)
                    slot.members.remove(member)
        staying = [m for m, slot in enumerate(self.slots) if slot.members]
        if not staying:
            self.slots = []
        elif len(staying) < len(self.slots):
            self._take(staying, [self.slots[m] for m in staying])

    def _measure(self, m: int, member: Member, mean: Weights | None = None) -> None:
        """Evaluate and quantize model m, or the mean of its weights, for a member."""
        tokens = self.stack.optimizer.steps[m] * member.run.data.batch_tokens
        if mean:
            found = measure(member.run, mean, self.corpus, self.windows, tokens)
        else:
            found = self._measurement(m, member, tokens)
        member.folder.add_windows(found.windows)
        member.folder.add_ptq(found.rows)
        self.trackers.log(member.run.run_id, tokens, {"loss": found.loss})

    def _measurement(self, m: int, member: Member, tokens: int) -> Measurement:
        """Of model m, once for all members that ask the same of it."""
        slot, asked = self.slots[m], (tokens, member.run.ptq)
        if slot.measured is None or slot.measured[:2] != asked:
            found = measure(member.run, self.stack.member(m), self.corpus, self.windows, tokens)
            slot.measured = (*asked, found)
        return slot.measured[2]

    def _finish(self, m: int, member: Member, diverged: bool) -> None:
        if diverged:
            tokens = self.stack.optimizer.steps[m] * member.run.data.batch_tokens
            note(f"{member.run.run_id}: diverged, after {SKIPS} steps without a finite gradient, at {tokens:,} tokens")
            state = self._state(m, member)  # a diverged model that is killed here still has to be trained on
        else:
            # Killed behind this checkpoint a member comes back with the mean as its weights, and without a mean.
            mean = member.mean.weights if member.mean else {}
            self._measure(m, member, mean)
            state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped, moments=False)
            state = dataclasses.replace(state, weights=_one(mean) or state.weights)
        state.save(member.folder.checkpoint_path)
        result = self._result(member, diverged)
        member.folder.write_result(result)
        last = result["evaluations"][-1] if result["evaluations"] else {}
        summary = {"N": result["N"], "D": result["D"], **last}
        self.trackers.finish(member.run.run_id, summary, member.folder.ptq(), failed=diverged)

    def _save(self) -> None:
        for m, slot in enumerate(self.slots if self.processes.first else ()):
            for member in slot.members:
                self._state(m, member).save(member.folder.checkpoint_path)
        self.saved_at = time.monotonic()

    def _state(self, m: int, member: Member) -> Checkpoint:
        """What a member goes on from."""
        state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped)
        return dataclasses.replace(state, mean=_one(member.mean.weights)) if member.mean else state

    def _result(self, member: Member, diverged: bool) -> dict[str, Any]:
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
            "shared_steps": member.shared_steps,
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

    def _evaluations(self, member: Member) -> list[dict[str, float]]:
        """The loss at every token count that was evaluated, from the kept windows: an earlier attempt's count too."""
        kept = {int(name): values for name, values in member.folder.windows().items() if name.isdigit()}
        found = []
        for tokens in sorted(kept):
            loss, loss_se = clustered_mean(kept[tokens], self.windows.documents)
            found.append(declared("evaluation", {"tokens_seen": tokens, "loss": loss, "loss_se": loss_se}))
        return found


def _one(weights: Weights) -> Weights:
    """Those of one model, (1, out, in), as a checkpoint has them, (out, in)."""
    return {name: w[0] for name, w in weights.items()}


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
