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

import torch

from scaling.config.run import Run
from scaling.console.allocation import cores
from scaling.console.interrupt import Interrupt, Interrupted
from scaling.console.terminal import Progress, note
from scaling.console.tracking.runs import Trackers
from scaling.data.batches import Batches
from scaling.data.corpus import Corpus, Windows
from scaling.data.feed import Feed
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.ptq.measure import is_measured
from scaling.records.checkpoint import Checkpoint
from scaling.training import checkpoints
from scaling.training.adamw import SKIPS
from scaling.training.checkpoints import Checkpointer
from scaling.training.distributed import ALONE, Processes, divided
from scaling.training.evaluation import Asked, Evaluator
from scaling.training.families import model_steps
from scaling.training.gradients import Gradients
from scaling.training.members import Member, SharedModel, grouped
from scaling.training.record import Recorder, tracked
from scaling.training.stack import Stack
from scaling.training.steps import Steps, wants_graph


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
        members = [Member(run, processes.size) for run in runs]
        try:
            groups, failures = processes.from_first(lambda: _opened(members, corpus, windows))
            if groups:
                models = [SharedModel([members[i] for i in places]) for places in groups]
                graph = processes.agreed(lambda: wants_graph(runs, device, processes))
                _train(models, corpus, windows, device, processes, graph)
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
    models: list[SharedModel],
    corpus: Corpus,
    windows: Windows,
    device: torch.device,
    processes: Processes,
    graph: bool,
) -> None:
    """Train the members of these models, whose folders are open, to their ends."""
    stack = checkpoints.restored(models, corpus.vocab_size, device, processes)
    gradients = Gradients(stack.runs, device, processes)
    members = [member for model in models for member in model.members]
    first, folder = members[0].run, members[0].folder.path.parent
    starts = zip(models, stack.optimizer.steps, strict=True)
    steps = sum(model_steps([member.run for member in model.members], step) for model, step in starts)
    batches = Batches(corpus, first.data.sequence_length, first.batch_size, processes.share)
    with (
        Trackers(folder, tracked(models, stack, device) if processes.first else ()) as trackers,
        Progress(f"{first.study}: {len(members)} x N={first.N:,}", steps * first.data.batch_tokens) as progress,
        Interrupt() as interrupt,
    ):
        Loop(
            stack=stack,
            models=models,
            gradients=gradients,
            feed=Feed(batches, device),
            graph=graph,
            evaluator=Evaluator(corpus, windows),
            recorder=Recorder(corpus, windows, gradients, trackers),
            progress=progress,
            processes=processes,
        ).run(interrupt)


