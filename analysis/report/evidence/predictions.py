"""What was predicted of runs before they were trained, beside what came out.

`python -m analysis predict FITS.json --cells CELLS.csv --out results/STUDY/predictions.csv` writes it; that it was
there first is what the history of the repository shows.
"""

import pandas as pd

from analysis import table
from analysis.errors import InputError
from analysis.figures.style import magnitude
from analysis.files import inside
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS
from analysis.report.document.blocks import Grid
from analysis.report.evidence.numbers import Number, digits
from analysis.report.evidence.tables import Rows, Tables, ends

FILE = "predictions.csv"
ALIKE = 1.02  # D is whole batches: token counts this near to each other are one


def beside(tables: Tables, study: str) -> tuple[Grid, ...]:
    """The table of a study's predicted and measured numbers; empty where nothing was predicted or nothing of it is
    trained."""
    path = tables.folder / study / FILE
    if not path.exists():
        return ()
    try:
        predicted = table.load(inside(path, tables.folder))
        frame = ends(tables.rows(Rows(studies=(study,))))
    except InputError:
        return ()
    rows = [line for one in predicted.to_dict("records") if (line := _line(one, frame))]
    caption = f"`results/{study}/{FILE}`, written before these runs were trained: means over seeds. The intervals are "
    caption += "the law's own; runs scatter around them as well."
    return (Grid.of(rows, caption),) if rows else ()


def _line(one: dict, frame: pd.DataFrame) -> dict[str, str] | None:
    """What was predicted, and the mean of the runs like it; None if there is none."""
    here = (frame["N"] == one["N"]) & frame["D"].between(one["D"] / ALIKE, one["D"] * ALIKE)
    for part in PARTS:
        here &= frame[part] == one[part]
    quantized = one["P_post"] < FULL_BITS
    here &= (frame["P_post"] == one["P_post"]) if quantized else frame["ptq"].isna()
    name = "gap" if quantized else "loss"
    if not here.any():
        return None
    measured = float(frame.loc[here, name].mean())
    number = Number(value=one[name], low=one[f"{name}_low"], high=one[f"{name}_high"])
    widths = [one[part] for part in PARTS]
    trained = f"{widths[0]:g}" if len({*widths}) == 1 else " ".join(f"{w:g}" for w in widths)
    return {
        "N": magnitude(one["N"]),
        "D": magnitude(one["D"]),
        "bits in training": trained,
        "bits after": f"{one['P_post']:g}" if quantized else "",
        "number": name,
        "predicted": number.text,
        "measured": digits(measured) if quantized else f"{measured:.4f}",
        "predicted / measured": digits(one[name] / measured),
    }
