"""What the two sides wrote, as lines of text, group by group: each file must be the same to the letter.

JSON and CSV lose what a second run of the same code would change (times, the commit), checkpoints become a line a
tensor, and what `plan` prints loses its measured speed.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

RENAMED_FILES: dict[str, str] = {"foretold.csv": "predictions.csv", "foretold.png": "predicted.png"}
"""Names of files or folders in the output of a commit before a renaming -> their names now."""
RENAMED_COLUMNS: dict[str, str] = {}
"""Columns of tables and keys of JSON likewise."""

VOLATILE = {"seconds", "tokens_per_second", "commit", "versions", "device"}
CHECKSUMS = {"sha256", "checksum", "crc32"}  # of records that have volatile values
RUN_ID = re.compile(r"n\d\S*-[0-9a-f]{10}")
MEASURED = ("time:",)
TEXT_CORPUS = re.compile(r"text-[0-9a-f]{16}")  # named after the paths and times of its files; `data_sha` is compared
SHOWN = 200  # letters of a line in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Files that are compared in one way."""

    name: str
    patterns: tuple[str, ...]
    """Of paths below the output folder."""
    lines: Callable[[Path, Mapping[str, str]], list[str]]
    """The lines of a file, given how its columns were renamed since."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a file differs first, and what each side has there."""

    file: str
    line: int | None
    before: str
    after: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}\n    BASE {self.before[:SHOWN]}\n    tree {self.after[:SHOWN]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one group."""

    group: str
    files: int
    lines: int
    differences: list[Difference]

    def __str__(self) -> str:
        kind = "same" if not self.differences else f"{len(self.differences)} of {self.files} files differ"
        return f"{self.group:<24} {self.files:>5} files {self.lines:>7} lines   {kind}"


def compared(
    before: Path,
    after: Path,
    files: Mapping[str, str] = RENAMED_FILES,
    columns: Mapping[str, str] = RENAMED_COLUMNS,
) -> Iterator[Outcome]:
    """Each group of files of two output folders; one that neither has is a difference too."""
    for group in GROUPS:
        old = {_renamed(path.relative_to(before), files): path for path in _files(before, group, files)}
        new = {path.relative_to(after).as_posix(): path for path in _files(after, group, {})}
        differences, lines = [], 0
        for name in sorted({*old, *new}):
            theirs = group.lines(old[name], columns) if name in old else None
            ours = group.lines(new[name], {}) if name in new else None
            lines += len(ours or ())
            if theirs != ours:
                differences.append(_difference(name, theirs, ours))
        if not old and not new:
            differences.append(Difference(file=" ".join(group.patterns), line=None, before="no file", after="no file"))
        yield Outcome(group=group.name, files=len({*old, *new}), lines=lines, differences=differences)


def _difference(name: str, theirs: list[str] | None, ours: list[str] | None) -> Difference:
    if theirs is None or ours is None:
        there, gone = "there", "no such file"
        return Difference(
            file=name, line=None, before=gone if theirs is None else there, after=gone if ours is None else there
        )
    line = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    before, after = (lines[line] if line < len(lines) else "has ended" for lines in (theirs, ours))
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    start = max(0, at - SHOWN // 2)  # of a long line, what surrounds the difference
    return Difference(file=name, line=line + 1, before=before[start:], after=after[start:])


def _files(folder: Path, group: Group, renamed: Mapping[str, str]) -> set[Path]:
    """The files of a group, also under the names that they had before."""
    names = {new: old for old, new in renamed.items()}
    patterns = {*group.patterns, *("/".join(names.get(part, part) for part in p.split("/")) for p in group.patterns)}
    return {path for pattern in patterns for path in folder.glob(pattern)}


def _renamed(path: Path, names: Mapping[str, str]) -> str:
    return "/".join(names.get(part, part) for part in path.parts)


# -- a file as lines ---------------------------------------------------------------------------------------------------


def _text(path: Path, _: Mapping[str, str]) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _bytes(path: Path, _: Mapping[str, str]) -> list[str]:
    return [f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"]


def _fits(path: Path, _: Mapping[str, str]) -> list[str]:
    """A file of fits without its checksum, which earlier commits do not write."""
    return re.sub(r',\n "sha256": "\w*"\n}$', "\n}", path.read_text(encoding="utf-8").rstrip("\n")).splitlines()


def _ids(path: Path, _: Mapping[str, str]) -> list[str]:
    return [line for line in _text(path, {}) if RUN_ID.fullmatch(line)]


def _plan(path: Path, _: Mapping[str, str]) -> list[str]:
    return [line for line in _text(path, {}) if not RUN_ID.fullmatch(line) and not line.startswith(MEASURED)]


def _table(path: Path, renamed: Mapping[str, str]) -> list[str]:
    """A CSV without the volatile columns, otherwise as it stands."""
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    kept = [i for i, name in enumerate(header) if name not in VOLATILE]
    names = [renamed.get(name, name) for name in header]
    return [",".join(row[i] for i in kept) for row in (names, *rows)]


def _records(path: Path, renamed: Mapping[str, str]) -> list[str]:
    """JSON, one value or one a line, a line a value; numbers with all their digits."""
    text = path.read_text(encoding="utf-8")
    values = [json.loads(value) for value in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    return [json.dumps(_steady(value, renamed)) for value in values if not value.keys() <= CHECKSUMS]


def _steady(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {renamed.get(k, k): _steady(v, renamed) for k, v in value.items() if k not in VOLATILE | CHECKSUMS}
    if isinstance(value, str):
        return TEXT_CORPUS.sub("text", value)
    return [_steady(v, renamed) for v in value] if isinstance(value, list) else value


def _tensors(path: Path, _: Mapping[str, str]) -> list[str]:
    """A safetensors file, read by hand so that numbers of any type are compared by their bits."""
    stored = path.read_bytes()
    start = 8 + int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8:start])
    metadata = _steady(header.pop("__metadata__", {}), {})
    lines = [f"{name}: {value}" for name, value in sorted(metadata.items())]
    for name, tensor in sorted(header.items()):
        low, high = (start + offset for offset in tensor["data_offsets"])
        lines.append(f"{name}: {tensor['dtype']} {tensor['shape']} {hashlib.sha256(stored[low:high]).hexdigest()}")
    return lines


RUNS = "outputs/unchanged/*/"
GROUPS = (
    Group(name="tables to start from", patterns=("results/*/runs.csv", "results/*/predictions.csv"), lines=_text),
    Group(name="run ids", patterns=("plans/*.txt",), lines=_ids),
    Group(name="plans", patterns=("plans/*.txt", "cells/*.csv"), lines=_plan),
    Group(name="training curves", patterns=(f"{RUNS}metrics.jsonl",), lines=_records),
    Group(name="results of runs", patterns=(f"{RUNS}result.json",), lines=_records),
    Group(name="quantizations", patterns=(f"{RUNS}ptq.jsonl",), lines=_records),
    Group(name="losses by window", patterns=(f"{RUNS}windows.safetensors",), lines=_tensors),
    Group(
        name="checkpoints",
        patterns=(f"{RUNS}checkpoint.safetensors", f"{RUNS}snapshots/*.safetensors"),
        lines=_tensors,
    ),
    Group(name="collected table", patterns=("table/runs.csv",), lines=_table),
    Group(name="fits.json", patterns=("results/*/fits.json",), lines=_fits),
    Group(name="slopes.csv", patterns=("results/*/slopes.csv",), lines=_text),
    Group(name="numbers of figures", patterns=("results/*/figures/*.csv",), lines=_text),
    Group(name="figures", patterns=("results/*/figures/*.png", "results/report.figures/*.svg"), lines=_bytes),
    Group(name="report", patterns=("results/report.md",), lines=_text),
    Group(name="printed by analysis", patterns=("printed/*.txt",), lines=_text),
)
