"""How often a 95% interval covers the truth: `python -m analysis.coverage [--studies 400] [--seed 0] [--out FOLDER]`.

Studies are simulated from planted laws, fitted as `analysis.fit` fits them, and each parameter's interval is asked
whether it holds the planted value. Two designs: the ladder (five sizes) and a small one (three sizes), each with six D
and two seeds, so 10 and 6 chains of runs that share (N, seed).

What scatters, measured on pilots. Gaps: a run effect of 8%, a bit effect of 4%, evaluation windows of .02 sqrt(delta)
nats, a chain effect of 10%. Losses: .5% between seeds, here half of its variance from the chain and half from the run
(how it divides is assumed). What the law lacks is drawn anew for each study, so that the planted law is right on
average: `size`, an amount by which all runs of a size are off, whatever their seed; `curve`, a curvature in ln D that
all runs share (second Legendre polynomial over the range of ln D). Both have an sd of 3% of the gap, and of 1% of the
loss above E.

Other intervals of the same fits stand beside the project's (`clusters`): `percentile` of the same draws, without the
correction for few clusters; `runs` and `rows` drawn as if they were independent; and two jackknives, where each chain
(`without a chain`) or each size (`without a size`, on the ladder) is left out in turn.
"""

import argparse
import csv
import dataclasses
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import InputError
from analysis.files import replacing
from analysis.intervals import LEVEL, Bootstrap, Interval, bootstrap, units
from analysis.law import Parameter
from analysis.laws import LAWS
from analysis.options import Options
from analysis.selection import select
from analysis.solver import minimise
from analysis.stages import Fitted, fit_rows

