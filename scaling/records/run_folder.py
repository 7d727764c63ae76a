"""A run's folder: what it holds, whether the run is done, and records that are never half-written.

    <out>/<study>/<run_id>/
        config.yaml              the resolved run, and the sha256 of its tokens
        metrics.jsonl            training curve, a line a point
        checkpoint.safetensors   weights (and the optimizer's state while the run is unfinished)
        snapshots/<tokens>.safetensors   weights and optimizer state at a token count, to branch from
        windows.safetensors      loss on every held-out window, for each evaluation
        ptq.jsonl                a line for each quantization of each evaluated model
        result.json              written last: a run is done when it validates
        error.txt                why the last attempt failed

Everything but metrics.jsonl is written to a temporary name and renamed.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file as save_arrays

from scaling.config.from_dict import plain
from scaling.config.run import Run, build_run
from scaling.errors import InputError
from scaling.records.checkpoint import Checkpoint
from scaling.records.files import SCHEMA, json_lines, replacing, write_text

RESULT_FIELDS = {
    "schema": int,
    "run_id": str,
    "N": int,
    "D": int,
    "evaluations": list,
    "diverged": bool,
    "seconds": float,
    "data_sha": str,
    "eval_sha": str,
}

State = Literal["new", "partial", "done"]


class RunFolder:
    """The folder of one run. Opening it changes nothing on disk."""

    def __init__(self, run: Run, path: Path | None = None):
        self.run = run
        self.path = path or Path(run.runtime.out) / run.study / run.run_id

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """The folder at `path`, wherever it was moved to, with the run that its config says."""
        return cls(stored_run(path), path)

    # -- state ------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """`new`, `partial` (a checkpoint is there) or `done`.

        Raises:
            InputError: the folder holds another config, or a file of it is damaged.
        """
        if not (self.path / "config.yaml").exists():
            return "new"
        stored = stored_run(self.path)
        ours, theirs = self.run.identity(), stored.identity()
        if ours != theirs:
            field = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
            raise InputError(
                f"{self.path}: holds a run with another {field}; move the folder away or change study={self.run.study}"
            )
        if self.result() is not None:
            return "done"
        return "partial" if self.checkpoint_path.exists() else "new"

    def has_error(self) -> bool:
        return (self.path / "error.txt").exists()

    def write_error(self, text: str) -> None:
        write_text(self.path / "error.txt", text)

    # -- start ------------------------------------------------------------------------------------------------------

    def open(self, data_sha: str, eval_sha: str) -> None:
        """Make the folder, or check that it was made with the same tokens; forget an earlier failure.

        Raises:
            InputError: the run was started on other tokens (the corpus has changed since).
        """
        path = self.path / "config.yaml"
        if path.exists():
            stored = yaml.safe_load(path.read_text(encoding="utf-8"))
            for name, value in (("data_sha", data_sha), ("eval_sha", eval_sha)):
                if stored.get(name) != value:
                    raise InputError(
                        f"{self.path}: {name}={stored.get(name)} there, {value} now: the corpus has changed since; "
                        "move the folder away or name another study"
                    )
        else:
            head = {"schema": SCHEMA, "data_sha": data_sha, "eval_sha": eval_sha}
            write_text(path, yaml.safe_dump({**head, "run": plain(self.run)}, sort_keys=False))
        (self.path / "error.txt").unlink(missing_ok=True)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.safetensors"

    # -- records ----------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, float]) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def forget_metrics_after(self, tokens: int) -> None:
        """Drop the points of an interrupted attempt that lie behind the checkpoint it goes on from."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [line for line in json_lines(path) if line["tokens"] <= tokens]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add_windows(self, losses: Mapping[str, np.ndarray]) -> None:
        """Add per-window losses (n,) by the name of their evaluation, and under `documents` the document of each
        window; equal names are replaced."""
        with replacing(self.path / "windows.safetensors") as temporary:
            save_arrays({**self.windows(), **losses}, temporary)

    def windows(self) -> dict[str, np.ndarray]:
        """What `add_windows` has kept."""
        path = self.path / "windows.safetensors"
        if not path.exists():
            return {}
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict

    def add_ptq(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add quantization rows; a row takes the place of an earlier one of the same model and setting."""
        merged = {(row["tokens_seen"], row["setting"]): row for row in [*self.ptq(), *rows]}
        write_text(self.path / "ptq.jsonl", "".join(json.dumps(row) + "\n" for row in merged.values()))

    def ptq(self) -> list[dict[str, Any]]:
        path = self.path / "ptq.jsonl"
        return json_lines(path) if path.exists() else []

    def write_result(self, result: Mapping[str, Any]) -> None:
        missing = [k for k, kind in RESULT_FIELDS.items() if not isinstance(result.get(k), kind)]
        assert not missing, missing
        write_text(self.path / "result.json", json.dumps(result, indent=1) + "\n")

    def result(self) -> dict[str, Any] | None:
        """The result, or None while the run is unfinished (or its result does not validate)."""
        return read_result(self.path)


def snapshot_path(folder: Path, tokens: int) -> Path:
    """Where a run folder keeps the snapshot that was asked for at `tokens`."""
    return folder / "snapshots" / f"{tokens}.safetensors"


def trunk_of(folder: Path) -> str:
    """run_id at the root of the branches that led to this run: its own where it did not branch.

    Raises:
        InputError: a config on the way is missing or damaged, or a run branches from itself.
    """
    seen = set()
    while parent := stored_run(folder).branch.parent:
        if folder in seen:
            raise InputError(f"{folder}: branches from itself; move the folder away")
        seen.add(folder)
        folder = folder.parent / parent
    return folder.name


def stored_run(folder: Path) -> Run:
    """The run whose config a folder holds.

    Raises:
        InputError: the config is missing or damaged.
    """
    path = folder / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))["run"]
        return build_run(values)
    except (OSError, yaml.YAMLError, TypeError, KeyError, InputError) as fault:
        raise InputError(
            f"{path}: not the config of a run ({str(fault).splitlines()[0]}); move the folder away"
        ) from None


def read_result(folder: Path) -> dict[str, Any] | None:
    """result.json of a run folder if it is there and validates."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    valid = isinstance(result, dict) and all(isinstance(result.get(k), kind) for k, kind in RESULT_FIELDS.items())
    return result if valid and result["schema"] == SCHEMA else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A finished run as it lies on disk."""

    run: Run
    """Its resolved settings."""
    weights: dict[str, torch.Tensor]
    """Name -> (out, in) of every matrix at the end."""
    result: dict[str, Any]
    """What result.json holds: losses in nats a token with their standard errors, N, D, versions, ..."""
    windows: dict[str, np.ndarray]
    """Evaluation -> loss (n,) of every held-out window; under `documents` the document of each."""
    rows: list[dict[str, Any]]
    """A quantization each: setting, loss, gap, standard errors."""


def load_run(path: Path | str) -> LoadedRun:
    """Read the folder of a finished run.

    Raises:
        InputError: no finished run lies there, or a file of it is damaged.
    """
    folder = RunFolder.at(Path(path))
    result = folder.result()
    if result is None:
        raise InputError(f"{path}: not the folder of a finished run (no result.json that validates)")
    weights = Checkpoint.load(folder.checkpoint_path).weights
    return LoadedRun(run=folder.run, weights=weights, result=result, windows=folder.windows(), rows=folder.ptq())
