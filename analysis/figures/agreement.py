"""How far a study that was made again agrees with an earlier one: rows that both tables have, and parameters of laws.

Two machines round differently, and training amplifies it, so that losses of one run are not the same numbers; laws that
are worth their name are.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import table
from analysis.errors import InputError
from analysis.fitting import store
from analysis.fitting.fit import Fit

SHOWN = ("chinchilla", "kumar_ptq")  # laws whose parameters are listed, one of losses and one of gaps
APART = "intervals do not meet"
ROW = ["run_id", "tokens_seen", "setting"]  # what names a row


def agreement(here: Path, there: Path) -> list[str]:
    """Lines that say how the study's folder `here` (runs.csv, fits.json) agrees with the folder `there`.

    Raises:
        InputError: a table or fits are missing or damaged, or a table does not name its rows.
    """
    own, other = (_losses(folder / "runs.csv") for folder in (here, there))
    lines = [f"{there}: {_rows(own, other)}"]
    if set(own["data_sha"]) != set(other["data_sha"]):
        lines.append("the text is another there: losses and parameters differ by more than rounding")
    fits, others = (store.read(folder / "fits.json").fits for folder in (here, there))
    rows = [row for law in fits if law in others for row in _parameters(fits[law], others[law])]
    apart = sum(row[-1] == APART for row in rows)
    lines.append(f"{len(rows) - apart} of {len(rows)} parameters of laws have intervals that meet those there")
    shown = [("law", "parameter", "here", "there", ""), *(r for r in rows if r[0] in SHOWN or r[-1] == APART)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    if missing := sorted(fits.keys() ^ others.keys()):
        lines.append(f"fitted in one of them alone: {', '.join(missing)}")
    return lines


def _losses(path: Path) -> pd.DataFrame:
    frame = table.load(path)
    if missing := [name for name in (*ROW, "loss", "data_sha") if name not in frame]:
        raise InputError(f"{path}: has no column {', '.join(missing)}; expected a table of scaling.sweep collect")
    # pandas would not take two empty cells for the same.
    return frame[[*ROW, "loss", "data_sha"]].fillna({"setting": ""})


def _rows(own: pd.DataFrame, other: pd.DataFrame) -> str:
    both = own.merge(other, on=ROW, suffixes=("", "_there"))
    count = f"{len(both)} of {len(own)} rows are there too"
    apart = (both["loss"] - both["loss_there"]).abs()
    if not apart.notna().any():
        return count
    worst = both.loc[apart.idxmax()]
    where = " ".join(str(value) for value in (worst["run_id"], worst["setting"]) if value)
    return f"{count}, losses at most {apart.max():.2g} nats apart ({where}), half of them at most {apart.median():.2g}"


def _parameters(here: Fit, there: Fit) -> list[tuple[str, ...]]:
    rows = []
    for symbol, value in here.params.items():
        if symbol not in there.params:
            continue
        other = there.params[symbol]
        (low, high), (other_low, other_high) = here.interval(symbol), there.interval(symbol)
        known = np.isfinite([low, high, other_low, other_high]).all()
        apart = known and (low > other_high or high < other_low)
        rows.append(
            (
                here.law.name,
                symbol,
                _stated(value, low, high),
                _stated(other, other_low, other_high),
                APART if apart else "",
            )
        )
    return rows


def _stated(value: float, low: float, high: float) -> str:
    return f"{value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if np.isfinite([low, high]).all() else "")
