"""What was measured, on what: `bench.json` for programs, `bench.md` and the terminal for people."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from bench.timing import Row, Spread
from scaling.config.from_dict import plain
from scaling.records import provenance
from scaling.records.files import write_text


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and with what it was measured."""

    processor: str
    device: str
    cores: int
    threads: int
    instructions: str
    """The widest that torch knows of on this processor."""
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
            instructions=torch.backends.cpu.get_cpu_capability(),
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
            f"{self.processor}, {self.cores} cores, {self.instructions}, {self.memory_gb:g} GB; "
            f"{self.device} with {self.threads} threads, "
            f"{self.dtype}; Python {self.python}, torch {self.torch}, torchao {self.torchao or 'not installed'}; "
            f"commit {self.commit or 'unknown'}; load at the start {self.load:g}."
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(folder: Path, machine: Machine, command: str, seconds: float, rows: Sequence[Row]) -> None:
    """Both files, each whole or not at all."""
    report = {"machine": plain(machine), "command": command, "seconds": round(seconds, 1), "rows": plain(list(rows))}
    write_text(folder / "bench.json", json.dumps(report, indent=1) + "\n")
    intro = (
        f"# Speed\n\n`{command}`, {seconds / 60:.1f} minutes. {machine.sentence()}\n\n"
        "Variants of a table were timed in turn. A ratio is the time divided by that of what stands under `against`:\n"
        "the median over repeats of the ratio within a repeat. Times are for orientation. Brackets hold quartiles.\n\n"
        "Where training is measured, `speed-up` is how many of the variant are done in the time of what it is\n"
        "against, `tokens/s` those of all models of a stack together, FLOPs six for each token and weight of a\n"
        "matmul, and the peak that of these matmuls alone, at the same shapes and in the same dtype. Memory is the\n"
        "most that tensors take during a step. This process keeps the memory that it frees\n"
        "(`scaling.model.allocator`), from which all variants profit, the usual ones too.\n"
    )
    write_text(folder / "bench.md", intro + "".join(f"\n{text}" for text in tables(rows)))


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    text: Callable[[Row], str]
    of_variant: bool = False
    """Whether it is the same in all rows of a variant, and shown in the first."""


TIMES = (
    Column(title="variant", text=lambda row: row.variant, of_variant=True),
    Column(title="time", text=lambda row: _time(row.seconds), of_variant=True),
    Column(title="quartiles", text=lambda row: _brackets(row.seconds, 1e3), of_variant=True),
    Column(title="against", text=lambda row: row.against or ""),
    Column(title="ratio", text=lambda row: _number(row.ratio)),
    Column(title="quartiles", text=lambda row: _brackets(row.ratio)),
    Column(title="goal", text=lambda row: row.goal or ""),
    Column(title="met", text=lambda row: {True: "yes", False: "no", None: ""}[row.met]),
)
SPEEDS = (
    *TIMES[:3],
    Column(title="tokens/s", text=lambda row: _thousands(row.tokens_per_second), of_variant=True),
    Column(title="GFLOP/s", text=lambda row: _thousands(row.model_flops, 1e-9), of_variant=True),
    Column(title="of peak", text=lambda row: _percent(row.peak_share), of_variant=True),
    Column(title="memory", text=lambda row: _megabytes(row.peak_memory_mb), of_variant=True),
    TIMES[3],
    Column(title="speed-up", text=lambda row: _number(row.speed_up)),
    Column(title="quartiles", text=lambda row: _brackets(row.speed_up)),
    *TIMES[6:],
)
"""Of groups that train, which are compared by how much they do in a time instead of by how long they take."""


def tables(rows: Sequence[Row]) -> list[str]:
    """Markdown, one table a group, that reads well on a terminal too."""
    return [_table(name, list(members)) for name, members in groupby(rows, key=lambda row: row.group)]


def _table(name: str, rows: list[Row]) -> str:
    trained = any(row.tokens_per_second for row in rows)
    columns, last = [], [None, *(row.variant for row in rows[:-1])]
    for column in SPEEDS if trained else TIMES:
        again = [column.of_variant and row.variant == before for row, before in zip(rows, last, strict=True)]
        texts = ["" if skip else column.text(row) for row, skip in zip(rows, again, strict=True)]
        if any(texts) or not trained:
            width = max(map(len, (column.title, *texts)))
            columns.append([text.ljust(width) for text in (column.title, "-" * width, *texts)])
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    notes = dict.fromkeys(f"- {row.variant}: {row.note}" for row in rows if row.note)
    return "\n".join([f"## {name}", "", *lines, *(["", *notes] if notes else [])]) + "\n"


def _time(seconds: Spread | None) -> str:
    return "-" if seconds is None else f"{seconds.median * 1e3:.4g} ms"


def _thousands(value: float | None, factor: float = 1) -> str:
    return "" if value is None else f"{value * factor:,.{1 if value * factor < 100 else 0}f}"


def _percent(share: Spread | None) -> str:
    return "" if share is None else f"{share.median:.0%}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} MB"


def _number(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.4g}"


def _brackets(spread: Spread | None, factor: float = 1) -> str:
    return "" if spread is None else f"[{spread.low * factor:.4g}, {spread.high * factor:.4g}]"
