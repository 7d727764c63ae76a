"""Variables of laws that are not columns of the table as they stand, but follow from them.

`E_w`, `M_w`: exponent and mantissa bits of the float format in `format_w`. `scheme`: how a run was trained, from a
column of that name or from the formats of weights, activations and KV cache; laws get it as a number.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.errors import InputError

FORMATS_IN_TRAINING = ("format_w", "format_a", "format_kv")
FLOAT = r"(?:mxfp\d_)?e(\d+)m(\d+)(?:-hadamard)?"
NAMED = {"bf16": (8, 7), "nvfp4": (2, 1), "mxfp4": (2, 1), "mxfp6": (2, 3), "mxfp8": (4, 3)}


def column(frame: Mapping[str, np.ndarray], name: str, categories: Sequence[str] = ()) -> np.ndarray:
    """A variable (n,) as floats.

    Raises:
        InputError: a scheme that is not among `categories`.
    """
    if name == "scheme":
        return _codes(schemes(frame), categories)
    if name in ("E_w", "M_w") and name not in frame:
        return _bits(frame, name)
    return np.asarray(frame[name], float)


def with_derived(frame: pd.DataFrame, variables: Sequence[str]) -> pd.DataFrame:
    """`frame` with those of the derived variables as columns that its own columns give."""
    added = {}
    if "scheme" in variables and "scheme" not in frame and set(FORMATS_IN_TRAINING) <= set(frame):
        added["scheme"] = schemes(frame)
    if "format_w" in frame:
        added |= {name: _bits(frame, name) for name in ("E_w", "M_w") if name in variables and name not in frame}
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


def _bits(frame: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Exponent or mantissa bits of each row's weights; NaN where they are no floats."""

    def bits(text: str) -> tuple[float, float]:
        match = re.fullmatch(FLOAT, text)
        return (int(match[1]), int(match[2])) if match else NAMED.get(text, (np.nan, np.nan))

    place = 0 if name == "E_w" else 1
    return np.array([bits(str(text))[place] for text in np.asarray(frame["format_w"])], float)
