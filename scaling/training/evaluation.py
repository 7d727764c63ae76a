"""The models of a stack measured, as they are and in every quantization, for the runs that they serve."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import torch

from scaling.config.run import Run
from scaling.console import interrupt
from scaling.data.corpus import Corpus, Windows
from scaling.model.transformer import as_stack
from scaling.ptq.measure import Measurement, Trained, measure, models_at_once
from scaling.ptq.settings import settings_of
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import snapshot_path
from scaling.training.members import Member, SharedModel
from scaling.training.stack import Stack


class Asked(NamedTuple):
    """Model m of a stack, to be measured for one of its members."""

    m: int
    model: SharedModel
    member: Member
    at_end: bool
    """Whether it is what the member ends with: the mean of the weights then, where it averages them."""

    @property
    def takes_mean(self) -> bool:
        return bool(self.at_end and self.member.mean and self.member.mean.weights)

    @property
    def key(self) -> Hashable:
        """Equal for those of one step that ask the same."""
        return self.model, self.member.run.ptq, self.member if self.takes_mean else None


class Evaluator:
    """Measures on the held-out windows of the stack's corpus."""

    def __init__(self, corpus: Corpus, windows: Windows):
        self.corpus, self.windows = corpus, windows
        self.steps: list[int] = []
        self.latest: dict[Hashable, Measurement] = {}
        """What was measured of the models of a stack that had taken these steps."""

    def of_models(self, stack: Stack, asked: Sequence[Asked]) -> Iterator[Measurement]:
        """For each that is asked for, in order: measured once for all that ask the same, and several models together
        where that is faster."""
        if self.steps != stack.optimizer.steps:
            self.steps, self.latest = list(stack.optimizer.steps), {}
        run = stack.runs[0]
        at_once = models_at_once(len(settings_of(run)), run, stack.weights)
        for start in range(0, len(asked), at_once):
            chosen = asked[start : start + at_once]
            new = {one.key: _trained(stack, one) for one in chosen if one.key not in self.latest}
            if new:
                measurements = self._measured(list(new.values()))
                self.latest.update(zip(new, measurements, strict=True))
            for one in chosen:
                yield self.latest[one.key]

    def of_snapshot(self, member: Member, tokens: int, seen: int, device: torch.device) -> Measurement:
        """Of the snapshot that was asked for at `tokens` and taken at `seen`.

        Raises:
            InputError: its file is missing or damaged.
        """
        weights = as_stack(Checkpoint.load(snapshot_path(member.folder.path, tokens)).weights, device)
        run = member.run
        model = Trained(run=run, weights=weights, tokens_seen=seen, settings=settings_of(run))
        return self._measured([model])[0]

    def on_the_way(self, stack: Stack, models: dict[int, Run]) -> dict[int, float]:
        """The loss of each of these models (m -> a run that it is) on the few windows that this run asks for."""
        losses: dict[int, float] = {}
        counts = {m: run.tracking.val_windows for m, run in models.items()}
        for count in dict.fromkeys(counts.values()):
            chosen = [m for m in models if counts[m] == count]
            at_once = models_at_once(0, stack.runs[0], stack.weights)
            for start in range(0, len(chosen), at_once):
                group = chosen[start : start + at_once]
                asked = [
                    Trained(run=models[m], weights=stack.member(m), tokens_seen=stack.tokens(m), settings=())
                    for m in group
                ]
                with interrupt.at_once():
                    measured = measure(asked, self.corpus, self.windows.spread(count))
                losses.update((m, one.loss) for m, one in zip(group, measured, strict=True))
        return losses

    def _measured(self, models: Sequence[Trained]) -> list[Measurement]:
        with interrupt.at_once():
            return measure(models, self.corpus, self.windows)


def _trained(stack: Stack, asked: Asked) -> Trained:
    m, _, member, _ = asked
    weights = member.mean.weights if asked.takes_mean else stack.member(m)
    return Trained(run=member.run, weights=weights, tokens_seen=stack.tokens(m), settings=settings_of(member.run))