@dataclasses.dataclass(kw_only=True)
class Loop:
    """The loop over the steps of one stack. `models[m]` is whom model m of `stack` serves: nobody any more, where rows
    are kept.

    Steps are taken without looking at what comes of them, up to the next at which something is due: a point of a curve,
    a snapshot, an end, members that part, a checkpoint. There all of them are read and counted."""

    stack: Stack
    models: list[SharedModel]
    gradients: Gradients
    feed: Feed
    graph: bool
    """Whether a GPU records a step and launches it as one."""
    evaluator: Evaluator
    recorder: Recorder
    progress: Progress
    processes: Processes

    def __post_init__(self):
        self.checkpointer = Checkpointer()
        self.steps: Steps | None = None  # of the stack as it is
        self.done_tokens = 0
        self.sound = True  # False while an update, or the count of it, is half done

    @property
    def keeps_rows(self) -> bool:
        """Whether models that serve nobody any more stay in the stack, up to a power of two: on a GPU, where what is
        recorded or compiled is made for one number of models."""
        return self.gradients.device.type == "cuda" and (self.graph or self.gradients.compiled)

    def run(self, interrupt: Interrupt) -> None:
        """Take steps until no member is left."""
        try:
            self._catch_up()
            self._leave()  # whoever was killed between the last update and the result
            while self.models:
                stopped = self._advance(interrupt)
                self._look_on_the_way()
                self._take_snapshots()
                self._leave()
                if stopped:
                    raise Interrupted(interrupt.number)
                if self.models and self._is_save_due():
                    self._save()
        except BaseException:
            if self.sound:
                self._save()
            raise

    def _advance(self, interrupt: Interrupt) -> bool:
        """Take steps up to the next at which something is due, and count them. Whether to stop there."""
        began, stopped = time.monotonic(), False
        self._fork()
        if self.steps is None:
            self.restart()
        updates = self._until_due()
        try:
            for _ in range(updates):
                self.update()
                stopped = self.processes.any(interrupt.asked)
                if stopped or self._is_save_due():
                    break
        finally:
            if self.sound:
                self._count(began)
        return stopped

    def update(self) -> None:
        """One update of every model. Nothing of it waits for a GPU."""
        self.sound = False
        self.steps.take()
        self._average()
        self.sound = True
        self._show_progress()

    def restart(self) -> None:
        """Make ready to take steps with the stack as it is now."""
        steps = self.stack.optimizer.steps
        left = max(model.run.steps - step for model, step in zip(self.models, steps, strict=True) if model.members)
        self.steps = Steps(self.stack, self.gradients, self.feed, left, graph=self.graph)

    def _until_due(self) -> int:
        """How many updates can be taken before something is due that is known beforehand."""
        # Several processes look at the same step, and a mean has to stop where its model does.
        if not self.processes.alone or any(member.mean for member in self._members()):
            return 1
        count = self.steps.until_full
        for model, step in zip(self.models, self.stack.optimizer.steps, strict=True):
            if model.members:
                count = min(count, model.parts_behind(step))
            for member in model.members:
                count = next((i for i in range(1, count) if member.is_due(step + i)), count)
        return count

    def _average(self) -> None:
        for m, _, member in self._mine():
            step = self.stack.optimizer.steps[m]
            if member.mean and step > member.mean.first:
                member.mean.add(step, self.stack.member(m))

    def _count(self, began: float) -> None:
        """Count the updates since the last time for every member, and write the points of its curve."""
        self.sound = False
        updates = self.steps.read()
        seconds = (time.monotonic() - began) / max(1, len(updates)) / len(self._members())
        for behind, update in zip(reversed(range(len(updates))), updates, strict=True):
            for m, model in enumerate(self.models):
                step = self.stack.optimizer.steps[m] - behind
                for member in model.members:
                    if member.diverged:
                        continue
                    member.count(step, seconds, update.made[m], shared=len(model.members) > 1)
                    if self.processes.first and member.is_point(step):
                        self.recorder.point(member, step, update.losses[m], update.norms[m])
        self.sound = True

    def _show_progress(self) -> None:
        members = self._members()
        models = sum(bool(model.members) for model in self.models)
        self.done_tokens += models * members[0].run.data.batch_tokens
        self.progress.update(self.done_tokens, models=str(models), runs=str(len(members)))

    def _look_on_the_way(self) -> None:
        """Measure the points of curves on held-out windows that are due, where an earlier attempt did not get to."""
        steps = self.stack.optimizer.steps
        due = [
            (m, member)
            for m, _, member in self._mine()
            if member.is_val_point(steps[m]) and self.stack.tokens(m) > member.folder.last_val_tokens
        ]
        losses = self.evaluator.on_the_way(self.stack, {m: member.run for m, member in due})
        for m, member in due:
            if math.isfinite(losses[m]):
                self.recorder.val_point(member, self.stack.tokens(m), losses[m])

    def _take_snapshots(self, unless_measured: bool = False) -> None:
        taken = []
        for m, model in enumerate(self.models):
            step = self.stack.optimizer.steps[m]
            for member in model.members:
                tokens = member.snapshot_steps.get(step)
                if tokens is None or member.last_step not in (None, step):
                    continue
                if not self.stack.is_finite(m):
                    member.broken = True  # on every process alike
                elif self.processes.first and not (
                    unless_measured and is_measured(member.folder, self.stack.tokens(m))
                ):
                    checkpoints.save_snapshot(self.stack, m, member, tokens)
                    taken.append(Asked(m, model, member, at_end=False))
        for asked, measurement in zip(taken, self.evaluator.of_models(self.stack, taken), strict=True):
            self.recorder.measurement(asked.member, self.stack.tokens(asked.m), measurement)

    def _catch_up(self) -> None:
        """Measure the snapshots at which, or behind which, an earlier attempt was stopped before their records were
        whole."""
        for m, _, member in self._mine():
            for tokens, seen in member.unmeasured(self.stack.optimizer.steps[m]):
                measurement = self.evaluator.of_snapshot(member, tokens, seen, self.gradients.device)
                self.recorder.measurement(member, seen, measurement)
        self._look_on_the_way()
        self._take_snapshots(unless_measured=True)

    def _fork(self) -> None:
        """Members whose learning rates part in the next update go on in copies of their own."""
        steps = self.stack.optimizer.steps
        parts = [model.parted(step) for model, step in zip(self.models, steps, strict=True)]
        if all(len(part) == 1 for part in parts):
            return
        served = [(m, model) for m, part in enumerate(parts) for model in part if model.members]
        spare = [(m, model) for m, model in enumerate(self.models) if not model.members]
        chosen, models = zip(*served, *spare[: max(0, len(self.models) - len(served))], strict=True)
        self._take(list(chosen), list(models))

    def _leave(self) -> None:
        """Finish the members that are at their end or have diverged, and go on without them and their models."""
        leaving = [
            Asked(m, model, member, at_end=True)
            for m, model in enumerate(self.models)
            for member in model.members
            if member.diverged or self.stack.optimizer.steps[m] >= member.run.steps
        ]
        if self.processes.first:
            self._finish(leaving)
        for _, model, member, _ in leaving:
            if member in model.members:
                model.members.remove(member)
        staying = [m for m, model in enumerate(self.models) if model.members]
        rows = self._rows(staying)
        if not staying:
            self.models = []
        elif len(rows) < len(self.models):
            self._take(rows, [self.models[m] for m in rows])
        if empty := [m for m, model in enumerate(self.models) if not model.members]:
            self.stack.optimizer.leave_alone(empty)

    def _rows(self, staying: list[int]) -> list[int]:
        """The models of the stack to go on with: those that serve somebody; or, where rows are kept, a power of two of
        them that holds these."""
        if not self.keeps_rows:
            return staying
        empty = [m for m in range(len(self.models)) if m not in staying]
        spare = 2 ** math.ceil(math.log2(max(1, len(staying)))) - len(staying)
        return sorted(staying + empty[:spare])

    def _finish(self, leaving: list[Asked]) -> None:
        """Measure and record the models that members end with."""
        for m, _, member, _ in leaving:
            member.broken |= not self.stack.is_finite(m)
        whole = [asked for asked in leaving if not asked.member.diverged]
        for asked, measurement in zip(whole, self.evaluator.of_models(self.stack, whole), strict=True):
            m, _, member, _ = asked
            member.broken = not math.isfinite(measurement.loss)
            if not member.diverged:
                self.recorder.measurement(member, self.stack.tokens(m), measurement)
                self._end(asked, checkpoints.final(self.stack, m, member))
        for asked in leaving:
            m, _, member, _ = asked
            if member.diverged:
                why = "weights or losses that are not finite"
                if member.skipped_in_a_row >= SKIPS:
                    why = f"after {SKIPS} steps without a finite gradient"
                step = member.last_step or self.stack.optimizer.steps[m]
                note(f"{member.run.run_id}: diverged, {why}, at {step * member.run.data.batch_tokens:,} tokens")
                # A diverged model that is killed here still has to be trained on.
                self._end(asked, checkpoints.resumable(self.stack, m, member))

    def _end(self, asked: Asked, state: Checkpoint) -> None:
        """Write what the member ends with, and go on without it: nothing is saved of it any more."""
        _, model, member, _ = asked
        member.folder.save_checkpoint(state)
        self.recorder.end(member)
        model.members.remove(member)
        member.folder.unlock()

    def _take(self, chosen: list[int], models: list[SharedModel]) -> None:
        """Go on with the chosen models of the stack, which serve as `models` says from now on."""
        served = zip(chosen, models, strict=True)
        stack = self.stack.take(chosen, [model.run if model.members else self.stack.runs[m] for m, model in served])
        self.sound = False  # if a second interrupt comes here, stack and models may not belong together
        self.stack, self.models, self.steps = stack, models, None
        self.sound = True

    def _save(self) -> None:
        if self.processes.first:
            self.checkpointer.save_all(self.stack, self.models)

    def _is_save_due(self) -> bool:
        return self.checkpointer.is_due(self._members()[0].run.runtime.checkpoint_seconds)

    def _members(self) -> list[Member]:
        return [member for model in self.models for member in model.members]

    def _mine(self) -> Iterator[tuple[int, SharedModel, Member]]:
        """Model m, and a member that it serves, for all whose folders this process writes: all or none."""
        for m, model in enumerate(self.models if self.processes.first else ()):
            for member in model.members:
                yield m, model, member
