"""The mean of a model's weights over the last updates of its run (schedule `average`).

Stochastic weight averaging (Izmailov et al., arXiv 1803.05407) at a constant learning rate: what a decay of the rate
does for the loss, without a decay. It is read off the training and changes nothing of it, so that a run which averages
shares its model with those that do not.
"""

from scaling.config.run import Run
from scaling.model.transformer import Weights


class WeightMean:
    """A running mean in float32 of the weights behind each of the last `decay_tokens` of a run."""

    def __init__(self, run: Run):
        self.first = run.steps - run.step_at(run.schedule.decay_tokens)
        """Weights count from the first update behind this one."""
        self.weights: Weights = {}
        """The mean so far, each (1, out, in); empty before the first weights that count."""

    def add(self, step: int, weights: Weights) -> None:
        """Take in the weights (1, out, in) behind `step` updates, more than `first`."""
        count = step - self.first
        if count == 1:
            self.weights = {name: w.clone() for name, w in weights.items()}
        else:
            for name, w in weights.items():
                self.weights[name].lerp_(w, 1 / count)
