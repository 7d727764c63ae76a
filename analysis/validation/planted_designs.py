"""Do the chosen cells keep their promise? Studies planted with the components of a table, in these and in factorials.

`python -m analysis coverage --designs results/overtraining` takes law and components of ln gap from that table, finds
for each full factorial of its sizes the design of half the FLOPs that `next` chooses, and plants both, 200 times for
one of them: what the interval is expected to be, what it comes out as, and how often it holds the truth. The width that
comes out is made in two ways: with components that are fitted to each planted study (`reml`), and by leaving sizes out
in turn (`jackknife`), which cannot see what all sizes have in common at one D.
"""

import dataclasses
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import table
from analysis.errors import InputError
from analysis.files import replacing
from analysis.planning.next_runs.candidates import LADDER, Cells, Limits, cells_of, model_of
from analysis.planning.next_runs.components import NAMES, Components, estimate, fitted
from analysis.planning.next_runs.criterion import LEVEL, Lack, Model, parts
from analysis.planning.next_runs.rows import Choice, Rows, rows_of
from analysis.planning.next_runs.search import Design, best, design, factorial_designs
from analysis.planning.next_runs.targets import target_of

TARGET, GAMMA_D = "gamma_D", 1
SEEDS = (1, 2, 3, 4)  # of the factorials that are listed
LINE = 120
SHARE = 0.5  # of a factorial's FLOPs
PLANTED_SEEDS = 2  # the factorial with all D and so many seeds is planted
LEAST_RATIO = 6.0  # D / N: then all five sizes of the table have all D from 4M on


def rows_in(cells: Cells, runs: np.ndarray, widths: np.ndarray) -> Rows:
    """The rows of `runs` (m,) a cell, each at all widths, with gaps of one nat."""
    cell = np.repeat(np.repeat(np.arange(len(runs)), runs), len(widths))
    run = np.repeat(np.arange(runs.sum()), len(widths))
    return Rows(
        log_gap=np.zeros(len(cell)),
        log_N=cells.log_N[cell],
        log_D=cells.log_D[cell],
        P=np.tile(widths, runs.sum()),
        run=run,
        trunk=run,
        left_out={},
    )


def planted(rows: Rows, components: Components, law: np.ndarray, draw: np.random.Generator) -> Rows:
    """`rows` with gaps of the law (4,) and effects that are drawn."""

    def effects(*keys: np.ndarray) -> np.ndarray:
        group = pd.DataFrame(dict(enumerate(keys))).groupby(list(range(len(keys)))).ngroup().to_numpy()
        return draw.standard_normal(group.max() + 1)[group]

    drawn = {
        "row": draw.standard_normal(len(rows)),
        "run": effects(rows.run),
        "cell": effects(rows.log_N, rows.log_D),
        "size": effects(rows.log_N),
        "size_slope": effects(rows.log_N) * (rows.log_D - components.middle),
        "common": effects(rows.log_D),
    }
    return dataclasses.replace(rows, log_gap=rows.X @ law + sum(getattr(components, n) * drawn[n] for n in NAMES))


def jackknife(rows: Rows, components: Components) -> float:
    """Standard error of gamma_D from leaving sizes out in turn."""
    left = []
    for size in rows.sizes:
        kept = rows.log_N != size
        names = ("log_gap", "log_N", "log_D", "P", "run", "trunk")
        part = dataclasses.replace(rows, **{name: getattr(rows, name)[kept] for name in names})
        left.append(estimate(part, components)[0][GAMMA_D])
    k = len(left)
    return float(np.sqrt((k - 1) / k * np.sum((np.array(left) - np.mean(left)) ** 2)))


