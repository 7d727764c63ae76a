"""Numbers as people write them: 2000000, 2e6 or 2M."""

from typing import Any

SUFFIXES = {"k": "e3", "K": "e3", "M": "e6", "B": "e9", "T": "e12"}
"""Ends of a number -> the power of ten that it stands for, as in the names of models."""


def number(value: Any) -> float:
    """`float(value)`, of a text also with a suffix. 2M is 2e6 to the bit: the power of ten is read, not multiplied.

    Raises:
        TypeError, ValueError, OverflowError: as `float`.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text[-1:] in SUFFIXES:
        text = text[:-1] + SUFFIXES[text[-1]]
    return float(text)
