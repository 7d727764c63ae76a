"""A folder in which commands run, and what must be the same in it whatever happened.

<root>/text/words.txt     a small text, the same in every place
<root>/sweeps/faults.yaml
<root>/cache, outputs, results
"""

import hashlib
import os
import random
import shutil
from pathlib import Path

import pandas as pd
import torch

from bench.faults.commands import Command
from scaling.records.checkpoint import Checkpoint
from scaling.records.files import checksum
from scaling.records.run_folder import RunFolder

STUDY = "faults"
SWEEP = Command.of("scaling.train", "--multirun", f"sweeps={STUDY}")
JOBLIB = Command.of(*SWEEP.words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
COLLECT = Command.of("scaling.sweep", "collect", STUDY)
QUANTIZE = Command.of(
    *("scaling.ptq", f"study={STUDY}", "ptq=all", "ptq.formats=[int5]", "ptq.granularities=[channel]"),
    *("ptq.calibration_tokens=512", "tracking=off", "runtime.threads=1", "runtime.device=cpu"),
)
FIGURES = Command.of("analysis", "figures", STUDY, "--bootstrap", "10")
VARYING = ("seconds", "tokens_per_second", "shared_steps", "commit", "sha256")
"""Of result.json: what depends on the time, how a run came to its end, or the state of this repository."""

State = dict[str, str]
"""What is compared -> a checksum of it."""


def write_words(root: Path) -> None:
    """The text that all places read: lines of made-up words, some frequent, some rare."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 6))) for _ in range(120)]
    shares = [1 / (1 + rank) for rank in range(len(words))]
    lines = (" ".join(draw.choices(words, shares, k=draw.randint(40, 160))) for _ in range(400))
    (root / "text").mkdir(parents=True)
    (root / "text" / "words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Place:
    """A folder in which commands run."""

    def __init__(self, root: Path, text: Path, *, with_study: bool = True):
        self.root = root
        root.mkdir(parents=True)
        os.symlink(text / "text", root / "text")
        if with_study:
            shutil.copytree(Path(__file__).with_name("sweeps"), root / "sweeps")

    @property
    def study(self) -> Path:
        return self.root / "outputs" / STUDY

    @property
    def results(self) -> Path:
        return self.root / "results" / STUDY

    @property
    def table(self) -> Path:
        return self.results / "runs.csv"

    def take(self, stage: Path, *names: str) -> None:
        """Have the named folders as they are in a stage, with the times of their files."""
        self.remove(*names)
        for name in names:
            if (stage / name).exists():
                shutil.copytree(stage / name, self.root / name)

    @staticmethod
    def copy(root: Path, stage: Path) -> None:
        """Keep what commands have left in a place."""
        for name in ("cache", "outputs", "results"):
            if (root / name).exists():
                shutil.copytree(root / name, stage / name)

    def remove(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.root / name, ignore_errors=True)


def study_state(study: Path, *, curves: bool = True) -> State:
    """What the folders of a study's runs say. Raises InputError where one cannot be read."""
    state: State = {}
    for path in sorted(study.glob("n*/result.json")):
        folder, name = RunFolder.at(path.parent), path.parent.name
        result = folder.finished()
        state[f"{name} result"] = checksum({key: value for key, value in result.items() if key not in VARYING})
        rows = sorted(folder.ptq(), key=lambda row: (row["tokens_seen"], row["setting"]))
        state[f"{name} ptq"] = checksum(rows)
        for evaluation, losses in folder.windows().items():
            state[f"{name} windows {evaluation}"] = hashlib.sha256(losses.tobytes()).hexdigest()
        for file in (folder.checkpoint_path, *sorted(path.parent.glob("snapshots/*.safetensors"))):
            state[f"{name} {file.name}"] = _weights(Checkpoint.load(file))
        if curves:
            state[f"{name} curve"] = hashlib.sha256((path.parent / "metrics.jsonl").read_bytes()).hexdigest()
    return state


def _weights(stored: Checkpoint) -> str:
    sums = [stored.step, stored.skipped]
    for group in (stored.weights, stored.first, stored.second, stored.mean):
        sums += [[name, hashlib.sha256(_bytes(tensor)).hexdigest()] for name, tensor in sorted(group.items())]
    return checksum(sums)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def table_state(table: Path) -> State:
    """A collected table, without how long its runs took, and from which commit."""
    frame = pd.read_csv(table, dtype=str, keep_default_na=False).drop(columns=["seconds", "commit"])
    return {"table": hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()}


def files_state(folder: Path) -> State:
    """The bytes of all files below a folder. What killed commands left under temporary names does not count: it is
    removed in time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "."
    }


def differences(state: State, expected: State) -> list[str]:
    """Names of what is other than expected, missing, or there without being expected."""
    return sorted(name for name in {*state, *expected} if state.get(name) != expected.get(name))
