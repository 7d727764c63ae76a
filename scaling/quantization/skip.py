"""Block matrices that are left out of a quantization, by name: `layers.0.down`, `layers.0.*`, `*.down`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from scaling.errors import InputError, nearest_names

BETWEEN = "+"
"""What stands between patterns where they are one word."""


def is_skipped(name: str, patterns: Iterable[str]) -> bool:
    """Whether a block matrix is left out."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def one_way(patterns: Sequence[str], names: Sequence[str], key: str) -> tuple[str, ...]:
    """The patterns that leave out the same of the block matrices `names`, said in the one way that there is: kinds of
    all layers, then whole layers, then single matrices.

    Raises:
        InputError: a pattern matches none of them; `key` names the setting.
    """
    for i, pattern in enumerate(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            kinds = dict.fromkeys(f"*.{name.rpartition('.')[2]}" for name in names)
            raise InputError(
                f"{key}[{i}]={pattern}: matches none of {names[0]} to {names[-1]}, {', '.join(kinds)}"
                f"{nearest_names(pattern, (*names, *kinds))}"
            )
    left = [name for name in names if is_skipped(name, patterns)]
    whole: list[str] = []
    for place, pattern in ((2, "*.{}"), (0, "{}.*")):
        for group, members in _grouped(names, place).items():
            if set(members) <= set(left):
                whole.append(pattern.format(group))
                left = [name for name in left if name not in members]
    return (*whole, *left)


def _grouped(names: Sequence[str], place: int) -> dict[str, list[str]]:
    """Names by what stands behind (2) or before (0) their last dot."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[place], []).append(name)
    return groups
