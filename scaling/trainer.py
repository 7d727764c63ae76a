"""Trains one stack of runs to their ends: batches, updates, checkpoints, snapshots, records."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling import provenance
from scaling.config import Run, resolve_device
from scaling.data import Batches, Corpus, Windows, prepare
from scaling.door import plain
from scaling.errors import InputError
from scaling.evaluate import clustered_mean
from scaling.measure import measure
from scaling.model import EAGER, Program, compiled_program, losses
from scaling.runs import SCHEMA, Checkpoint, RunFolder, snapshot_path, trunk_of
from scaling.stack import Stack
from scaling.terminal import Progress, note
from scaling.tracking import Trackers

# Compiling costs tens of seconds and saves about a third of a step: it pays from some minutes of eager work on.
COMPILE_FLOPS = 2e13
# A model whose updates were skipped this often in a row, for gradients that were not finite, has diverged.
SKIPS = 100


def train_stack(runs: Sequence[Run]) -> dict[str, str]:
    """Train every run that is not done, all as one stack; everything lands in the run folders.

    Runs that were interrupted go on from their checkpoints. A model that diverges is recorded and leaves; the others do
    not notice. On an interrupt or an error, checkpoints are written where the state is sound: a later call goes on
    there.

    Returns:
        run_id -> one line, for each run that could not be started (damaged checkpoint, missing parent, other tokens).

    Raises:
        InputError: what all the runs share cannot be used (corpus, device).
    """
    assert len({run.stack_key for run in runs}) == 1
    first = runs[0]
    torch.set_num_threads(first.runtime.threads or os.cpu_count() or 1)
    device = torch.device(resolve_device(first.runtime.device))
    corpus = prepare(first.data, Path(first.runtime.cache), note)
    windows = corpus.windows(first.data.eval_windows, first.data.sequence_length)
    members, failures = [], {}
    for run in runs:
        try:
            if RunFolder(run).state() != "done":
                corpus.check_horizon(run.data)
                members.append(_Member(run, corpus, windows))
        except InputError as fault:
            failures[run.run_id] = str(fault)
    if members:
        _Training(members, corpus, windows, device).run()
    return failures


class _Member:
    """One run on its way through a stack."""

    def __init__(self, run: Run, corpus: Corpus, windows: Windows):
        self.run = run
        self.folder = RunFolder(run)
        self.start = self._find_start()
        self.folder.open(corpus.data_sha, windows.sha)
        self.batches = Batches(corpus, run.data.sequence_length, run.batch_size, run.seed_data)
        self.seconds = self.start.seconds if self.start else 0.0
        self.skipped = self.start.skipped if self.start else 0
        self.skipped_in_a_row = 0
        self.snapshot_steps = {run.step_at(tokens): tokens for tokens in run.snapshots}

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

    def __init__(self, members: list[_Member], corpus: Corpus, windows: Windows, device: torch.device):
        self.members, self.corpus, self.windows, self.device = members, corpus, windows, device
        runs = [m.run for m in members]
        self.dtype = getattr(torch, runs[0].runtime.dtype)
        self.stack = Stack.start(runs, corpus.vocab_size, [m.start for m in members], device)
        for member, step in zip(members, self.stack.optimizer.steps, strict=True):
            member.folder.forget_metrics_after(step * member.run.data.batch_tokens)
            member.start = None  # the stack holds it now
        self.program = self._program(runs)
        self.sound = True  # False while an update is half done

    def _program(self, runs: list[Run]) -> Program:
        wish = runs[0].runtime.compile
        if wish == "off" or (
            wish == "auto" and (sum(r.flops for r in runs) < COMPILE_FLOPS or not provenance.has_compiler())
        ):
            return EAGER
        return compiled_program()

    def run(self) -> None:
        study = self.members[0].run.study
        folder = self.members[0].folder.path.parent
        total = sum(m.run.steps - s for m, s in zip(self.members, self.stack.optimizer.steps, strict=True))
        total *= self.members[0].run.data.batch_tokens
        configs = {m.run.run_id: plain(m.run) for m in self.members}
        title = f"{study}: {len(self.members)} x N={self.members[0].run.N:,}"
        self.trackers = Trackers(self.members[0].run.tracking, study, folder, configs)
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
                    if stop.asked:
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
        loss_M = self._gradients(tokens)
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

    def _gradients(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss of each model (M,); the gradients of their sum are left in the weights."""
        if self.program is EAGER:
            return self._gradients_by(EAGER, tokens)
        try:
            return self._gradients_by(self.program, tokens)
        except torch._dynamo.exc.BackendCompilerFailed as fault:
            if self.members[0].run.runtime.compile == "on":
                raise InputError(f"runtime.compile=on: {str(fault).splitlines()[0]}; use auto or off") from None
            note(f"torch.compile failed ({type(fault).__name__}); going on in eager mode")
            self.program = EAGER
            for w in self.stack.weights.values():
                w.grad = None
            return self._gradients_by(EAGER, tokens)

    def _gradients_by(self, program: Program, tokens: torch.Tensor) -> torch.Tensor:
        model, precision = self.members[0].run.model, self.stack.precision
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss_MB = losses(self.stack.weights, tokens[..., :-1], tokens[..., 1:], model, precision, program)
        loss_M = loss_MB.mean(dim=1)
        loss_M.sum().backward()  # a sum, not a mean: each model's gradient is that of its own loss
        return loss_M.detach()

    def _watch(self, norms: torch.Tensor) -> None:
        """Count updates that were skipped because a gradient was not finite."""
        for member, finite in zip(self.members, torch.isfinite(norms).tolist(), strict=True):
            member.skipped += not finite
            member.skipped_in_a_row = 0 if finite else member.skipped_in_a_row + 1

    def _log(self, member: _Member, step: int, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        tokens = step * member.run.data.batch_tokens
        values = {"loss_train": loss.item(), "grad_norm": norm.item(), "lr": rate}
        member.folder.log({"tokens": tokens, **values})
        self.trackers.log(member.run.run_id, tokens, values)

    def _take_snapshots(self) -> None:
        for m, member in enumerate(self.members):
            tokens = member.snapshot_steps.get(self.stack.optimizer.steps[m])
            if tokens is not None:
                state = self.stack.checkpoint(m, seconds=member.seconds, skipped=member.skipped)
                member.folder.save_checkpoint(snapshot_path(member.folder.path, tokens), state)
                self._measure(m, member)

    def _leave(self) -> None:
        """Finish the models that are at their end or have diverged, and go on without them."""
        staying = []
        for m, member in enumerate(self.members):
            diverged = member.skipped_in_a_row >= SKIPS
            if diverged or self.stack.optimizer.steps[m] == member.run.steps:
                self._finish(m, member, diverged)
            else:
                staying.append(m)
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
        for m, member in enumerate(self.members):
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
            "compiled": self.program is not EAGER,
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
