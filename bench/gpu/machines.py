"""Do two machines give the same gaps? Runs of one config and seed, one a machine, differ in rounding alone, which grows
over some hundred steps to what another seed would be. So means are compared, paired by seed.

The rule, fixed beforehand: of each run the mean of ln gap over int3, int4 and int5, rounded to nearest per channel. The
machines agree if the 90% interval of the mean difference (Student's t over the seeds) lies within +-.10. If it does not
they differ where it excludes zero, and are not decided otherwise.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scaling.errors import InputError

BITS = (3, 4, 5)
BOUND = 0.10
LEVEL = 0.90


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """GPU minus CPU, in ln gap."""

    mean: float
    low: float
    high: float
    pairs: int
    loss: float
    """Mean difference of the losses before quantization, in nats a token."""

    @property
    def verdict(self) -> str:
        if self.low > -BOUND and self.high < BOUND:
            return "agree"
        return "differ" if self.low > 0 or self.high < 0 else "not decided"

    def __str__(self) -> str:
        return (
            f"{self.verdict}: ln gap differs by {self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}] "
            f"({LEVEL:.0%}, {self.pairs} pairs of seeds, bound +-{BOUND}); losses by {self.loss:+.4f} nats"
        )


def compare(cpu: Path, gpu: Path) -> Agreement:
    """From two tables of runs.

    Raises:
        InputError: they were trained on different text, or have fewer than three seeds in common.
    """
    ours, theirs = (_by_seed(path) for path in (cpu, gpu))
    for name in ("data_sha", "eval_sha"):
        if set(ours[name]) != set(theirs[name]):
            raise InputError(f"{gpu}: {name} is {theirs[name].iloc[0]} there and {ours[name].iloc[0]} in {cpu}")
    both = ours.add_suffix("_cpu").join(theirs.add_suffix("_gpu"), how="inner")
    if len(both) < 3:
        raise InputError(f"{gpu}: {len(both)} seeds in common with {cpu}; at least 3 are needed")
    differences = (both.ln_gap_gpu - both.ln_gap_cpu).to_numpy()
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences))
    half = stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1) * error
    loss = float((both.loss_gpu - both.loss_cpu).mean())
    return Agreement(mean=float(mean), low=mean - half, high=mean + half, pairs=len(both), loss=loss)


def _by_seed(path: Path) -> pd.DataFrame:
    """Seed -> mean of ln gap, loss, and what was trained on."""
    try:
        table = pd.read_csv(path)
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror})") from None
    chosen = table[(table.ptq == "rtn") & (table.granularity_post == "channel")]
    chosen = chosen[chosen.format_post.isin([f"int{bits}" for bits in BITS])]
    if not (chosen.gap > 0).all():
        raise InputError(f"{path}: a gap of int{BITS[0]} to int{BITS[-1]} is not above zero, and has no logarithm")
    ln_gap = np.log(chosen.gap).groupby(chosen.seed_init).mean().rename("ln_gap")
    base = table[table.ptq.isna()].set_index("seed_init")
    return base[["loss", "data_sha", "eval_sha"]].join(ln_gap, how="inner")
