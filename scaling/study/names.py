"""What W&B shows as the names of a study's runs: what the study varies, and nothing that all its runs share."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from scaling.config.from_dict import plain
from scaling.config.run import Run, short

LONGEST = 128
"""Characters that W&B takes."""
APART = ("study", "ptq", "tracking", "runtime")
"""Settings that make no other run."""
LABELS: dict[str, Callable[[Run], str]] = {
    "model": lambda run: f"N={short(run.N)}",
    "data": lambda run: f"D={short(run.data.tokens)}",
    "precision": lambda run: run.bits,
    "schedule": lambda run: run.schedule.kind,
    "branch": lambda run: f"from={short(run.branch.tokens)}" if run.branch.tokens else "fresh",
    "seed_init": lambda run: f"s{run.seed_init}",
    "seed_data": lambda run: f"s{run.seed_init}.{run.seed_data}",
}
"""Group of settings, or setting -> the short word for it."""


def named(runs: Sequence[Run]) -> list[Run]:
    """The runs with `tracking.name` filled in where it is open."""
    names = short_names(runs)
    return [
        run if run.tracking.name else dataclasses.replace(run, tracking=dataclasses.replace(run.tracking, name=name))
        for run, name in zip(runs, names, strict=True)
    ]


def short_names(runs: Sequence[Run]) -> list[str | None]:
    """For each run the fewest words that distinguish it from the others; None where nothing does."""
    settings = [dict(_flat({k: v for k, v in plain(run).items() if k not in APART})) for run in runs]
    keys = list(dict.fromkeys(key for values in settings for key in values))
    columns = {key: [str(values.get(key)) for values in settings] for key in keys}
    varied = {key: column for key, column in columns.items() if len(set(column)) > 1}
    names: list[list[str]] = [[] for _ in runs]

    def add(words: Iterable[str]) -> None:
        for words_of, word in zip(names, words, strict=True):
            words_of.append(word)

    for group, label in LABELS.items():
        within = [column for key, column in varied.items() if key.split(".")[0] == group]
        if within and not all(_is_known(column, names) for column in within):
            words = [label(run) for run in runs]
            if len(set(words)) > 1:
                add(words)
    for key, column in varied.items():
        if key != "branch.parent" and not _is_known(column, names):
            leaf = key.split(".")[-1]
            add(f"{leaf}={_shown(values.get(key))}" for values in settings)
    return [" ".join(dict.fromkeys(words))[:LONGEST] or None for words in names]


def _is_known(column: Sequence[str], names: Sequence[Sequence[str]]) -> bool:
    """Whether a setting's values follow from the words that the names have already."""
    value_of: dict[tuple[str, ...], str] = {}
    return all(value_of.setdefault(tuple(words), value) == value for words, value in zip(names, column, strict=True))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list):
        return "+".join(map(_shown, value)) or "none"
    if isinstance(value, int) and value >= 1000:
        return short(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
