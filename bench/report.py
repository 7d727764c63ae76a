"""What was measured, on what: `bench.json` for programs, `bench.md` and the terminal for people."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from bench.timing import Row, Spread
from scaling import provenance
from scaling.door import plain

HEADER = ("variant", "time", "quartiles", "against", "ratio", "quartiles", "goal", "met")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and with what it was measured."""

    processor: str
    device: str
    cores: int
    threads: int
    memory_gb: float
    load: float
    """Processes that wanted to run in the minute before the start, others' included; times of a busy machine vary."""
    dtype: str
    python: str
    torch: str
    torchao: str | None
    compiler: bool
    """Whether torch.compile can work."""
    commit: str | None
    """`+` where tracked files differ from it."""

    @classmethod
    def here(cls, device: str, dtype: str) -> "Machine":
        """To be called before anything is timed, for the load."""
        return cls(
            processor=provenance.device_name(torch.device("cpu")).removeprefix("cpu "),
            device=provenance.device_name(torch.device(device)) if device != "cpu" else "cpu",
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            load=round(os.getloadavg()[0], 2),
            dtype=dtype,
            python=platform.python_version(),
            torch=torch.__version__,
            torchao=_version("torchao"),
            compiler=provenance.has_compiler(),
            commit=provenance.commit(),
        )

    def sentence(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:g} GB; {self.device} with {self.threads} threads, "
            f"{self.dtype}; Python {self.python}, torch {self.torch}, torchao {self.torchao or 'not installed'}; "
            f"commit {self.commit or 'unknown'}; load at the start {self.load:g}."
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(folder: Path, machine: Machine, command: str, seconds: float, rows: Sequence[Row]) -> None:
    """Both files, each in one go, so that a reader never sees half of one."""
    report = {"machine": plain(machine), "command": command, "seconds": round(seconds, 1), "rows": plain(list(rows))}
    _replace(folder / "bench.json", json.dumps(report, indent=1) + "\n")
    intro = (
        f"# Speed\n\n`{command}`, {seconds / 60:.1f} minutes. {machine.sentence()}\n\n"
        "Variants of a table were timed in turn. A ratio is the time divided by that of what stands under `against`:\n"
        "the median over repeats of the ratio within a repeat. Times are for orientation. Brackets hold quartiles.\n"
    )
    _replace(folder / "bench.md", intro + "".join(f"\n{text}" for text in tables(rows)))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def tables(rows: Sequence[Row]) -> list[str]:
    """Markdown, one table a group, that reads well on a terminal too."""
    return [_table(name, list(members)) for name, members in groupby(rows, key=lambda row: row.group)]


def _table(name: str, rows: list[Row]) -> str:
    cells = [HEADER]
    last = None
    for row in rows:
        again, last = row.variant == last, row.variant
        time = ("", "") if again else (_time(row.seconds), _brackets(row.seconds, 1e3))
        met = {True: "yes", False: "no", None: ""}[row.met]
        ratio = (_number(row.ratio), _brackets(row.ratio))
        cells.append(("" if again else row.variant, *time, row.against or "", *ratio, row.goal or "", met))
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    cells.insert(1, tuple("-" * width for width in widths))
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    notes = dict.fromkeys(f"- {row.variant}: {row.note}" for row in rows if row.note)
    return "\n".join([f"## {name}", "", *lines, *(["", *notes] if notes else [])]) + "\n"


def _time(seconds: Spread | None) -> str:
    return "-" if seconds is None else f"{seconds.median * 1e3:.4g} ms"


def _number(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.4g}"


def _brackets(spread: Spread | None, factor: float = 1) -> str:
    return "" if spread is None else f"[{spread.low * factor:.4g}, {spread.high * factor:.4g}]"