def realised(
    cells: Cells, runs: np.ndarray, widths: np.ndarray, components: Components, law: np.ndarray, studies: int, seed: int
) -> pd.DataFrame:
    """A row a planted study: estimate, half-width by `reml` and by `jackknife`, and the expected one's coverage."""
    empty, made = rows_in(cells, runs, widths), []
    t = stats.t.ppf(0.5 + LEVEL / 2, len(empty.sizes) - 1)
    for study in range(studies):
        rows = planted(empty, components, law, np.random.default_rng([seed, study]))
        own = fitted(rows, middle=components.middle)
        value, covariance = estimate(rows, own)
        with_known = estimate(rows, components)[0][GAMMA_D]
        made.append(
            {
                "value": value[GAMMA_D],
                "known": with_known,
                "reml": t * np.sqrt(covariance[GAMMA_D, GAMMA_D]),
                "jackknife": t * jackknife(rows, components),
            }
        )
    return pd.DataFrame(made)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Cells without any run, and what is planted there."""

    cells: Cells
    model: Model
    rows: Rows
    components: Components
    law: np.ndarray


def setting_of(path: Path) -> Setting:
    """The sizes and D of the table in `path`, a file or the folder of `runs.csv`.

    Raises:
        InputError: no such table, or no gaps in it.
    """
    frame = table.load(path / "runs.csv" if path.is_dir() else path)
    rows = rows_of(frame, Choice())
    components, law, _ = parts(rows)
    names = {N: name for name, N in LADDER.items()}
    sizes = {names.get(round(float(N)), f"{N:.0f}"): round(float(N)) for N in np.exp(rows.sizes)}
    cells = cells_of(rows, frame, sizes=sizes, limits=Limits(ratio=LEAST_RATIO, octaves=0))
    cells = dataclasses.replace(cells, runs=0 * cells.runs)
    model = model_of(cells, rows, components=components, lack=Lack())
    return Setting(cells=cells, model=model, rows=rows, components=components, law=law)


def pairs(setting: Setting) -> list[tuple[Design, Design]]:
    """Every full factorial of `SEEDS`, and the design that is chosen at `SHARE` of its FLOPs."""
    target = target_of(TARGET, setting.rows, setting.law)
    made = []
    for runs in factorial_designs(setting.cells):
        if runs.max() in SEEDS:
            whole = design(setting.model, setting.cells, target, runs)
            half = best(setting.model, setting.cells, target, SHARE * whole.cost, thrift=0.0)
            made.append((whole, half))
    return made


def make(
    out: Path, path: Path, *, studies: int, seed: int, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write `designs.csv`, `planted.csv` and README.md into `out`.

    Raises:
        InputError: as `setting_of`; too few studies; `out` cannot be written.
    """
    if studies < 2:
        raise InputError(f"studies={studies}: expected at least 2")
    setting = setting_of(path)
    designs = pairs(setting)
    progress(f"{len(designs)} factorials and their halves")
    listed = pd.DataFrame([_line(*pair) for pair in designs])
    whole, half = max(
        (pair for pair in designs if pair[0].added.max() == PLANTED_SEEDS), key=lambda pair: (pair[0].added > 0).sum()
    )
    rows = []
    for name, one in (("factorial", whole), ("chosen", half)):
        progress(f"{studies} planted studies: {name}")
        widths = setting.rows.widths
        made = realised(setting.cells, one.added, widths, setting.components, setting.law, studies, seed)
        error, truth = np.abs(made["value"] - setting.law[GAMMA_D]), one.width.half
        known = np.abs(made["known"] - setting.law[GAMMA_D])
        line = {"design": name, "runs": int(one.added.sum()), "FLOPs": one.cost, "expected": truth}
        for method in ("reml", "jackknife"):
            line |= {
                method: made[method].mean(),
                f"{method}_scatter": made[method].std() / made[method].mean(),
                f"{method}_holds": (error <= made[method]).mean(),
            }
        rows.append(line | {"expected_holds": (known <= truth).mean()})
    frames = {"designs.csv": listed, "planted.csv": pd.DataFrame(rows)}
    for file, frame in frames.items():
        with replacing(out / file) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.5g", lineterminator="\n")
    with replacing(out / "README.md") as temporary:
        temporary.write_text(_readme(setting, frames, path, studies, half), encoding="utf-8")
    return [out / name for name in (*frames, "README.md")]


def _line(whole: Design, half: Design) -> dict:
    return {
        "cells": int((whole.added > 0).sum()),
        "seeds": int(whole.added.max()),
        "FLOPs": whole.cost,
        "half_width": whole.width.half,
        "chosen_runs": int(half.added.sum()),
        "chosen_FLOPs": half.cost,
        "chosen_half_width": half.width.half,
    }


def _readme(setting: Setting, frames: dict[str, pd.DataFrame], path: Path, studies: int, half: Design) -> str:
    listed, made = frames["designs.csv"], frames["planted.csv"]
    reached = int((listed["chosen_half_width"] <= listed["half_width"]).sum())
    lines = [
        "# design",
        "",
        *textwrap.wrap(
            "Do the runs that `python -m analysis next` chooses keep what it promises? Law and components of ln gap "
            f"are those of `{path}` ({setting.components.text}); the target is gamma_D, the sizes are the table's "
            f"{len(setting.rows.sizes)}, D is its own from 4M on (D/N >= {LEAST_RATIO:g}, so that full factorials "
            "exist).",
            LINE,
        ),
        "",
        f"**At half the FLOPs the chosen cells reach the interval of {reached} of {len(listed)} full factorials** "
        "(half-widths):",
        "",
        "| cells | seeds | FLOPs | half-width | chosen: runs | at half the FLOPs |",
        "|---|---|---|---|---|---|",
    ]
    for row in listed.itertuples():
        lines.append(
            f"| {row.cells} | {row.seeds} | {row.FLOPs:.2e} | {row.half_width:.4f} | {row.chosen_runs} | "
            f"{row.chosen_half_width:.4f} |"
        )
    chosen = ", ".join(
        f"{half.added[k]} x {setting.cells.name(k)} to {np.exp(setting.cells.log_D[k]) / 1e6:.2g}M"
        for k in np.flatnonzero(half.added)
    )
    lines += [
        "",
        *textwrap.wrap(
            f"**{studies} planted studies** of all D with {PLANTED_SEEDS} seeds, and of the cells chosen in its place "
            f"({chosen}):",
            LINE,
        ),
        "",
        "| design | expected | REML: mean | scatter | holds | jackknife: mean | scatter | holds | expected one holds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in made.itertuples():
        cells = [row.design, f"{row.expected:.4f}"]
        for method in ("reml", "jackknife"):
            mean, scatter, holds = (getattr(row, f"{method}{what}") for what in ("", "_scatter", "_holds"))
            cells += [f"{mean:.4f}", f"{scatter:.0%}", f"{holds:.1%}"]
        lines.append(f"| {' | '.join(cells)} | {row.expected_holds:.1%} |")
    lines += [
        "",
        *textwrap.wrap(
            "REML: components fitted to each planted study. Jackknife: sizes left out in turn, as fits do; it cannot "
            "see what all sizes have in common at one D. Scatter: standard deviation over mean. Holds: how often the "
            "interval has the planted gamma_D in it. Expected: with known components.",
            LINE,
        ),
        "",
        f"    python -m analysis coverage --designs {path} --studies {studies} --out results/design",
        "",
    ]
    return "\n".join(lines)
