"""Rows: what fitting laws costs, on tables simulated from published constants at the sizes of the published studies."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

import analysis
from analysis.laws.registry import LAWS
from bench.timing import Against, Effort, Group, Step, Variant

STARTS = 4500
"""Hoffmann et al. 2022 (arXiv 2203.15556, Appendix D.3): the grid of starts that most fits since have used."""
TIMED = 15
DELTA = 1e-3
ROBUST = {"C_w": 0.6, "C_a": 0.4, "C_kv": 0.8}  # not published
LONGEST = 20
"""Goal in seconds: the unified law on 465 runs and 1,000 quantized models with 1,000 bootstrap draws."""


def groups(effort: Effort) -> Iterator[Group]:
    table = chinchilla_table()
    ours = Variant(
        name="all starts, this package",
        make=lambda: lambda: analysis.fit("chinchilla", table, bootstrap=0, huber_delta=DELTA),
        against=(Against(name=f"{TIMED} of {STARTS:,} L-BFGS starts", times=STARTS // TIMED, goal="<= 0.01"),),
        note="240 points; as the usual scripts do it: scipy's L-BFGS on the log-sum-exp form from Hoffmann's grid",
    )
    usual = Variant(name=f"{TIMED} of {STARTS:,} L-BFGS starts", make=lambda: _grid(table))
    yield Group.of("fits/chinchilla", (ours, usual), effort, 3)
    both = Variant(
        name="unified law, 1,000 draws",
        make=_unified,
        note=f"kumar_neff_tied on 465 runs, then kumar_unified on 1,000 gaps; the goal is {LONGEST} s for both",
    )
    if effort != "quick":
        yield Group.of("fits/unified", (both,), effort, 3)


def chinchilla_table() -> pd.DataFrame:
    """240 runs over the sizes and tokens of Hoffmann et al., with the scatter that was found there."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"N": np.exp(draw.uniform(np.log(4e7), np.log(1.6e10), 240))})
    frame["D"] = np.exp(draw.uniform(np.log(3e8), np.log(3e11), 240))
    law = LAWS["chinchilla"]
    frame["loss"] = law.predict(law.published, frame) * np.exp(0.005 * draw.standard_normal(240))
    return frame


def _grid(table: pd.DataFrame) -> Step:
    """Some starts of Hoffmann's grid, spread over it."""
    grid = itertools.product(
        np.arange(0, 30, 5),
        np.arange(0, 30, 5),
        np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5),
        np.arange(0, 2.5, 0.5),
    )
    starts = np.array(list(grid))
    assert len(starts) == STARTS
    chosen = starts[:: STARTS // TIMED][:TIMED]
    size, tokens, loss = (np.log(table[column].to_numpy()) for column in ("N", "D", "loss"))

    def objective(point: np.ndarray) -> float:
        a, b, e, alpha, beta = point
        terms = np.stack([a - alpha * size, b - beta * tokens, np.full(len(size), e)])
        residual = np.abs(logsumexp(terms, axis=0) - loss)
        return np.where(residual <= DELTA, residual**2 / 2, DELTA * (residual - DELTA / 2)).sum()

    def step() -> None:
        for start in chosen:
            minimize(objective, start, method="L-BFGS-B")

    return step


def _unified() -> Step:
    table = unified_table()

    def step() -> None:
        for law in ("kumar_neff_tied", "kumar_unified"):
            analysis.fit(law, table, bootstrap=1000, gap_below=10.0)

    return step


def unified_table() -> pd.DataFrame:
    """465 runs of the paper's grid of N and D, one part in low precision at a time, and 1,000 quantizations of them."""
    draw = np.random.default_rng(0)
    bits = (3, 4, 5, 6, 7, 8, 10, 12)
    trained = [(16, 16, 16), *((p, 16, 16) for p in bits)]
    trained += [(16, p, 16) for p in bits[1:]] + [(16, 16, p) for p in bits[1:]]
    cells = itertools.product((3e7, 6e7, 1.1e8, 2.2e8), (1.6e9, 3.3e9, 6.6e9, 1.3e10, 2.6e10), trained)
    rows = [
        {"N": n, "D": d, "P_w": w, "P_a": a, "P_kv": kv, "run_id": i, "cluster": f"{n}-{d}"}
        for i, (n, d, (w, a, kv)) in enumerate(cells)
    ]
    runs = pd.DataFrame(rows + rows[:5])
    loss, gap = LAWS["kumar_neff_tied"], LAWS["kumar_unified"]
    runs["loss"] = loss.predict(loss.published, runs) * np.exp(0.003 * draw.standard_normal(len(runs)))
    after = pd.concat([runs.assign(P_post=post, ptq="gptq") for post in (3, 4, 5, 6)]).sample(1000, random_state=0)
    after["gap"] = gap.predict(gap.published | ROBUST, after)
    after["gap_se"] = 0.002 * np.sqrt(after["gap"]) + 1e-4
    after["gap"] *= 1 + 0.08 * draw.standard_normal(len(after))
    after["gap"] += after["gap_se"] * draw.standard_normal(len(after))
    return pd.concat([runs, after])
