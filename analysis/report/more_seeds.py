"""The study of a claim again, with seeds that its table does not have, as a study file."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.errors import InputError
from analysis.files import replacing
from analysis.planning.next_runs.study_file import check_name, first_seed


def write(path: Path, source: Path, frame: pd.DataFrame, more: int, about: list[str]) -> None:
    """Write a study file with the grids of `source` and about `more` seeds in place of its own, shared out over them
    as those are, at least one each. `about`: lines of its header.

    Raises:
        InputError: no such study, one without grids, or a name that is taken or cannot be a study's.
    """
    check_name(path)
    try:
        study = yaml.safe_load(source.read_text(encoding="utf-8"))
        params, grids = (study["hydra"]["sweeper"].get(key) for key in ("params", "grids"))
        params, grids = dict(params or {}), [dict(grid) for grid in grids or [{}]]
        own = [seeds_of(grid.get("seed", params.get("seed", 0))) for grid in grids]
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{source}: no study whose grids could be repeated; write beside those of the claim") from None
    share, seed = more / len({s for seeds in own for s in seeds}), first_seed(frame)
    counts = {tuple(seeds): max(1, round(share * len(seeds))) for seeds in own}
    first = {}
    for seeds, count in counts.items():  # grids that share seeds go on sharing them
        first[seeds], seed = seed, seed + count
    for grid, seeds in zip(grids, map(tuple, own), strict=True):
        grid["seed"] = ",".join(str(first[seeds] + k) for k in range(counts[seeds]))
    params.pop("seed", None)
    study |= {"study": path.stem, "hydra": {**study["hydra"], "sweeper": {"params": params, "grids": grids}}}
    header = "".join(f"# {line}\n" for line in ["@package _global_", *about])
    with replacing(path) as temporary:
        temporary.write_text(header + yaml.safe_dump(study, sort_keys=False, width=10_000), encoding="utf-8")


def seeds_of(text: Any) -> list[int]:
    """The seeds of an entry of a grid: a number, a list with commas, or range(FIRST, BEHIND)."""
    text = str(text).strip()
    if text.startswith("range(") and text.endswith(")"):
        return list(range(*(int(part) for part in text[len("range(") : -1].split(","))))
    return [int(part) for part in text.split(",")]
