"""A run's folder: its files, whether the run is done, and records that are never half-written.

    <out>/<study>/<run_id>/
        config.yaml              the resolved run, and the sha256 of its tokens
        metrics.jsonl            training curve, a line a point
        val.jsonl                loss on a few held-out windows on the way, where that was cheap
        checkpoint.safetensors   weights (and the optimizer's state while the run is unfinished)
        snapshots/<tokens>.safetensors   weights and optimizer state at a token count, to branch from
        windows.safetensors      loss on every held-out window, for each evaluation
        ptq.jsonl                a line for each quantization of each evaluated model
        result.json              written last: a run is done when it validates
        error.txt                why the last attempt failed
        lock, writer.json        who writes to it now (`scaling.records.writer`)

Everything but these curves is written to a temporary name and renamed, and has a checksum that is verified when it is
read. Folders of earlier versions have none in their configs, and then their other files may lack it too.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from scaling.config.from_dict import plain
from scaling.config.pretrained.measured_run import MeasuredRun, build_stored
from scaling.config.run import Run
from scaling.console.terminal import note
from scaling.errors import InputError
from scaling.records import tensor_files
from scaling.records.checkpoint import Checkpoint
from scaling.records.files import SCHEMA, checksum, is_intact, with_checksum, write_text
from scaling.records.writer import Writer

RESULT_FIELDS = {
    "schema": int,
    "run_id": str,
    "N": int,
    "D": int | None,
    "evaluations": list,
    "diverged": bool,
    "seconds": float,
    "data_sha": str,
    "eval_sha": str,
}

CURVE, VAL_CURVE = "metrics.jsonl", "val.jsonl"
CONFIG_KEYS = ("schema", "data_sha", "eval_sha", "run")
TRAIN_AGAIN = "delete the folder of the run to train it again"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, ten times as fast

State = Literal["new", "partial", "done"]


class RunFolder:
    """The folder of one run. Opening it changes nothing on disk."""

    def __init__(self, run: Run | MeasuredRun, path: Path | None = None):
        self.run = run
        self.path = path or Path(run.runtime.out) / run.study / run.run_id
        self.writer: Writer | None = None
        self.last_val_tokens = 0
        """Of the last point on held-out windows that is known to be there."""

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """The folder at `path`, wherever it was moved to under its own name, with the run that its config says."""
        return cls(stored_run(path), path)

    # -- one writer --------------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the one who writes here, until `unlock`.

        Raises:
            HeldError: another process is.
        """
        if self.writer is None:
            self.writer = Writer.take(self.path)

    def unlock(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _allowed(self) -> None:
        if self.writer is not None:
            self.writer.check()

    # -- state ------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """`new`, `partial` (a checkpoint is there; losses, of a model that others trained) or `done`.

        Raises:
            InputError: the folder holds another config, or a file of it is damaged.
        """
        if not (self.path / "config.yaml").exists():
            return "new"
        stored_run(self.path)
        if self.result() is not None:
            return "done"
        begun = self._windows_path if isinstance(self.run, MeasuredRun) else self.checkpoint_path
        return "partial" if begun.exists() else "new"

    def has_error(self) -> bool:
        return (self.path / "error.txt").exists()

    def last_error(self) -> str:
        """The last line of what the last attempt said."""
        lines = (self.path / "error.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "error.txt is empty"

    def write_error(self, text: str) -> None:
        write_text(self.path / "error.txt", text, self._allowed)

    # -- start ------------------------------------------------------------------------------------------------------

    def open(self, data_sha: str, eval_sha: str) -> None:
        """Make the folder, or check that it was made with the same tokens; forget an earlier failure.

        Raises:
            InputError: the run was started on other tokens (the corpus has changed since).
        """
        path = self.path / "config.yaml"
        if path.exists():
            stored = _stored_config(self.path)
            for name, value in (("data_sha", data_sha), ("eval_sha", eval_sha)):
                if stored.get(name) != value:
                    raise InputError(
                        f"{self.path}: {name}={stored.get(name)} there, {value} now: the corpus has changed since; "
                        "move the folder away or name another study"
                    )
        else:
            head = {"schema": SCHEMA, "data_sha": data_sha, "eval_sha": eval_sha}
            # The checksum comes first: what is cut off keeps it.
            config = with_checksum({**head, "run": plain(self.run)})
            write_text(path, yaml.safe_dump({"sha256": config.pop("sha256"), **config}, sort_keys=False), self._allowed)
        (self.path / "error.txt").unlink(missing_ok=True)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def save_checkpoint(self, state: Checkpoint) -> None:
        state.save(self.checkpoint_path, self._allowed)

    def save_snapshot(self, state: Checkpoint, tokens: int) -> None:
        """Keep the model as it is behind so many tokens, for branches to start from."""
        state.save(snapshot_path(self.path, tokens), self._allowed)

    # -- records ----------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, float]) -> None:
        """Add a point to the training curve.

        Raises:
            InputError: it cannot be written.
        """
        self._append(CURVE, values)

    def log_val(self, values: Mapping[str, float]) -> None:
        """The same of the curve on held-out windows; `tokens` have to grow."""
        self._append(VAL_CURVE, values)
        self.last_val_tokens = int(values["tokens"])

    def _append(self, name: str, values: Mapping[str, float]) -> None:
        path = self.path / name
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as fault:
            raise InputError(f"{path}: cannot be written ({fault.strerror}); run again to go on") from None

    def curve(self, name: str = CURVE) -> list[dict[str, float]]:
        """The points of the training curve, or of that on held-out windows (`VAL_CURVE`), none if it was not measured.

        Raises:
            InputError: it is damaged, or there is no training curve.
        """
        path = self.path / name
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as fault:
            if name == VAL_CURVE and not path.exists():
                return []
            raise InputError(f"{path}: not a training curve ({' '.join(str(fault).split())})") from None

    def curve_end(self) -> dict[str, float]:
        """The last whole point of the training curve; empty where none can be read."""
        try:
            whole = (self.path / CURVE).read_bytes().rpartition(b"\n")[0]
            return dict(json.loads(whole.rpartition(b"\n")[2]))
        except (OSError, ValueError, TypeError):
            return {}

    def forget_metrics_after(self, tokens: int) -> None:
        """Drop the points of an interrupted attempt that lie behind the checkpoint it goes on from. Says so where lines
        are damaged, and drops them: nothing is computed from them."""
        self._forget_after(CURVE, tokens)
        self.last_val_tokens = self._forget_after(VAL_CURVE, tokens)

    def _forget_after(self, name: str, tokens: int) -> int:
        """The tokens of the last point that stays; 0 without one."""
        path, points, damaged = self.path / name, [], []
        if not path.exists():
            return 0
        lines = path.read_bytes().splitlines()
        for i, line in enumerate(lines):
            try:
                point = json.loads(line)
                if point["tokens"] <= tokens:
                    points.append(point)
            except (ValueError, TypeError, KeyError):
                damaged.append(i + 1)
        # A killed run may leave half a line at the end; half a line in the middle is damage.
        if damaged and damaged != [len(lines)]:
            note(f"{path}: line {damaged[0]} is not a point of the curve; {len(damaged)} such lines were dropped")
        write_text(path, "".join(json.dumps(point) + "\n" for point in points), self._allowed)
        return int(points[-1]["tokens"]) if points else 0

    def add_windows(self, losses: Mapping[str, np.ndarray]) -> None:
        """Add per-window losses (n,) by the name of their evaluation, and under `documents` the document of each
        window; equal names are replaced."""
        merged = {**self.windows(), **losses}
        tensors = {name: torch.tensor(values) for name, values in merged.items()}
        tensor_files.save(self._windows_path, tensors, allowed=self._allowed)

    def windows(self) -> dict[str, np.ndarray]:
        """What `add_windows` has stored.

        Raises:
            InputError: the file is damaged or another run's.
        """
        if not self._windows_path.exists():
            return {}
        tensors, _ = tensor_files.load(self._windows_path, TRAIN_AGAIN)
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    @property
    def _windows_path(self) -> Path:
        return self.path / "windows.safetensors"

    def add_ptq(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add quantization rows; a row takes the place of an earlier one of the same model and setting."""
        merged = {(row["tokens_seen"], row["setting"]): row for row in [*self.ptq(), *rows]}
        lines = [*merged.values(), {"sha256": checksum([self.path.name, *merged.values()])}]
        write_text(self.path / "ptq.jsonl", "".join(json.dumps(line) + "\n" for line in lines), self._allowed)

    def ptq(self) -> list[dict[str, Any]]:
        """The quantization rows.

        Raises:
            InputError: the file is damaged or another run's.
        """
        path = self.path / "ptq.jsonl"
        if not path.exists():
            return []
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if rows and rows[-1].keys() == {"sha256"}:
                intact = rows.pop() == {"sha256": checksum([self.path.name, *rows])}
            else:
                intact = not _has_checksums(self.path)
            intact = intact and all(row.keys() >= {"tokens_seen", "setting"} for row in rows)
        except (OSError, ValueError, AttributeError):
            intact = False
        if not intact:
            raise InputError(
                f"{path}: damaged, or the file of another run; delete it, and add its rows again with {self.add_rows}"
            )
        return rows

    @property
    def add_rows(self) -> str:
        """The command that adds quantizations."""
        if isinstance(self.run, MeasuredRun):
            return "the command that measured the model"
        return f"python -m scaling.ptq study={self.run.study} runs={self.path.name}"

    def write_result(self, result: Mapping[str, Any]) -> None:
        missing = [k for k, kind in RESULT_FIELDS.items() if not isinstance(result.get(k), kind)]
        assert not missing, missing
        write_text(self.path / "result.json", json.dumps(with_checksum(result), indent=1) + "\n", self._allowed)

    def result(self) -> dict[str, Any] | None:
        """The result, or None while the run is unfinished (or its result does not validate)."""
        return read_result(self.path)

    def finished(self) -> dict[str, Any]:
        """The result of a run whose result.json is there.

        Raises:
            InputError: it does not validate.
        """
        result = self.result()
        if result is None:
            path = self.path / "result.json"
            raise InputError(f"{path}: damaged, or of another run; delete it to train the run again")
        return result


def snapshot_path(folder: Path, tokens: int) -> Path:
    """Where a run folder keeps the snapshot that was asked for at `tokens`."""
    return folder / "snapshots" / f"{tokens}.safetensors"


def parent_snapshot(run: Run) -> Path:
    """The snapshot from which a run branches.

    Raises:
        InputError: there is no such run in its study, or it has no such snapshot.
    """
    folder = RunFolder(run).path.parent / run.branch.parent
    path = snapshot_path(folder, run.branch.tokens)
    if path.exists():
        return path
    if not (folder / "config.yaml").exists():
        raise InputError(f"branch.parent={run.branch.parent}: no such run in {folder.parent}, nor in what is asked for")
    there = sorted(int(file.stem) for file in path.parent.glob("*.safetensors") if file.stem.isdecimal())
    has = ", ".join(map(str, there)) or "none"
    raise InputError(f"branch.tokens={run.branch.tokens}: {run.branch.parent} has no such snapshot; it has {has}")


def trunk_of(folder: Path) -> str:
    """run_id at the root of the branches that led to this run: its own where it did not branch.

    Raises:
        InputError: a config on the way is missing or damaged.
    """
    # Ends: a run's id is a hash of its parent's, and folders are named by their ids.
    while parent := stored_run(folder).branch.parent:
        folder = folder.parent / parent
    return folder.name


def stored_run(folder: Path) -> Run | MeasuredRun:
    """The run whose config a folder holds.

    Raises:
        InputError: the config is missing, damaged, or that of a run that the folder is not named by.
    """
    path, values = folder / "config.yaml", _stored_config(folder)
    try:
        run = build_stored(values["run"])
    except (TypeError, ValueError, KeyError) as fault:
        raise _not_a_config(path, fault) from None
    if run.run_id != folder.absolute().name:
        raise InputError(
            f"{path}: is of the run {run.run_id}, and its folder has another name; name it back, or move a copy away"
        )
    return run


def _stored_config(folder: Path) -> dict[str, Any]:
    """What config.yaml says, verified as far as its checksum goes."""
    path = folder / "config.yaml"
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        # Where a bit flips in the name of the checksum, it is an unknown key.
        if not isinstance(values, dict) or not values.keys() <= {*CONFIG_KEYS, "sha256"}:
            raise ValueError("other keys are expected")
        if not is_intact(values):
            raise ValueError("its checksum is another, so it was damaged or edited")
    except (OSError, yaml.YAMLError, TypeError, ValueError) as fault:
        raise _not_a_config(path, fault) from None
    return values


def _not_a_config(path: Path, fault: Exception) -> InputError:
    reason = (str(fault) or type(fault).__name__).splitlines()[0]
    return InputError(f"{path}: not the config of a run ({reason}); move the folder away")


def _has_checksums(folder: Path) -> bool:
    """Whether a folder was begun by a version that gives all files checksums. False where the config cannot be read:
    reading the run reports that."""
    try:
        return "sha256" in _stored_config(folder)
    except InputError:
        return False


def read_result(folder: Path) -> dict[str, Any] | None:
    """result.json of a run folder, without its checksum, if it is there and validates."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    valid = isinstance(result, dict) and all(isinstance(result.get(k), kind) for k, kind in RESULT_FIELDS.items())
    if not valid or result["schema"] != SCHEMA or result["run_id"] != folder.absolute().name:
        return None
    if not is_intact(result) or ("sha256" not in result and _has_checksums(folder)):
        return None
    return {name: value for name, value in result.items() if name != "sha256"}
