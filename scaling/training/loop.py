"""Trains one stack of runs to their ends: the loop over its steps, with what happens between two of them.

A model of the stack serves all members that are still one copy (`scaling.training.families`), and is forked where their
learning rates part. Each member's files are those of a run that is trained alone.

What the loop calls stands beside it: a step's losses and gradients (`gradients`) and its update (`adamw`), models
measured (`evaluation`), checkpoints saved and restored (`checkpoints`), what runs leave behind (`record`).
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from scaling.config.from_dict import plain
from scaling.config.run import Run
from scaling.console.allocation import cores
from scaling.console.interrupt import Interrupt, Interrupted
from scaling.console.terminal import Progress, note
from scaling.console.wandb_runs import Trackers
from scaling.data.corpus import Corpus, Windows
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.ptq.measure import is_measured
from scaling.training import checkpoints
from scaling.training.checkpoints import Checkpointer
from scaling.training.distributed import ALONE, Processes, divided
from scaling.training.evaluation import Evaluator
from scaling.training.families import model_steps
from scaling.training.gradients import Gradients
from scaling.training.members import SKIPS, Member, SharedModel, grouped
from scaling.training.record import Recorder
from scaling.training.stack import Stack


def train_stack(runs: Sequence[Run], processes: Processes = ALONE) -> dict[str, InputError]:
    """Train every run that is not done, all as one stack; everything lands in the run folders. Of several processes
    each calls this with the same runs, and the first one alone reads and writes those folders.

    Runs that were interrupted go on from their checkpoints. A model that diverges is recorded and leaves; the others do
    not notice. On an interrupt or an error, checkpoints are written where the state is sound: a later call goes on
    there.

    Returns:
        run_id -> why, for each run that could not be started (damaged checkpoint, missing parent, other tokens, another
        process that trains it).

    Raises:
        InputError: what all the runs share cannot be used (corpus, device).
    """
    assert len({run.stack_key for run in runs}) == 1
    with processes.quiet():
        runs = processes.agreed(lambda: [divided(run, processes.size) for run in runs])
        first = runs[0]
        torch.set_num_threads(first.runtime.threads or max(1, cores() // processes.local_size))
        device = processes.agreed(lambda: processes.device(first.runtime.device))
        corpus = processes.in_turn(lambda: prepare(first.data, Path(first.runtime.cache), note))
        windows = corpus.windows(first.data.eval_windows, first.data.sequence_length)
        members = [Member(run, corpus, processes) for run in runs]
        try:
            found, failures = processes.from_first(lambda: _opened(members, corpus, windows))
            if found:
                models = [SharedModel([members[i] for i in places]) for places in found]
                _train(models, corpus, windows, device, processes)
        finally:
            for member in members:
                member.folder.unlock()
    return failures


def _opened(
    members: Sequence[Member], corpus: Corpus, windows: Windows
) -> tuple[list[list[int]], dict[str, InputError]]:
    """Lock and open the folders of the runs that are not done, each at its start: the places of those that one model
    serves, and the fault of each that cannot be opened. Whoever locks the same folders does so in the same order, so
    that of two sweeps one gets all of a stack."""
    todo, failures = [], {}
    for i in sorted(range(len(members)), key=lambda i: members[i].run.run_id):
        member = members[i]
        try:
            if member.folder.state() == "done":
                continue
            corpus.check_horizon(member.run.data)
            member.folder.lock()
            if member.folder.state() != "done":  # by the process that had the lock until now
                member.open(corpus.data_sha, windows.sha)
                todo.append(i)
        except InputError as fault:
            failures[member.run.run_id] = fault
    todo.sort()
    return [[todo[i] for i in places] for places in grouped([members[i] for i in todo])], failures


def _train(
    models: list[SharedModel], corpus: Corpus, windows: Windows, device: torch.device, processes: Processes
) -> None:
    """Train the members of these models, whose folders are open, to their ends."""
    stack = checkpoints.restored(models, corpus.vocab_size, device, processes)
    gradients = Gradients(stack.runs, device, processes)
    members = [member for model in models for member in model.members]
    first, folder = members[0].run, members[0].folder.path.parent
    starts = zip(models, stack.optimizer.steps, strict=True)
    steps = sum(model_steps([member.run for member in model.members], step) for model, step in starts)
    configs = {m.run.run_id: plain(m.run) for m in members}
    tracking = first.tracking if processes.first else dataclasses.replace(first.tracking, mode="off")
    with (
        Trackers(tracking, first.study, folder, configs) as trackers,
        Progress(f"{first.study}: {len(members)} x N={first.N:,}", steps * first.data.batch_tokens) as progress,
        Interrupt() as interrupt,
    ):
        Loop(
            stack=stack,
            models=models,
            gradients=gradients,
            evaluator=Evaluator(corpus, windows),
            recorder=Recorder(corpus, windows, gradients, trackers),
            progress=progress,
            processes=processes,
        ).run(interrupt)


class Update(NamedTuple):
    """What one update of a stack shows of it."""

    losses: torch.Tensor
    """Of the batch, before the update, (M,)."""
    norms: torch.Tensor
    """Of the gradients, (M,); where one is not finite the model was left as it was."""
    rates: list[float]
    """Learning rates."""


@dataclasses.dataclass(kw_only=True)
class Loop:
    """The loop over the steps of one stack. `models[m]` is whom model m of `stack` serves."""

    stack: Stack
    models: list[SharedModel]
    gradients: Gradients
    evaluator: Evaluator
    recorder: Recorder
    progress: Progress
    processes: Processes

    def __post_init__(self):
        self.checkpointer = Checkpointer()
        self.done_tokens = 0
        self.sound = True  # False while an update is half done

    def run(self, interrupt: Interrupt) -> None:
        """Take steps until no member is left."""
        try:
            self._catch_up()
            self._leave()  # whoever was killed between the last update and the result
            while self.models:
                self.step()
                if self.processes.any(interrupt.asked):
                    raise Interrupted(interrupt.number)
        except BaseException:
            if self.sound:
                self._save()
            raise

    def step(self) -> None:
        """One update of every model, with what is due before and behind it."""
        began = time.monotonic()
        self._fork()
        self.sound = False
        update = self._update()
        self._average()
        self.sound = True
        self._count(update, began)
        self._record_points(update)
        self._show_progress()
        self._take_snapshots()
        self._leave()
        if self.models and self.checkpointer.is_due(self.models[0].run.runtime.checkpoint_seconds):
            self._save()

    def _update(self) -> Update:
        steps = self.stack.optimizer.steps
        batch = np.stack([model.farthest.batches.at(step) for model, step in zip(self.models, steps, strict=True)])
        losses = self.gradients(self.stack, torch.from_numpy(batch).to(self.gradients.device))
        norms, rates = self.stack.optimizer.step(self.stack.weights)
        return Update(losses, norms, rates)

    def _average(self) -> None:
        for m, _, member in self._mine():
            step = self.stack.optimizer.steps[m]
            if member.mean and step > member.mean.first:
                member.mean.add(step, self.stack.member(m))

    def _count(self, update: Update, began: float) -> None:
        """Count the update for every member, skipped where the gradient was not finite."""
        finite = torch.isfinite(update.norms).tolist()  # waits for a GPU
        seconds = (time.monotonic() - began) / len(self._members())
        for m, model in enumerate(self.models):
            for member in model.members:
                member.count(seconds, finite[m], shared=len(model.members) > 1)

    def _record_points(self, update: Update) -> None:
        for m, _, member in self._mine():
            step = self.stack.optimizer.steps[m]
            if step == member.run.steps or member.run.tracking.is_point(step):
                self.recorder.point(member, step, update.losses[m], update.norms[m], update.rates[m])

    def _show_progress(self) -> None:
        members = self._members()
        self.done_tokens += len(self.models) * members[0].run.data.batch_tokens
        self.progress.update(self.done_tokens, models=str(len(self.models)), runs=str(len(members)))

    def _take_snapshots(self, unless_measured: bool = False) -> None:
        for m, model in enumerate(self.models):
            seen = self.stack.tokens(m)
            for member in model.members:
                tokens = member.snapshot_steps.get(self.stack.optimizer.steps[m])
                if tokens is None:
                    continue
                if not self.stack.is_finite(m):
                    member.broken = True  # on every process alike
                elif self.processes.first and not (unless_measured and is_measured(member.folder, seen)):
                    checkpoints.save_snapshot(self.stack, m, member, tokens)
                    self.recorder.measurement(member, seen, self.evaluator.of_model(self.stack, m, model, member))

    def _catch_up(self) -> None:
        """Measure the snapshots at which, or behind which, an earlier attempt was stopped before their records were
        whole."""
        for m, _, member in self._mine():
            for tokens, seen in member.unmeasured(self.stack.optimizer.steps[m]):
                found = self.evaluator.of_snapshot(member, tokens, seen, self.gradients.device)
                self.recorder.measurement(member, seen, found)
        self._take_snapshots(unless_measured=True)

    def _fork(self) -> None:
        """Members whose learning rates part in the next update go on in copies of their own."""
        steps = self.stack.optimizer.steps
        parts = [model.parted(step) for model, step in zip(self.models, steps, strict=True)]
        models = [model for part in parts for model in part]
        if len(models) > len(self.models):
            self._take([m for m, part in enumerate(parts) for _ in part], models)

    def _leave(self) -> None:
        """Finish the members that are at their end or have diverged, and go on without them and their models."""
        for m, model in enumerate(self.models):
            for member in list(model.members):
                if member.diverged or self.stack.optimizer.steps[m] >= member.run.steps:
                    if self.processes.first:
                        self._finish(m, model, member)
                    model.members.remove(member)
        staying = [m for m, model in enumerate(self.models) if model.members]
        if not staying:
            self.models = []
        elif len(staying) < len(self.models):
            self._take(staying, [self.models[m] for m in staying])

    def _finish(self, m: int, model: SharedModel, member: Member) -> None:
        member.broken |= not self.stack.is_finite(m)
        if not member.diverged:
            found = self.evaluator.at_end(self.stack, m, model, member)
            member.broken = not math.isfinite(found.loss)
        if member.diverged:
            why = "weights or losses that are not finite"
            if member.skipped_in_a_row >= SKIPS:
                why = f"after {SKIPS} steps without a finite gradient"
            note(f"{member.run.run_id}: diverged, {why}, at {self.stack.tokens(m):,} tokens")
            # A diverged model that is killed here still has to be trained on.
            state = checkpoints.resumable(self.stack, m, member)
        else:
            self.recorder.measurement(member, self.stack.tokens(m), found)
            state = checkpoints.final(self.stack, m, member)
        member.folder.save_checkpoint(state)
        self.recorder.end(member)
        member.folder.unlock()

    def _take(self, chosen: list[int], models: list[SharedModel]) -> None:
        """Go on with the chosen models of the stack, which serve as `models` says from now on."""
        stack = self.stack.take(chosen, [model.run for model in models])
        self.sound = False  # if a second interrupt comes here, stack and models may not belong together
        self.stack, self.models = stack, models
        self.sound = True

    def _save(self) -> None:
        if self.processes.first:
            self.checkpointer.save_all(self.stack, self.models)

    def _members(self) -> list[Member]:
        return [member for model in self.models for member in model.members]

    def _mine(self) -> Iterator[tuple[int, SharedModel, Member]]:
        """Model m, and a member that it serves, for all whose folders this process writes: all or none."""
        for m, model in enumerate(self.models if self.processes.first else ()):
            for member in model.members:
                yield m, model, member
