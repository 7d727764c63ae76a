"""AdamW with its own learning rate, weight decay and clipping for every model of a stack.

torch.optim.AdamW takes one learning rate a parameter, and here one parameter holds M models; so the update is written
out. Everything that differs between models is a tensor (M, 1, 1), and no model's update depends on another's.
"""

import torch

from scaling.config.run import Run
from scaling.model.transformer import Weights
from scaling.training.schedule import learning_rate


def gradient_norms(weights: Weights) -> torch.Tensor:
    """Norm of each model's whole gradient, (M,).

    Rows are summed first and then the sums of rows: a long sum over (1, n) would be split over threads and one over
    (4, n) would not, and a model's norm would depend on its company.
    """
    squares = [w.grad.square().sum(-1).sum(-1) for w in weights.values()]
    return torch.stack(squares, dim=1).sum(dim=1).sqrt()


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over a stack: weights and moments (M, out, in), step counts (M,)."""

    def __init__(self, weights: Weights, runs: list[Run], steps: list[int]):
        self.first = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.steps = list(steps)
        self.set_runs(runs, next(iter(weights.values())).device)

    def set_runs(self, runs: list[Run], device: torch.device) -> None:
        self.runs = list(runs)
        self.device = device
        self.decay = self._column([r.optimizer.weight_decay for r in runs])
        self.clip = torch.tensor([r.optimizer.clip for r in runs], device=device)

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)

    @torch.no_grad()
    def step(self, weights: Weights) -> tuple[torch.Tensor, list[float]]:
        """One update from the gradients, which are cleared. Returns gradient norms (M,) and learning rates.

        A model with a non-finite gradient keeps its weights: its gradient and its learning rate count as zero.
        """
        o = self.runs[0].optimizer
        norms = gradient_norms(weights)
        finite = torch.isfinite(norms)
        shrink = torch.where(finite, torch.clamp(self.clip / norms, max=1.0), 0.0).view(-1, 1, 1)
        rates = [learning_rate(run, step) for run, step in zip(self.runs, self.steps, strict=True)]
        self.steps = [step + 1 for step in self.steps]
        lr = torch.where(finite.view(-1, 1, 1), self._column(rates), 0.0)
        keep = 1 - lr * self.decay
        size = lr / self._column([1 - o.beta1**s for s in self.steps])
        correction = self._column([(1 - o.beta2**s) ** -0.5 for s in self.steps])
        for name, w in weights.items():
            # where, not a product: 0 * NaN would stay NaN.
            g = torch.where(shrink > 0, w.grad * shrink, 0.0)
            first = self.first[name].mul_(o.beta1).add_(g, alpha=1 - o.beta1)
            second = self.second[name].mul_(o.beta2).addcmul_(g, g, value=1 - o.beta2)
            w.mul_(keep).sub_(first / second.sqrt().mul_(correction).add_(o.epsilon) * size)
            w.grad = None
        return norms, rates
