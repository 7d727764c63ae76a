"""What has been measured so far: a file of JSON lines for each section, and one archive of everything, which is written
anew after each cell. The archive is what leaves the machine and what a later call on another machine goes on from.

    <folder>/machine.json         the machine, and the commit
    <folder>/tests.jsonl          a line a test
    <folder>/throughput.jsonl     a line a cell
    <folder>/study.jsonl          a line a stack
    <folder>/runs/<study>/<run>/  the run folders of the studies, without weights
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling.records.files import replacing, write_text

ARCHIVE = "gpu.tar.xz"
LARGEST = 16 * 2**20
"""Bytes: more than that some machines do not give back."""
LEFT_OUT = (".safetensors",)
"""Weights, moments and losses of single windows stay behind."""


class Results:
    """The folder at `folder`, archived in the folder `outgoing` (None: not at all)."""

    def __init__(self, folder: Path, outgoing: Path | None = None):
        self.folder, self.archive = folder, outgoing and outgoing / ARCHIVE

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def lines(self, section: str) -> list[dict[str, Any]]:
        """What a section has written, in order. Half a line at the end, of a killed call, is left out."""
        path = self.folder / f"{section}.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def add(self, section: str, line: dict[str, Any]) -> None:
        """Append a line, on disk when this returns, and write the archive anew."""
        path = self.folder / f"{section}.jsonl"
        whole = "".join(json.dumps(entry) + "\n" for entry in [*self.lines(section), line])
        write_text(path, whole)
        self.save()

    def describe(self, machine: dict[str, Any]) -> None:
        """Say which machine this is."""
        write_text(self.folder / "machine.json", json.dumps(machine, indent=1) + "\n")
        self.save()

    def save(self) -> None:
        """Write the archive anew."""
        if self.archive is None:
            return
        with replacing(self.archive) as temporary, tarfile.open(temporary, "w:xz", preset=1) as file:
            for path in self._kept():
                file.add(path, path.relative_to(self.folder).as_posix(), recursive=False)
        if (size := self.archive.stat().st_size) > LARGEST:
            print(f"bench.gpu: {self.archive} has {size / 2**20:.1f} MiB, more than {LARGEST / 2**20:.0f}", flush=True)

    def restore(self, archive: Path) -> None:
        """Take over what an earlier call brought away. What is here already stays."""
        with tarfile.open(archive) as file:
            for member in file.getmembers():
                if not (self.folder / member.name).exists():
                    file.extract(member, self.folder, filter="data")

    def _kept(self) -> Iterator[Path]:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.suffix not in LEFT_OUT and path.name != ARCHIVE and path.name[0] != ".":
                yield path
