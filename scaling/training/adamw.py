"""AdamW with its own learning rate, weight decay and clipping for every model of a stack.

torch.optim.AdamW takes one learning rate a parameter, and here one parameter holds M models; so the update is written
out. Everything that differs between models is a tensor (M, 1, 1), and no model's update depends on another's.
"""

from collections.abc import Sequence

import numpy as np
import torch

from scaling.config.run import Run
from scaling.model.transformer import Weights
from scaling.training.schedule import learning_rate

SKIPS = 100
"""A model whose updates were skipped so often in a row, for gradients that were not finite, has diverged."""


def gradient_norms(weights: Weights) -> torch.Tensor:
    """Norm of each model's whole gradient, (M,).

    Rows are summed first and then the sums of rows: a long sum over (1, n) would be split over threads and one over
    (4, n) would not, and a model's norm would depend on its company.
    """
    squares = [w.grad.square().sum(-1).sum(-1) for w in weights.values()]
    return torch.stack(squares, dim=1).sum(dim=1).sqrt()


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over a stack: weights and moments (M, out, in), step counts (M,).

    A model whose gradient is not finite keeps its weights. One that was skipped `SKIPS` times in a row has diverged and
    is left alone from then on, moments too: whoever looks at it later finds it as it was.
    """

    def __init__(self, weights: Weights, runs: list[Run], steps: list[int]):
        self.first = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.runs, self.steps = list(runs), list(steps)
        self.device = next(iter(weights.values())).device
        self.decay = torch.tensor([r.optimizer.weight_decay for r in runs], device=self.device).view(-1, 1, 1)
        self.clip = torch.tensor([r.optimizer.clip for r in runs], device=self.device)
        self.skipped = torch.zeros(len(runs), dtype=torch.int32, device=self.device)
        """Updates that were skipped in a row, (M,)."""
        self.diverged = torch.zeros(len(runs), dtype=torch.bool, device=self.device)
        """Models that are left alone, (M,)."""

    def leave_alone(self, models: list[int]) -> None:
        """Take these as diverged: their weights and moments stay."""
        self.diverged[torch.tensor(models, device=self.device)] = True

    @torch.no_grad()
    def update(self, weights: Weights, rates_3M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One update from the gradients, which are cleared, with a row of `rates`. Nothing of it waits for a GPU, and
        all that is kept is changed in place. `steps` are the caller's to count.

        Returns:
            Gradient norms, and which models were updated, both (M,).
        """
        o = self.runs[0].optimizer
        norms = gradient_norms(weights)
        made = torch.isfinite(norms) & ~self.diverged
        shrink = torch.where(made, torch.clamp(self.clip / norms, max=1.0), 0.0).view(-1, 1, 1)
        rate, correction1, correction2 = rates_3M.view(3, -1, 1, 1)
        lr = torch.where(made.view(-1, 1, 1), rate, 0.0)
        keep, size = 1 - lr * self.decay, lr / correction1
        # Without a gradient a moment times one is what it was.
        frozen = self.diverged.view(-1, 1, 1)
        beta1, beta2 = (torch.where(frozen, 1.0, beta) for beta in (o.beta1, o.beta2))
        counts, nothing = shrink > 0, torch.zeros_like(shrink[:1])
        for name, w in weights.items():
            # where, not a product: 0 * NaN would stay NaN.
            g = torch.where(counts, w.grad * shrink, nothing)
            first = self.first[name].mul_(beta1).add_(g, alpha=1 - o.beta1)
            second = self.second[name].mul_(beta2).addcmul_(g, g, value=1 - o.beta2)
            w.mul_(keep).sub_(first / second.sqrt().mul_(correction2).add_(o.epsilon) * size)
            w.grad = None
        self.skipped.add_(1).mul_(~made)
        self.diverged.logical_or_(self.skipped >= SKIPS)
        return norms, made


def rates(runs: Sequence[Run], starts: Sequence[int], steps: int) -> np.ndarray:
    """What updates of M models take from tables: learning rates and the corrections of both moments, (steps, 3, M)
    float32. Computed in float64; `starts` are the steps that the models have taken before."""
    o = runs[0].optimizer
    table = np.empty((steps, 3, len(runs)), dtype=np.float32)
    # Models of one schedule at one step have the same rates.
    known: dict[tuple, np.ndarray] = {}
    for m, (run, start) in enumerate(zip(runs, starts, strict=True)):
        key = (run.schedule, run.lr_peak, run.D, start)
        if key not in known:
            taken = range(start, start + steps)
            known[key] = np.array(
                [(learning_rate(run, s), 1 - o.beta1 ** (s + 1), (1 - o.beta2 ** (s + 1)) ** -0.5) for s in taken]
            )
        table[:, :, m] = known[key]
    return table
