"""What in the rows of a table is probably not meant: rows that repeat, checkpoints that pass for runs, units, weights
and precisions that go unused. Each doubt is a line; nothing is left out for it."""

import re
from collections.abc import Collection, Sequence

import pandas as pd

IDENTITIES = ("cluster", "run_id")
MOST_OF_A_SIZE = 25  # rows of one size and precision that no column distinguishes, on average
LARGEST_LOSS, FEWEST_TOKENS, FEWEST_PARAMETERS = 20.0, 1e4, 1e3
WEIGHTS = re.compile(r"(sample_?|row_?|fit_?)?weights?", re.IGNORECASE)
PRECISION = re.compile(
    r"(.*_)?(precisions?|schemes?|quant\w*|n?bits?|[a-z]{1,2}bits|bit_?width|format|fmt|d_?type|method)(_.*)?",
    re.IGNORECASE,
)
SHOWN = 4  # values in a line


def lines(rows: pd.DataFrame, law: str, variables: Sequence[str], response: str, known: Collection[str]) -> list[str]:
    """Doubts about the rows that a law of these variables is fitted on; columns in `known` have their meaning."""
    return [
        *_repeated(rows),
        *_checkpoints(rows, variables),
        *_units(rows, response),
        *_unused(rows, law, variables, known),
    ]


def _repeated(rows: pd.DataFrame) -> list[str]:
    count = int(rows.duplicated().sum())
    if not count:
        return []
    return [f"{count} of {len(rows)} rows repeat others in all columns: intervals are too narrow; leave them out"]


def _checkpoints(rows: pd.DataFrame, variables: Sequence[str]) -> list[str]:
    """Many rows of a size in a table that names no runs are points of few training curves."""
    if any(name in rows and rows[name].notna().all() for name in IDENTITIES) or "N" not in rows:
        return []
    alike = [name for name in variables if name != "D" and name in rows]
    sizes = len(rows.drop_duplicates(alike)) if alike else 1
    if len(rows) <= MOST_OF_A_SIZE * sizes:
        return []
    what = f"{len(rows)} rows are of {sizes} different {', '.join(alike)}, and no column run_id or cluster says which"
    return [f"{what} are of one run: if they are checkpoints, intervals are too narrow; name it, --columns run_id=..."]


def _units(rows: pd.DataFrame, response: str) -> list[str]:
    lines = []
    if response == "loss" and "loss" in rows and pd.to_numeric(rows["loss"], errors="coerce").min() > LARGEST_LOSS:
        lines.append(
            f"loss is above {LARGEST_LOSS:g} in all rows: is it a perplexity? nats a token are expected, "
            "--columns 'loss==log(loss)'"
        )
    for name, fewest, what in (("D", FEWEST_TOKENS, "tokens"), ("N", FEWEST_PARAMETERS, "parameters")):
        if name in rows and pd.to_numeric(rows[name], errors="coerce").max() < fewest:
            lines.append(
                f"{name} is below {fewest:g} in all rows: is it in millions or billions? {what} are expected, "
                f"--columns '{name}=={name}*1e9'"
            )
    return lines


def _unused(rows: pd.DataFrame, law: str, variables: Sequence[str], known: Collection[str]) -> list[str]:
    lines = []
    alike = [name for name in variables if name not in ("N", "D") and name in rows]
    for name in map(str, rows.columns):
        if name in known:
            continue
        if WEIGHTS.fullmatch(name) and pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique() > 1:
            lines.append(f"the column {name} is not used: --weights {name} weighs rows by it")
        elif PRECISION.fullmatch(name):
            each = rows.groupby(alike, dropna=False)[name].nunique().max() if alike else rows[name].nunique()
            if each > 1:
                values = [str(value) for value in rows[name].dropna().unique()]
                listed = ", ".join(sorted(values)[:SHOWN]) + ", ..." * (len(values) > SHOWN)
                lines.append(f"rows differ in {name} ({listed}), which {law} does not know; narrow with --filter")
    return lines