PROG = "python -m analysis.coverage"
DRAWS = 200
GAP = {"C_T": 0.6, "gamma_D": 0.5, "gamma_N": 0.35, "gamma_post": 0.6}  # .34 nats at 3 bits, N = 24k, D = 8M
LOSS = {"A": 17.0, "B": 575.0, "E": 0.8, "alpha": 0.35, "beta": 0.45}  # 1.75 nats there
TRUTH = {"kumar_ptq": GAP, "chinchilla": LOSS}
BITS = (3, 4, 5, 6)
RUN, BIT, WINDOW, CHAIN = 0.08, 0.04, 0.02, 0.10
SEEDS_OF_LOSS = 0.005
LACK_OF_GAP, LACK_OF_LOSS = 0.03, 0.01
GOAL = (0.93, 0.97)
ENOUGH = 4  # sizes, of which one can be left out


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One interval of one study. `method` is a key of METHODS."""

    design: str
    noise: str
    law: str
    method: str
    parameter: str
    estimate: float
    low: float
    high: float


def ask(design: Design, noise: Noise, *, seed: int, study: int, draws: int) -> Iterator[Asked]:
    """All intervals of one simulated study, which is the same for the same `seed` and `study`.

    Raises:
        InputError: the table is not enough for a law.
    """
    place = [d.name for d in DESIGNS].index(design.name), [n.name for n in NOISES].index(noise.name)
    frame = simulate(design, noise, np.random.default_rng([seed, study, *place]))
    for name in TRUTH:
        found = select(LAWS[name], frame, bits=(min(BITS), max(BITS)))
        fitted = fit_rows(found.law, found.frame, Options())
        known = {"design": design.name, "noise": noise.name, "law": name}
        for method, intervals in _methods(fitted, draws=draws, seed=study):
            for symbol, interval in intervals.items():
                at = {"estimate": fitted.params[symbol], "low": interval.low, "high": interval.high}
                yield Asked(**known, method=method, parameter=symbol, **at)


def _methods(fitted: Fitted, *, draws: int, seed: int) -> Iterator[tuple[str, dict[str, Interval]]]:
    def spread(frame: pd.DataFrame):
        return bootstrap(fitted.problem, fitted.best, frame, draws=draws, seed=seed, noise=fitted.noise)

    ours, law = spread(fitted.frame), fitted.problem.law
    yield "clusters", ours.intervals
    yield (
        "percentile",
        {
            p.symbol: percentile(p, ours.intervals[p.symbol], fitted.params[p.symbol], ours.bootstrap)
            for p in law.ordered
        },
    )
    yield "runs", spread(fitted.frame.drop(columns="cluster")).intervals
    if law.response == "gap":  # a loss law has one row a run
        yield "rows", spread(fitted.frame.drop(columns=["cluster", "run_id"])).intervals
    yield "without a chain", jackknife(fitted, units(fitted.frame)[1])
    sizes = pd.factorize(fitted.frame["N"])[0]
    if sizes.max() + 1 >= ENOUGH:
        yield "without a size", jackknife(fitted, sizes)


def percentile(parameter: Parameter, interval: Interval, estimate: float, made: Bootstrap) -> Interval:
    """The quantiles of the draws that `interval` was stretched from. An end that was cut at a bound stays there."""
    factor = made.t / stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt((made.clusters + 1) / (made.clusters - 2))
    centre = parameter.forward(estimate)
    if not np.isfinite(centre):  # an estimate of zero is not stretched
        return interval

    def back(end: float) -> float:
        cut = end in (parameter.lower, parameter.upper)
        return end if cut else float(parameter.backward(centre + (parameter.forward(end) - centre) / factor))

    return Interval(low=back(interval.low), high=back(interval.high), se=interval.se)


def jackknife(fitted: Fitted, labels: np.ndarray) -> dict[str, Interval]:
    """Intervals from refits without each of the k units that `labels` (n,) numbers: variance (k - 1)/k times their sum
    of squares about the mean, on the transformed scale of the parameters, and Student's t with k - 2 degrees of
    freedom. The weights of gaps stay those of the whole table."""
    problem, k = fitted.problem, int(labels.max()) + 1
    left = dataclasses.replace(problem, weights=(labels != np.arange(k)[:, None]).astype(float))
    starts, box = np.tile(fitted.best, (k, 1)), problem.box()
    values = problem.outside(minimise(left.evaluate, starts, *box, floats_each=left.floats_each).points)
    t, made = stats.t.ppf(0.5 + LEVEL / 2, k - 2), {}
    for j, p in enumerate(problem.law.ordered):
        moved = p.forward(values[:, j])
        se = float(np.sqrt((k - 1) / k * np.sum((moved - moved.mean()) ** 2)))
        centre, edges = p.forward(fitted.params[p.symbol]), np.sort(p.forward(np.array([p.lower, p.upper])))
        low, high = np.sort(p.backward(np.clip([centre - t * se, centre + t * se], *edges)))
        made[p.symbol] = Interval(low=float(low), high=float(high), se=se * abs(p.slope(fitted.params[p.symbol])))
    return made


def tally(asked: Sequence[Asked]) -> list[dict[str, object]]:
    """One record for each design, noise, law, method and parameter: how many of its studies were covered."""
    groups = defaultdict(list)
    for one in asked:
        groups[one.design, one.noise, one.law, one.method, one.parameter].append(one)
    return [_record(found) for found in groups.values()]


def _record(found: Sequence[Asked]) -> dict[str, object]:
    one, n = found[0], len(found)
    truth = TRUTH[one.law][one.parameter]
    covered = sum(each.low <= truth <= each.high for each in found)
    share = covered / n
    estimates = np.array([each.estimate for each in found])
    return {
        "design": one.design,
        "noise": one.noise,
        "law": one.law,
        "method": one.method,
        "parameter": one.parameter,
        "truth": truth,
        "studies": n,
        "covered": covered,
        "coverage": round(share, 4),
        "mc_se": round(float(np.sqrt(share * (1 - share) / n)), 4),
        "bias": float(f"{estimates.mean() - truth:.4g}"),
        "sd": float(f"{estimates.std():.4g}"),
        "median_width": float(f"{np.median([each.high - each.low for each in found]):.4g}"),
    }


READING = """## How to read it

- `chance` has no lack of fit. Where `clusters` is below the goal there and `without a chain` is not, a parameter rests
  on few chains: gamma_N and C_T on those of the smallest size, alpha, A and E on hardly more sizes than they are
  parameters. Reweighting such a chain understates what it does to the fit, leaving it out does not.
