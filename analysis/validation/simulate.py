"""Simulated studies: tidy tables whose laws are known and which scatter as pilots do.

Gaps: a run effect of 8%, a bit effect of 4%, evaluation windows of .02 sqrt(delta) nats, a chain effect of 10%.
Losses: .5% between seeds, here half of its variance from the chain and half from the run (how it divides is assumed).
What the law lacks is drawn anew for each study, so that the planted law is right on average: `size`, an amount by which
all runs of a size are off, whatever their seed; `curve`, a curvature in ln D that all runs share (second Legendre
polynomial over the range of ln D). Both have an sd of 3% of the gap, and of 1% of the loss above E.
"""

import dataclasses

import numpy as np
import pandas as pd

GAP = {"C_T": 0.6, "gamma_D": 0.5, "gamma_N": 0.35, "gamma_post": 0.6}  # .34 nats at 3 bits, N = 24k, D = 8M
LOSS = {"A": 17.0, "B": 575.0, "E": 0.8, "alpha": 0.35, "beta": 0.45}  # 1.75 nats there
TRUTH = {"kumar_ptq": GAP, "chinchilla": LOSS}
BITS = (3, 4, 5, 6)
RUN, BIT, WINDOW, CHAIN = 0.08, 0.04, 0.02, 0.10
SEEDS_OF_LOSS = 0.005
LACK_OF_GAP, LACK_OF_LOSS = 0.03, 0.01


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


def simulate(design: Design, noise: Noise, draw: np.random.Generator) -> pd.DataFrame:
    """One study's tidy table: a row for each run, and one for each of its widths after training."""
    octaves = np.log(design.tokens)
    place = 2 * (octaves - octaves[0]) / (octaves[-1] - octaves[0]) - 1
    bend = (3 * place**2 - 1) / 2
    bend_gap, bend_loss = noise.curve * draw.standard_normal(2)
    rows = []
    for size in design.sizes:
        size_gap, size_loss = noise.size * draw.standard_normal(2)
        for seed in range(design.seeds):
            chain_gap, chain_loss = draw.standard_normal(2)
            for tokens, curve in zip(design.tokens, bend, strict=True):
                run_gap, run_loss = draw.standard_normal(2)
                lack = 1 + LACK_OF_LOSS * (size_loss + bend_loss * curve)
                seen = SEEDS_OF_LOSS * (chain_loss + run_loss) / np.sqrt(2)
                base = {
                    "run_id": f"n{size}-d{tokens:.0f}-s{seed}",
                    "cluster": f"n{size}-s{seed}",
                    "seed_init": seed,
                    "N": size,
                    "D": tokens,
                    "loss": (LOSS["E"] + lack * _above(size, tokens)) * (1 + seen),
                }
                rows.append(base)
                lack = 1 + LACK_OF_GAP * (size_gap + bend_gap * curve)
                factor = lack * (1 + CHAIN * chain_gap) * (1 + RUN * run_gap)
                for bits in BITS:
                    exact = _gap(size, tokens, bits)
                    se = WINDOW * np.sqrt(exact)
                    gap = exact * factor * (1 + BIT * draw.standard_normal()) + se * draw.standard_normal()
                    rows.append(base | {"P_post": bits, "gap": gap, "gap_se": se, "loss": base["loss"] + gap})
    return pd.DataFrame(rows)


def _above(size, tokens):
    return LOSS["A"] * size ** -LOSS["alpha"] + LOSS["B"] * tokens ** -LOSS["beta"]


def _gap(size, tokens, bits):
    return GAP["C_T"] * tokens ** GAP["gamma_D"] / size ** GAP["gamma_N"] * np.exp(-bits / GAP["gamma_post"])
