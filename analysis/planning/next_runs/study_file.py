"""The chosen runs as a study file of sweeps/, with the settings of the table's runs and seeds that it does not have."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from analysis.errors import InputError
from analysis.files import replacing
from analysis.planning.next_runs.advice import Advice

SETTINGS = {"batch_tokens": "data.batch_tokens", "weight_decay": "optimizer.weight_decay", "dtype": "runtime.dtype"}
"""Column of the table -> the setting that it is of."""
GROUPS = {"schedule": "schedule", "corpus": "data"}
"""Column -> the group of configs whose choice it names."""
LINE = 108
SEEDS = 1000  # apart from those of the table by at least so many


def write(path: Path, made: Advice, frame: pd.DataFrame, command: str) -> None:
    """Write the study file.

    Raises:
        InputError: the name does not end in .yaml or has characters that a study's name cannot, or it exists.
    """
    check_name(path)
    with replacing(path) as temporary:
        temporary.write_text(text(path.stem, made, frame, command), encoding="utf-8")


def check_name(path: Path) -> None:
    """
    Raises:
        InputError: no study can have this name, or one has it.
    """
    if path.suffix != ".yaml" or not path.stem.replace("_", "").isalnum():
        raise InputError(f"{path}: expected a name of letters, digits and _ that ends in .yaml")
    if path.exists():
        raise InputError(f"{path}: exists; expected a new name, or remove it first")


def text(name: str, made: Advice, frame: pd.DataFrame, command: str) -> str:
    """The file's text."""
    w, runs = made.chosen.width, int(made.chosen.added.sum())
    flops = float(made.cells.price(made.chosen.added, made.cells.flops)[0])
    unit = f", about {made.chosen.cost:.2g} hours of the table's machine" if made.request.hours else ""
    about = {
        "Question": [f"What is {made.target.name}, more narrowly than now ({made.value:.3f} +- {made.now.half:.3f})?"],
        "Command": [f"make sweep S={name} && make collect S={name}", f"planned by {command}"],
        "Cost": [f"{runs} runs, {flops:.2e} FLOPs (6ND){unit}"],
        "Expected": [
            f"a half-width of {w.half:.3f} and a bias of at most {w.bias:.3f}, with the rows of the table "
            f"({made.request.choice.text}); one look, after all runs, at {made.request.level:.0%}"
        ],
    }
    header = ["# @package _global_"]
    for word, said in about.items():
        wrapped = [line for part in said for line in textwrap.wrap(part, LINE, break_on_hyphens=False)]
        header += [f"# {head:<9} {line}" for head, line in zip([word, *[""] * len(wrapped)], wrapped, strict=False)]
    grids = []
    seed = first_seed(frame)
    for model, _, D, _, count in made.runs:
        seeds = ",".join(str(seed + k) for k in range(count))
        grids.append({"model": model, "data.tokens": _tokens(D, frame), "seed": seeds})
        seed += 10 * -(-count // 10)
    params = _settings(frame)
    lines = [*header, f"study: {name}", "", "hydra:", "  mode: MULTIRUN", "  sweeper:"]
    lines += ["    params:"] * bool(params) + [f"      {_flow({key: value})[1:-1]}" for key, value in params.items()]
    lines += ["    grids:", *(f"      - {_flow(grid)}" for grid in grids)]
    return "\n".join(lines) + "\n"


def first_seed(frame: pd.DataFrame) -> int:
    """The first of the seeds that are new to a table."""
    used = [pd.to_numeric(frame[c], errors="coerce") for c in ("seed_init", "seed_data") if c in frame]
    last = float(np.nan_to_num(pd.concat(used).max())) if used else 0.0
    return int(last) // SEEDS * SEEDS + SEEDS


def _flow(entries: dict) -> str:
    """As YAML in one line."""
    return yaml.safe_dump(entries, sort_keys=False, default_flow_style=True, width=10_000).strip()


def _tokens(D: float, frame: pd.DataFrame) -> float | int:
    """What was asked for where the table has D: whole batches of it. Two digits where they come to the same."""
    batch = pd.to_numeric(frame["batch_tokens"], errors="coerce").median() if "batch_tokens" in frame else np.nan
    batch = float(batch) if batch > 0 else 1e-3 * D
    for digits in (1, 2, 3, 4):
        short = float(f"{D:.{digits - 1}e}")
        if abs(short - D) < batch:
            return int(short) if short.is_integer() else short
    return int(D)


def _settings(frame: pd.DataFrame) -> dict[str, str | float]:
    """Settings that all runs of the table share."""
    made: dict[str, str | float] = {}
    for column, setting in {**GROUPS, **SETTINGS}.items():
        values = frame[column].dropna().unique() if column in frame else []
        if len(values) == 1:
            value = values[0].item() if hasattr(values[0], "item") else values[0]
            made[setting] = int(value) if isinstance(value, float) and value.is_integer() else value
    if "ptq" in frame and frame["ptq"].isin(["gptq", "awq"]).any():
        made["ptq"] = "all"
    return made
