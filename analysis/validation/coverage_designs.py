"""The studies that coverage is measured on: which runs they train, and what their laws lack.

What the law lacks is drawn anew for each study, so that the planted law is right on average: `size`, an amount by which
all runs of a size are off, whatever their seed; `curve`, a curvature in ln D that all runs share (second Legendre
polynomial over the range of ln D). Both have an sd of 3% of the gap, and of 1% of the loss above E. `simulator` says
how runs scatter around them.

That is a regime of its own: gaps of the project's tables are off by more. With `Components`, those that were fitted to
a table take the place of the 3%: effects of the size, of the size times ln D and of the cell are what a `size` is off
by, and effects of each D the `curve`. Losses keep their 1%.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis.planning.next_runs.components import Components
from analysis.validation.simulator import PLANTED_GAP, PLANTED_LOSS, Quantization, Run, Truth, rows

TRUTH = {"kumar_ptq": PLANTED_GAP, "chinchilla": PLANTED_LOSS}
BITS = (3, 4, 5, 6)
QUANTIZATIONS = tuple(Quantization(format=f"int{bits}", bits=bits) for bits in BITS)
LACK_OF_GAP, LACK_OF_LOSS = 0.03, 0.01
USED_COLUMNS = ["run_id", "cluster", "seed_init", "N", "D", "loss", "P_post", "gap", "gap_se"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """Which runs a study trains: all of sizes (parameters) x tokens x seeds."""

    name: str
    sizes: tuple[int, ...]
    tokens: tuple[float, ...] = tuple(2e6 * 2**i for i in range(6))
    seeds: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """What is simulated beside chance; sds relative to those of the module's docstring."""

    name: str
    size: float = 0.0
    curve: float = 0.0


DESIGNS = (
    Design(name="ladder", sizes=(23_600, 82_900, 201_000, 378_000, 664_000)),
    Design(name="small", sizes=(23_600, 82_900, 201_000)),
)
NOISES = (
    Noise(name="chance"),
    Noise(name="size", size=1.0),
    Noise(name="curve", curve=1.0),
    Noise(name="both", size=1.0, curve=1.0),
)


def simulated(
    design: Design, noise: Noise, draw: np.random.Generator, components: Components | None = None
) -> pd.DataFrame:
    """One study's tidy table: a row for each run, and one for each of its widths after training. `components` are
    planted in place of `LACK_OF_GAP`."""
    octaves = np.log(design.tokens)
    place = 2 * (octaves - octaves[0]) / (octaves[-1] - octaves[0]) - 1
    legendre = (3 * place**2 - 1) / 2
    curve_gap, curve_loss = noise.curve * draw.standard_normal(2)
    drawn: dict[tuple, float] = {}

    def normal(*names) -> float:
        return drawn[names] if names in drawn else draw.standard_normal()

    table = []
    common = {tokens: noise.curve * draw.standard_normal() for tokens in design.tokens} if components else {}
    for size in design.sizes:
        size_gap, size_loss = noise.size * draw.standard_normal(2)
        slope, *cells = noise.size * draw.standard_normal(1 + len(design.tokens)) if components else [0.0]
        cell = dict(zip(design.tokens, cells, strict=True)) if components else {}
        for seed in range(design.seeds):
            chain = f"n{size}-s{seed}"
            drawn["chain", chain], drawn["chain", size, seed] = draw.standard_normal(2)
            for tokens, curve in zip(design.tokens, legendre, strict=True):
                factor = 1 + LACK_OF_GAP * (size_gap + curve_gap * curve)
                if components:
                    off = components.size * size_gap + components.cell * cell[tokens]
                    off += components.size_slope * slope * (np.log(tokens) - components.middle)
                    factor = np.exp(off + components.common * common[tokens])
                run = Run(
                    N=size,
                    D=tokens,
                    tokens_seen=tokens,
                    seed=seed,
                    trunk=chain,
                    gap_factor=factor,
                    excess_factor=1 + LACK_OF_LOSS * (size_loss + curve_loss * curve),
                )
                drawn["run", run.run_id, tokens], drawn["loss", run.base_id, tokens] = draw.standard_normal(2)
                table += rows(run, Truth(), normal, QUANTIZATIONS)
    return pd.DataFrame(table)[USED_COLUMNS]
