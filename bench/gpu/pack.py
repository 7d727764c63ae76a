"""What has to travel to a machine without network, beside the tracked files; `bench/gpu.sh pack` writes it to
cache/gpu.

wheels/               what a machine with PyTorch may lack: Hydra with its needs, and this project, from whose
                      requirements the default corpus follows
machines.jsonl.xz     the text that is trained on where machines are compared
commit                for the records: .git may not travel
SHA256SUMS            of all of these
"""

import hashlib
import json
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from scaling.config.data import PythonCorpus
from scaling.data.installed import InstalledSource
from scaling.errors import InputError
from scaling.records import provenance

FOLDER = Path("cache/gpu")
MISSING = ("hydra-core", "omegaconf", "antlr4-python3-runtime")
DOCUMENTS = 6000
"""Enough that a fifth of them are the 1,200 that are held out, and the rest more than 8M tokens."""


def pack(folder: Path, say: Callable[[str], None]) -> None:
    """Write all of it.

    Raises:
        InputError: pip cannot build or fetch a wheel, or there are too few documents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    say("wheels")
    _wheels(folder / "wheels")
    (folder / "commit").write_text(f"{provenance.commit() or 'unknown'}\n", encoding="utf-8")
    say(f"{DOCUMENTS:,} documents")
    _text(folder / "machines.jsonl.xz", say)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    size = sum(path.stat().st_size for path in files)
    say(f"{folder}: {len(files)} files, {size / 2**20:.1f} MiB, at commit {(folder / 'commit').read_text().strip()}")


def _wheels(folder: Path) -> None:
    for old in folder.glob("*.whl"):
        old.unlink()
    names = [f"{name}=={version(name)}" for name in MISSING]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--use-pep517", "--no-deps", "-w", str(folder), *names, "."]
    # Setuptools takes modules from an earlier build that are gone from the tree.
    shutil.rmtree("build", ignore_errors=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree("build", ignore_errors=True)
    if done.returncode:
        raise InputError(f"pip wheel: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def _text(path: Path, say: Callable[[str], None]) -> None:
    source = InstalledSource(PythonCorpus(root="precision-scaling", standard_library=True), 0, 1200)
    source.scan(say)
    texts = [document.text for document in islice(source.documents(), DOCUMENTS)]
    if len(texts) < DOCUMENTS:
        raise InputError(f"the default corpus has {len(texts):,} documents here; {DOCUMENTS:,} are needed")
    with lzma.open(path, "wt", encoding="utf-8", preset=6) as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")
