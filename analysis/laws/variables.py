"""Variables of laws that are not columns of the table as they stand, but follow from them.

`E_w`, `M_w`: exponent and mantissa bits of the float format in `format_w`. `C`: operations of training, 6 N D where the
table does not count them. `scheme`: how a run was trained, from a
column of that name or from the formats of weights, activations and KV cache; laws get it as a number.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.errors import InputError

FORMATS_IN_TRAINING = ("format_w", "format_a", "format_kv")
FLOAT = r"(?:mxfp\d_)?e(\d+)m(\d+)(?:-hadamard)?"
BY_FORMAT = {"E_w": ("P_w", 0), "M_w": ("P_w", 1)}
"""Variable -> the part whose format gives it, and whether it is the number of exponent or of mantissa bits."""
NAMED = {"bf16": (8, 7), "nvfp4": (2, 1), "mxfp4": (2, 1), "mxfp6": (2, 3), "mxfp8": (4, 3)}


def column(frame: Mapping[str, np.ndarray], name: str, categories: Sequence[str] = ()) -> np.ndarray:
    """A variable (n,) as floats.

    Raises:
        InputError: a scheme that is not among `categories`.
    """
    if name == "scheme":
        return _codes(schemes(frame), categories)
    if name in BY_FORMAT and name not in frame:
        return _bits(frame, name)
    if name == "C" and name not in frame:
        return 6 * np.asarray(frame["N"], float) * np.asarray(frame["D"], float)
    return np.asarray(frame[name], float)


def with_derived(frame: pd.DataFrame, variables: Sequence[str]) -> pd.DataFrame:
    """`frame` with those of the derived variables as columns that its own columns give."""
    added = {}
    if "scheme" in variables and "scheme" not in frame and set(FORMATS_IN_TRAINING) <= set(frame):
        added["scheme"] = schemes(frame)
    if "format_w" in frame:
        added |= {name: _bits(frame, name) for name in BY_FORMAT if name in variables and name not in frame}
    if "C" in variables and "C" not in frame and {"N", "D"} <= set(frame):
        added["C"] = 6 * pd.to_numeric(frame["N"], errors="coerce") * pd.to_numeric(frame["D"], errors="coerce")
    return frame.assign(**added)


def schemes(frame: Mapping[str, np.ndarray]) -> np.ndarray:
    """How each row was trained, (n,) text."""
    if "scheme" in frame:
        return np.asarray(frame["scheme"]).astype(str)
    parts = [np.asarray(frame[name]).astype(str) for name in FORMATS_IN_TRAINING]
    return np.array(["/".join(row) for row in zip(*parts, strict=True)])


def _codes(names: np.ndarray, categories: Sequence[str]) -> np.ndarray:
    number = {scheme: i for i, scheme in enumerate(categories, start=1)}
    unknown = sorted(set(names) - set(number))
    if unknown:
        raise InputError(f"scheme={unknown[0]}: the law knows {', '.join(categories)}")
    return np.array([number[scheme] for scheme in names], float)


def of_format(text: str, place: int) -> float | None:
    """Exponent (0) or mantissa (1) bits of a float format; None if it is no such format."""
    match = re.fullmatch(FLOAT, text)
    both = (int(match[1]), int(match[2])) if match else NAMED.get(text)
    return None if both is None else float(both[place])


def _bits(frame: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Exponent or mantissa bits of each row's weights; NaN where they are no floats."""
    made = [of_format(str(text), BY_FORMAT[name][1]) for text in np.asarray(frame["format_w"])]
    return np.array([np.nan if bits is None else bits for bits in made], float)
