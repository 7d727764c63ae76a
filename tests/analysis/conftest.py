"""Simulated tables whose laws are known: what every test of the analysis is planted on."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.fitting import estimate

LOSS = {"A": 60.0, "B": 900.0, "E": 0.9, "alpha": 0.35, "beta": 0.45}
GAP = {"C_T": 0.9, "gamma_D": 0.5, "gamma_N": 0.35, "gamma_post": 0.6}
PARTS = {"gamma_w": 2.0, "n_w": 0.3, "gamma_a": 1.8, "n_a": 1.0, "gamma_kv": 1.0, "n_kv": 1.5}


def capacity(bits, gamma, shift):
    return 1 - np.exp(-bits / gamma + shift)


def loss_of(size, tokens, widths):
    """The planted loss of training at these bits of weights, activations and KV cache."""
    effective = size
    for bits, name in zip(widths, ("w", "a", "kv"), strict=True):
        effective = effective * capacity(bits, PARTS[f"gamma_{name}"], PARTS[f"n_{name}"])
    return LOSS["A"] * effective ** -LOSS["alpha"] + LOSS["B"] * tokens ** -LOSS["beta"] + LOSS["E"]


def gap_of(size, tokens, bits):
    return GAP["C_T"] * tokens ** GAP["gamma_D"] / size ** GAP["gamma_N"] * np.exp(-bits / GAP["gamma_post"])


def simulate(
    sizes=(23_600, 82_900, 201_000),
    tokens=(1e6, 2e6, 4e6, 8e6),
    seeds=2,
    post=(2, 3, 4, 5, 6, 7, 8),
    trained=((16, 16, 16),),
    noise=1.0,
    seed=0,
):
    """A tidy table with the columns of the real one that the analysis reads. `noise` scales a run effect of 8%, a bit
    effect of 4%, a chain effect of 10%, a window sd of .02 sqrt(gap), and .003 of seed scatter in the loss."""
    draw = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        for s in range(seeds):
            chain = 1 + 0.10 * noise * draw.standard_normal()
            for t in tokens:
                for widths in trained:
                    full = widths == (16, 16, 16)
                    run = f"n{size}-d{t:.0f}-s{s}-{'.'.join(map(str, widths))}"
                    loss = loss_of(size, t, widths) * (1 + 0.003 * noise * draw.standard_normal())
                    own = 1 + 0.08 * noise * draw.standard_normal()
                    base = {
                        "run_id": run,
                        "cluster": f"n{size}-s{s}",
                        "seed_init": s,
                        "N": size,
                        "D": t,
                        "tokens_seen": t,
                        "P_w": widths[0],
                        "P_a": widths[1],
                        "P_kv": widths[2],
                        "diverged": False,
                    }
                    rows.append(base | {"loss": loss})
                    for bits in post if full else ():
                        gap = gap_of(size, t, bits)
                        se = 0.02 * np.sqrt(gap) * noise
                        gap *= chain * own * (1 + 0.04 * noise * draw.standard_normal())
                        gap += se * draw.standard_normal()
                        more = {
                            "ptq": "rtn",
                            "granularity_post": "channel",
                            "format_post": f"int{bits}",
                            "P_post": bits,
                        }
                        rows.append(base | more | {"loss": loss + gap, "gap": gap, "gap_se": se})
    return pd.DataFrame(rows)


def loss_share():
    """N_eff / N of a run at 16 bits."""
    return np.prod([capacity(16, PARTS[f"gamma_{x}"], PARTS[f"n_{x}"]) for x in ("w", "a", "kv")])


TRAINED = (
    (16, 16, 16),
    *((b, 16, 16) for b in (3, 4, 6, 8)),
    *((16, b, 16) for b in (4, 6, 8)),
    *((16, 16, b) for b in (3, 4, 6)),
)


@pytest.fixture(scope="session")
def tables():
    """The simulator and the planted constants, as one namespace."""
    names = ("simulate", "LOSS", "GAP", "PARTS", "TRAINED", "gap_of", "loss_of", "loss_share")
    return SimpleNamespace(**{name: globals()[name] for name in names})


@pytest.fixture(scope="module")
def few_starts():
    """For tests of what is made of fits, not of whether the solver finds the optimum from anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "STARTS", 6)
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are laid out by nobody: for what a command fits, and writes beside them."""
    monkeypatch.setattr("analysis.figures.style.image", lambda figure, format, **options: b"")
