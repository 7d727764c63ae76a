"""Numbers as people write them on a command line: 200000, 2e5 or 200k."""

SUFFIXES = {"k": "e3", "K": "e3", "M": "e6", "B": "e9", "T": "e12"}
"""Ends of a number -> the power of ten that it stands for."""


def number(text: str | float) -> float:
    """`float(text)`, also with a suffix. 2M is 2e6 to the bit: the power of ten is read, not multiplied.

    Raises:
        ValueError: the text is no number.
    """
    if isinstance(text, str) and text.strip()[-1:] in SUFFIXES:
        text = text.strip()
        text = text[:-1] + SUFFIXES[text[-1]]
    return float(text)


def whole(text: str) -> int:
    """A `number` without a fraction; digits alone are read exactly.

    Raises:
        ValueError: the text is no such number.
    """
    try:
        return int(text)
    except ValueError:
        value = number(text)
    if not value.is_integer():
        raise ValueError(f"{text}: expected a whole number")
    return int(value)
