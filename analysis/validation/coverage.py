"""How often a 95% interval covers the truth: `python -m analysis coverage [--studies 400] [--seed 0] [--out FOLDER]`.

Studies are simulated from planted laws (`simulator` says with what scatter), fitted as `analysis.fit` fits them, and
each parameter's interval is compared with the planted value. Two designs: the ladder (five sizes) and a small
one (three sizes), each with six D and two seeds, so 10 and 6 chains of runs that share (N, seed). A prediction beyond
the table (twice the largest N, four times the largest D, 4 bits) counts like a parameter.

Other intervals of the same fits stand beside the project's (`ours`): jackknives that leave out `chains`, `sizes`,
`runs` or `rows` in turn, of which the first or the second are ours; and, from draws that weigh chains, the
`percentile` of the draws and the same `stretched` for how few chains there are.
"""

import csv
import dataclasses
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import InputError
from analysis.files import replacing
from analysis.fitting.estimate import Fitted, prepare
from analysis.fitting.fit import Fit, fit
from analysis.fitting.intervals import (
    LEAST_SIZES,
    LEVEL,
    Groups,
    Interval,
    clusters,
    jackknife_intervals,
    least_stretch,
    leave_out,
    of_draws,
    quantile,
)
from analysis.laws.registry import LAWS
from analysis.planning.next_runs.components import Components
from analysis.validation.coverage_designs import BITS, DESIGNS, NOISES, TRUTH, Design, Noise, simulated

COMMAND = "python -m analysis coverage"
GOAL = (0.93, 0.97)
PREDICTION, OURS = "prediction", "ours"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked(Interval):
    """One interval of one study. `parameter` may be `prediction`."""

    design: str
    noise: str
    law: str
    method: str
    parameter: str


def ask(
    design: Design, noise: Noise, *, seed: int, study: int, draws: int, components: Components | None = None
) -> Iterator[Asked]:
    """All intervals of one simulated study, which is the same for the same `seed` and `study`. `components` as in
    `simulated`.

    Raises:
        InputError: the table is not enough for a law.
    """
    place = [d.name for d in DESIGNS].index(design.name), [n.name for n in NOISES].index(noise.name)
    frame = simulated(design, noise, np.random.default_rng([seed, study, *place]), components)
    for name in TRUTH:
        made = fit(name, frame, bits=(min(BITS), max(BITS)), bootstrap=draws, seed=study)
        known = {"design": design.name, "noise": noise.name, "law": name}
        predicted = _predicted(made, beyond(design))
        yield Asked(**known, method=OURS, parameter=PREDICTION, **dataclasses.asdict(predicted))
        for method, intervals in _methods(made, prepare(name, frame, made.options)):
            for symbol, interval in intervals.items():
                yield Asked(**known, method=method, parameter=symbol, **dataclasses.asdict(interval))


def beyond(design: Design) -> pd.DataFrame:
    """One row outside the table."""
    return pd.DataFrame({"N": [2.0 * max(design.sizes)], "D": [4 * max(design.tokens)], "P_post": [4.0]})


def _predicted(made: Fit, at: pd.DataFrame) -> Interval:
    """On the log scale, as gaps are predicted."""
    value, half = float(made.predict(at)[0]), float(made.predict_se(at)[0]) * made.bootstrap.t
    return Interval(value=value, low=value * np.exp(-half / value), high=value * np.exp(half / value))


def _methods(made: Fit, fitted: Fitted) -> Iterator[tuple[str, dict[str, Interval]]]:
    yield OURS, made.intervals
    frame = fitted.frame

    def without(groups: Groups) -> dict[str, Interval]:
        return jackknife_intervals(fitted, leave_out(fitted, groups.labels), groups.kind)

    chains = clusters(frame)
    yield "chains", without(chains)
    sizes = Groups(kind="sizes", labels=pd.factorize(frame["N"])[0])
    if sizes.count >= LEAST_SIZES:
        yield "sizes", without(sizes)
    yield "runs", without(clusters(frame.drop(columns="cluster")))
    if fitted.law.response == "gap":  # a loss law has one row a run
        yield "rows", without(clusters(frame.drop(columns=["cluster", "run_id"])))
    stretched = dataclasses.replace(made.bootstrap, t=quantile(chains.degrees), stretch=least_stretch(chains.count))
    plain = dataclasses.replace(made.bootstrap, t=stats.norm.ppf(0.5 + LEVEL / 2), stretch=1.0)
    for method, reach in (("percentile", plain), ("stretched", stretched)):
        yield (
            method,
            {
                p.symbol: of_draws(p, made.params[p.symbol], made.draws[:, j], reach)
                for j, p in enumerate(fitted.law.ordered)
            },
        )


def tally(records: Sequence[Asked]) -> list[dict[str, object]]:
    """One record for each design, noise, law, method and parameter: how many of its studies were covered."""
    groups = defaultdict(list)
    for one in records:
        groups[one.design, one.noise, one.law, one.method, one.parameter].append(one)
    return [_record(group) for group in groups.values()]


def _record(studies: Sequence[Asked]) -> dict[str, object]:
    one, n = studies[0], len(studies)
    truth = _truth(one)
    covered = sum(each.low <= truth <= each.high for each in studies)
    share = covered / n
    estimates = np.array([each.value for each in studies])
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
        "median_width": float(f"{np.median([each.high - each.low for each in studies]):.4g}"),
    }


