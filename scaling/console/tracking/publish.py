"""A study's table, fits and figures as one artifact of W&B, and the workspace in which its runs are looked at.

The artifact is that of a W&B run of its own, whose id is a hash of its content: what is published already is not
uploaded again, nor written again offline.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scaling.config.tracking import Mode, TrackingConfig
from scaling.console.terminal import note
from scaling.console.tracking.files import exit_code
from scaling.console.tracking.runs import finish, quiet, ready
from scaling.console.tracking.workspace import sections, workspace
from scaling.errors import InputError

TABLE = "runs.csv"
PARTS = {TABLE: "sweep collect", "fits.json": "analysis fit", "figures": "analysis figures"}
"""What an artifact should hold, and the command that makes it."""
VARIED = {
    "P_w": "precision.weights",
    "P_a": "precision.activations",
    "P_kv": "precision.kv",
    "schedule": "schedule.kind",
    "lr_peak": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "batch_tokens": "data.batch_tokens",
}
"""Columns of the table that may be axes of parallel coordinates, and the settings that they come from."""
PATIENCE = 600.0
"""Seconds for an upload."""


class Published(NamedTuple):
    artifact: str
    files: int
    digest: str
    """Of the content of all files and their names."""
    new: bool
    """Whether it was not published before."""
    mode: Mode
    workspace: str | None
    """Its address, where one is."""


def publish(study: str, results: Path, out: Path, tracking: TrackingConfig) -> Published:
    """Publish the folder of a study's results.

    Args:
        results: table, fits and figures.
        out: the folder of the study's runs, below which W&B's files lie.

    Raises:
        InputError: there is no table, tracking is off, or W&B cannot do it; nothing is lost then.
    """
    mode = tracking.wanted()
    if mode == "off":
        raise InputError("tracking.mode=off: publishing needs W&B; use offline or online")
    files = list(_files(results))
    if TABLE not in dict(files):
        raise InputError(f"{results / TABLE}: not there; make it with python -m scaling.sweep collect {study}")
    lacking = [f"{part} ({by})" for part, by in PARTS.items() if not any(n.split("/")[0] == part for n, _ in files)]
    if lacking:
        note(f"{results}: published without {', '.join(lacking)}")
    try:
        return _published(study, files, out, tracking, mode)
    except InputError:
        raise
    except Exception as fault:
        why = " ".join(str(fault).split()) or type(fault).__name__
        hint = "; WANDB_MODE=offline writes files for `wandb sync`" if mode == "online" else ""
        raise InputError(f"W&B: {why}{hint}") from None


def _files(results: Path) -> Iterator[tuple[str, Path]]:
    """Names in the artifact, and files: all of the folder that are its own and not half-written."""
    root = results.resolve()
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        inside = root in path.resolve().parents
        if path.is_file() and inside and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def _published(
    study: str, files: Sequence[tuple[str, Path]], out: Path, tracking: TrackingConfig, mode: Mode
) -> Published:
    wandb = ready(out / "wandb")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", study)
    columns = _columns(dict(files)[TABLE])
    settings = [key for key in columns.get("setting", ()) if key]
    metadata = {"study": study, "rows": len(columns.get("run_id", ())), "runs": len(set(columns.get("run_id", ())))}
    artifact = wandb.Artifact(name, type="study", description=f"Table, fits and figures of {study}", metadata=metadata)
    for in_artifact, path in files:
        artifact.add_file(str(path), name=in_artifact)
    digest, project = artifact.digest, tracking.in_project()
    place = json.dumps([tracking.entity, project, study, digest])
    run_id = f"publish-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
    known = _is_published(out / "wandb", run_id, mode)
    address = None
    if not known:
        run = wandb.init(
            mode=mode,
            project=project,
            entity=tracking.entity,
            group=tracking.in_group(study),
            job_type="publish",
            tags=list(tracking.tags) or None,
            notes=tracking.notes,
            id=run_id,
            name=f"{study}: table, fits, figures"[:128],
            config={"study": study, "digest": digest},
            dir=out,
            reinit="create_new",
            settings=quiet(tracking.init_timeout, PATIENCE),
        )
        try:
            uploaded = run.log_artifact(artifact)
            if mode == "online":
                uploaded.wait(timeout=int(PATIENCE))
        except BaseException:
            finish(run, failed=True)
            raise
        entity = run.entity
        finish(run)
        if mode == "online":
            varied = [of for column, of in VARIED.items() if len(set(columns.get(column, ()))) > 1]
            address = _workspace(entity, project, study, tracking.in_group(study), settings, varied, out / "wandb")
    return Published(name, len(files), digest, not known, mode, address)


def _columns(table: Path) -> dict[str, list[str]]:
    """The table as text, by column."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}


def _is_published(folder: Path, run_id: str, mode: Mode) -> bool:
    """Whether files of an earlier command say so: of an upload where one is asked for, else of either kind."""
    pattern = "run-*" if mode == "online" else "*run-*"
    return any(exit_code(path) == 0 for path in folder.glob(f"{pattern}/run-{run_id}.wandb"))


def _workspace(
    entity: str, project: str, study: str, group: str, settings: Sequence[str], varied: Sequence[str], folder: Path
) -> str | None:
    """The address of the study's saved workspace, made where none is known; a line says why there is none."""
    known = folder / "workspace.json"
    try:
        addresses: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        addresses = {}
    key = f"{entity}/{project}"
    if key not in addresses:
        try:
            made = workspace(entity, project, study, group, sections(settings, varied))
        except ImportError:
            note("W&B: no workspace is saved without the package wandb-workspaces: pip install -e '.[wandb]'")
            return None
        try:
            addresses[key] = made.save().url
        except Exception as fault:
            note(f"W&B: the workspace was not saved ({' '.join(str(fault).split()) or type(fault).__name__})")
            return None
        known.write_text(json.dumps(addresses, indent=1) + "\n", encoding="utf-8")
    return addresses[key]
