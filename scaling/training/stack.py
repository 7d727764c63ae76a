"""The state of M models that are trained as one program, and the one operation that changes who is in it."""

import dataclasses

import torch

from scaling.config.run import Run
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import Weights, initialize
from scaling.records.checkpoint import Checkpoint
from scaling.training.adamw import AdamW


@dataclasses.dataclass
class Stack:
    """Weights (M, out, in), optimizer, formats and runs of M models of one shape."""

    runs: list[Run]
    weights: Weights
    optimizer: AdamW
    precision: StackPrecision

    @classmethod
    def start(
        cls, runs: list[Run], vocab_size: int, checkpoints: list[Checkpoint | None], device: torch.device
    ) -> "Stack":
        """Fresh models, or those of the checkpoints where there are any."""
        weights = initialize(runs[0].model, vocab_size, [run.seed_init for run in runs])
        weights = {name: w.to(device) for name, w in weights.items()}
        optimizer = AdamW(weights, runs, [c.step if c else 0 for c in checkpoints])
        for m, checkpoint in enumerate(checkpoints):
            if checkpoint is None:
                continue
            for into, group in (
                (weights, checkpoint.weights),
                (optimizer.first, checkpoint.first),
                (optimizer.second, checkpoint.second),
            ):
                for name, tensor in group.items():
                    into[name][m] = tensor.to(device)
            optimizer.skipped[m] = checkpoint.skipped_in_a_row
        stack = cls(runs, weights, optimizer, StackPrecision.of([r.precision for r in runs], device))
        return stack._trainable()

    def _trainable(self) -> "Stack":
        self.weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        return self

    def take(self, members: list[int], runs: list[Run] | None = None) -> "Stack":
        """The named members, in that order. [0, 2] lets model 1 leave; [0, 0, 1] forks model 0, with `runs` to say how
        the copies go on."""
        runs = runs or [self.runs[m] for m in members]
        device = self.optimizer.device
        chosen = torch.tensor(members, device=device)
        weights = {name: w.detach().index_select(0, chosen) for name, w in self.weights.items()}
        optimizer = AdamW(weights, runs, [self.optimizer.steps[m] for m in members])
        for ours, theirs in ((optimizer.first, self.optimizer.first), (optimizer.second, self.optimizer.second)):
            ours.update({name: moment.index_select(0, chosen) for name, moment in theirs.items()})
        optimizer.skipped = self.optimizer.skipped.index_select(0, chosen)
        optimizer.diverged = self.optimizer.diverged.index_select(0, chosen)
        return Stack(runs, weights, optimizer, StackPrecision.of([r.precision for r in runs], device))._trainable()

    def tokens(self, m: int) -> int:
        """How many model m has seen."""
        return self.optimizer.steps[m] * self.runs[m].data.batch_tokens

    def member(self, m: int) -> Weights:
        """Detached weights (1, out, in) of one model."""
        return {name: w.detach()[m : m + 1] for name, w in self.weights.items()}

    def is_finite(self, m: int) -> bool:
        """Whether every weight of model m is."""
        return all(bool(torch.isfinite(w).all()) for w in self.member(m).values())

    def checkpoint(self, m: int, *, moments: bool = True, **counts: float) -> Checkpoint:
        """What a file of model m holds, with the counts of one of its runs, steps among them; without `moments` it
        cannot be resumed."""

        def of(group: Weights) -> Weights:
            return {name: tensor.detach()[m] for name, tensor in group.items()}

        return Checkpoint(
            weights=of(self.weights),
            first=of(self.optimizer.first) if moments else {},
            second=of(self.optimizer.second) if moments else {},
            **counts,
        )
