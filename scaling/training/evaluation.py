"""The models of a stack measured, as they are and in every quantization, for the runs that they serve."""

from weakref import WeakKeyDictionary

import torch

from scaling.config.ptq import PTQConfig
from scaling.config.run import Run
from scaling.console import interrupt
from scaling.data.corpus import Corpus, Windows
from scaling.model.transformer import Weights, as_stack
from scaling.ptq.measure import Measurement, measure
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import snapshot_path
from scaling.training.members import Member, SharedModel
from scaling.training.stack import Stack


class Evaluator:
    """Measures on the held-out windows of the stack's corpus."""

    def __init__(self, corpus: Corpus, windows: Windows):
        self.corpus, self.windows = corpus, windows
        self.latest: WeakKeyDictionary[SharedModel, tuple[int, PTQConfig, Measurement]] = WeakKeyDictionary()
        """What was measured last of a model, behind how many tokens and with which settings."""

    def of_model(self, stack: Stack, m: int, model: SharedModel, member: Member) -> Measurement:
        """Of model m for one of its members: measured once for all that ask the same."""
        tokens = stack.tokens(m)
        asked = (tokens, member.run.ptq)
        known = self.latest.get(model)
        if known is None or known[:2] != asked:
            found = self._measured(member.run, stack.member(m), tokens)
            self.latest[model] = known = (*asked, found)
        return known[2]

    def of_snapshot(self, member: Member, tokens: int, seen: int, device: torch.device) -> Measurement:
        """Of the snapshot that was asked for at `tokens` and taken at `seen`.

        Raises:
            InputError: its file is missing or damaged.
        """
        weights = as_stack(Checkpoint.load(snapshot_path(member.folder.path, tokens)).weights, device)
        return self._measured(member.run, weights, seen)

    def at_end(self, stack: Stack, m: int, model: SharedModel, member: Member) -> Measurement:
        """Of what the member ends with: model m, or the mean of its weights where the member averages them."""
        if not (member.mean and member.mean.weights):
            return self.of_model(stack, m, model, member)
        return self._measured(member.run, member.mean.weights, stack.tokens(m))

    def _measured(self, run: Run, weights: Weights, tokens: int) -> Measurement:
        with interrupt.at_once():
            return measure(run, weights, self.corpus, self.windows, tokens)