def _truth(one: Asked) -> float:
    planted = TRUTH[one.law]
    if one.parameter != PREDICTION:
        return planted[one.parameter]
    (design,) = (d for d in DESIGNS if d.name == one.design)
    return float(LAWS[one.law].predict(planted, beyond(design))[0])


CASES = f"""## The cases

- `chance`: the law is right, runs scatter.
- `size`: the law is also off by an amount that the runs of one size share. Then sizes are independent and chains are
  not; `ours` leaves out sizes where there are at least {LEAST_SIZES}.
- `curve`: the law is off by a curvature in ln D that all runs share. No interval made from them knows of it: all are
  conditional on the form of the law. `python -m analysis slopes` looks for it.
"""


def report(records: Sequence[dict], *, command: str, commit: str, seconds: float, failed: int) -> str:
    """README.md of the study, in Markdown. All numbers in it are those of `records`."""
    frame = pd.DataFrame(records)
    frame["case"] = frame["design"] + ", " + frame["noise"]
    ours = frame[frame["method"] == OURS]
    inside, most = ours["coverage"].between(*GOAL).sum(), 100 * ours["mc_se"].max()
    text = f"""# Coverage of the 95% intervals

In how many of 100 simulated studies an interval holds the planted value. What is simulated and what the methods are is
said at the top of `analysis/validation/`: `coverage.py`, `coverage_designs.py`, `simulator.py`. `coverage.csv` has all
methods in all cases, the standard errors of these numbers, bias, sd and width.

- command: `{command}`, commit {commit}, {seconds:.0f} s
- {ours["studies"].min()} studies a case, standard error at most {most:.1f}; {failed} studies gave no fit
- goal, 93 to 97: met by {inside} of the {len(ours)} numbers of the first table

## `ours`, this project's intervals, by design and noise

{_grid(ours, "case")}

### Below the goal by more than two standard errors

{_below(ours)}
"""
    ends = frame["noise"].isin([NOISES[0].name, NOISES[-1].name])
    for case in frame.loc[ends, "case"].unique():
        text += f"\n## All methods: {case}\n\n{_grid(frame[frame['case'] == case], 'method')}\n"
    return f"{text}\n{CASES}"


def _grid(frame: pd.DataFrame, column: str) -> str:
    """Coverage in percent as a Markdown table: a line for each parameter, a column for each value of `column`."""
    heads = list(frame[column].unique())
    lines = [f"| law | parameter | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for (law, symbol), rows in frame.groupby(["law", "parameter"], sort=False):
        shares = dict(zip(rows[column], rows["coverage"], strict=True))
        lines.append(
            f"| {law} | {symbol} | {' | '.join(f'{100 * shares[h]:.1f}' if h in shares else '' for h in heads)} |"
        )
    return "\n".join(lines)


def _below(ours: pd.DataFrame) -> str:
    """A Markdown list: in each case the parameters whose intervals are too narrow, with their coverage in percent."""
    low = ours[ours["coverage"] + 2 * ours["mc_se"] < GOAL[0]]
    lines = []
    for (case, law), rows in low.groupby(["case", "law"], sort=False):
        numbers = [f"{r.parameter} {100 * r.coverage:.1f}" for r in rows.itertuples()]
        lines.append(f"- {case}: {law}: {', '.join(numbers)}")
    return "\n".join(lines) or "None."


def _commit() -> str:
    # `scaling.records.provenance` reads it too, which nothing here may import.
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def make(
    folder: Path,
    *,
    studies: int,
    seed: int,
    draws: int,
    progress: Callable[[str], None],
    components: Components | None = None,
) -> list[Path]:
    """Simulate so many studies of each design and noise, and write coverage.csv and README.md into `folder`.
    `components` as in `simulated`.

    Raises:
        InputError: a number out of range, no study gave a fit, or `folder` cannot be written to.
    """
    if studies < 1 or draws < 2 or seed < 0:
        raise InputError("expected at least 1 study and 2 draws, and a seed of 0 or more")
    begin, answers, failed = time.perf_counter(), [], 0
    paths = [folder / "coverage.csv", folder / "README.md"]
    with replacing(paths[0]) as numbers, replacing(paths[1]) as text:
        for design in DESIGNS:
            for noise in NOISES:
                progress(f"{design.name}, {noise.name}: {studies} studies")
                for study in range(studies):
                    try:
                        said = {"seed": seed, "study": study, "draws": draws, "components": components}
                        answers += list(ask(design, noise, **said))
                    except InputError:
                        failed += 1
        if not answers:
            raise InputError("no study gave a fit")
        records = tally(answers)
        with numbers.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, fieldnames=list(records[0]), lineterminator="\n")
            lines.writeheader()
            lines.writerows(records)
        command = f"{COMMAND} --studies {studies} --seed {seed} --draws {draws}"
        command += f" --components TABLE ({components.text})" if components else ""
        seconds = time.perf_counter() - begin
        text.write_text(
            report(records, command=command, commit=_commit(), seconds=seconds, failed=failed), encoding="utf-8"
        )
    return paths