- `size` is shared by the chains of one size, so that sizes are independent and chains are not. It matters to the loss
  law, which lacks as much as its losses scatter; a gap scatters by 13% and the law lacks 3% of it.
- `curve` is shared by all runs, so that no interval made from them knows of it: all are conditional on the form of the
  law. It matters to beta, B and E, which a curvature in ln D is mistaken for.
"""


def report(records: Sequence[dict], *, command: str, seconds: float, failed: int) -> str:
    """README.md of the study, in Markdown."""
    frame = pd.DataFrame(records)
    frame["case"] = frame["design"] + ", " + frame["noise"]
    ours = frame[frame["method"] == "clusters"]
    inside, most = ours["coverage"].between(*GOAL).sum(), 100 * ours["mc_se"].max()
    text = f"""# Coverage of the 95% intervals

In how many of 100 simulated studies an interval holds the planted value. What is simulated and what the methods are is
said at the top of `analysis/coverage.py`. `coverage.csv` has all methods in all cases, the standard errors of these
numbers, bias, sd and width.

- command: `{command}`, commit {_commit()}, {seconds:.0f} s
- {ours["studies"].min()} studies a case, standard error at most {most:.1f}; {failed} studies gave no fit
- goal, 93 to 97: met by {inside} of the {len(ours)} numbers of the first table

## `clusters`, this project's intervals, by design and noise

{_grid(ours, "case")}
"""
    ends = frame["noise"].isin([NOISES[0].name, NOISES[-1].name])
    for case in frame.loc[ends, "case"].unique():
        text += f"\n## All methods: {case}\n\n{_grid(frame[frame['case'] == case], 'method')}\n"
    return f"{text}\n{READING}"


def _grid(frame: pd.DataFrame, column: str) -> str:
    """Coverage in percent as a Markdown table: a line for each parameter, a column for each value of `column`."""
    heads = list(frame[column].unique())
    lines = [f"| law | parameter | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for (law, symbol), rows in frame.groupby(["law", "parameter"], sort=False):
        found = dict(zip(rows[column], rows["coverage"], strict=True))
        lines.append(
            f"| {law} | {symbol} | {' | '.join(f'{100 * found[h]:.1f}' if h in found else '' for h in heads)} |"
        )
    return "\n".join(lines)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return found.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog=PROG, description="Simulate studies and count how often intervals cover.")
    parser.add_argument("--studies", type=int, default=400, help="of each design and noise (default 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of the bootstrap (default {DRAWS})")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("results/coverage"))
    chosen = parser.parse_args(arguments)
    try:
        if chosen.studies < 1 or chosen.draws < 2 or chosen.seed < 0:
            raise InputError("expected at least 1 study and 2 draws, and a seed of 0 or more")
        _run(chosen)
    except InputError as fault:
        print(f"{PROG}: {fault}", file=sys.stderr)
        return 1
    return 0


def _run(chosen: argparse.Namespace) -> None:
    begin, asked, failed = time.perf_counter(), [], 0
    with replacing(chosen.out / "coverage.csv") as numbers, replacing(chosen.out / "README.md") as text:
        for design in DESIGNS:
            for noise in NOISES:
                print(f"{design.name}, {noise.name}: {chosen.studies} studies", file=sys.stderr, flush=True)
                for study in range(chosen.studies):
                    try:
                        asked += list(ask(design, noise, seed=chosen.seed, study=study, draws=chosen.draws))
                    except InputError:
                        failed += 1
        if not asked:
            raise InputError("no study gave a fit")
        records = tally(asked)
        with numbers.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, fieldnames=list(records[0]), lineterminator="\n")
            lines.writeheader()
            lines.writerows(records)
        command = f"{PROG} --studies {chosen.studies} --seed {chosen.seed} --draws {chosen.draws}"
        seconds = time.perf_counter() - begin
        text.write_text(report(records, command=command, seconds=seconds, failed=failed), encoding="utf-8")
    for name in ("coverage.csv", "README.md"):
        print(f"coverage: {chosen.out / name}")


if __name__ == "__main__":
    sys.exit(main())
