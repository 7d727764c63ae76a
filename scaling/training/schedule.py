"""The learning rate at every update of a run. A new schedule: its name, its settings and its rate in
`scaling.config.schedule`, a file in configs/schedule/; `families` learns from the rates where runs part."""

from scaling.config.run import Run
from scaling.config.schedule import rate_at


def learning_rate(run: Run, step: int) -> float:
    """Learning rate of update `step` (counted from 0 at fresh weights, through the parent of a branch)."""
    batch = run.data.batch_tokens
    return rate_at(run.schedule, run.lr_peak, step * batch, batch, run.D)
