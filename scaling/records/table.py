"""Collects run folders into the tidy table: one row an evaluated model, everything that an analysis needs in its
columns.

A run has one row for each token count at which it was evaluated (its end, and snapshots), with `ptq` empty, and one for
each quantization of that model. N counts parameters without embedding and head, D is the run's horizon in tokens,
losses are in nats a token, P counts bits (16 where unquantized). `gap` is the loss minus that of the same checkpoint
before quantization, `gap_qat` the loss minus that of the unquantized run with the same everything else at the same
token count; both are paired over windows, and standard errors are clustered by document.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.config.model import is_block_weight, parts_of
from scaling.config.precision import KEYS, Precision
from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.run import Run
from scaling.config.schedule import share_of_peak
from scaling.console.cli import UnfinishedError
from scaling.console.terminal import note
from scaling.errors import InputError
from scaling.quantization.normal_error import over_matrices
from scaling.quantization.skip import BETWEEN, is_skipped
from scaling.quantization.spec import QuantSpec
from scaling.records.columns import NAMES, declared
from scaling.records.files import write_text
from scaling.records.measured_rows import bits_per_byte, rows_of_measured
from scaling.records.merge import as_written, ordered, with_rows_of, write, write_sha
from scaling.records.model_bytes import model_bytes, short_blocks
from scaling.records.run_folder import TRAIN_AGAIN, RunFolder
from scaling.records.window_losses import clustered_mean, evaluation_name
from scaling.records.writer import holder


@dataclasses.dataclass(frozen=True)
class _Folder:
    path: Path
    run: Run | MeasuredRun
    result: dict[str, Any]
    windows: dict[str, np.ndarray]
    """Losses of the models that were not quantized, and their documents."""
    quantizations: list[dict[str, Any]]


Settings = Callable[[Run | MeasuredRun], Sequence[str]]
"""The names of the quantizations that a run's config asks for, of each model that it evaluates."""


def collect(
    study_folder: Path,
    out: Path,
    others: Sequence[Path] = (),
    settings: Settings | None = None,
    *,
    named: Collection[str] | None = None,
    prune: bool = False,
) -> int:
    """Write the table of all finished runs under `study_folder` to the CSV `out`, with those rows of the tables
    `others` (of other machines) whose runs are not there, and beside it its sha256, and provenance.json: with what how
    many of the runs were made. Returns its number of rows.

    A damaged folder is left out, a run that lacks rows is in the table with those that it has; a line says so of each.
    Without `settings` nothing is known to be missing: what came from another machine may have left its windows there.
    Says how many runs are not among those that the study's file has `named` (ids; None: no such file), which were
    trained before it was edited; with `prune` these are left out.

    Raises:
        InputError: no finished run there, or another table has not these columns. Nothing was written.
        UnfinishedError: the table was written, but runs are left out of it or lack rows.
    """
    folders, rows, faults = _read(study_folder, settings)
    for line in faults:
        note(line)
    if not rows:
        raise InputError(f"{study_folder}: no finished run; train some with python -m scaling.train")
    frame = as_written(pd.DataFrame(rows, columns=NAMES))
    for path in others:
        frame = with_rows_of(path, frame)
    if named is not None:
        frame = _as_named(frame, named, prune)
    write(ordered(frame), out)
    write_sha(out)
    versions = {name: folder.result.get("versions") for name, folder in folders.items()}
    write_text(out.with_name("provenance.json"), json.dumps(_provenance(frame, versions), indent=1) + "\n")
    if faults:
        raise UnfinishedError(f"{out}: {len(frame)} rows; what {len(faults)} lines name is not in it")
    return len(frame)


def _as_named(frame: pd.DataFrame, named: Collection[str], prune: bool) -> pd.DataFrame:
    """The rows of runs that a study names, and the others unless `prune`, with a line that says how many."""
    own = frame["run_id"].isin(named)
    if own.all():
        return frame
    what = f"{frame['run_id'][~own].nunique()} runs ({(~own).sum()} rows) are none that the study names"
    if not prune:
        note(f"{what}; --prune leaves them out of the table")
        return frame
    if not own.any():
        raise InputError(f"{what}, and there are no others; nothing was written")
    note(f"{what}, and are left out of the table")
    return frame[own]


def _provenance(frame: pd.DataFrame, versions: Mapping[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Runs, hours and versions (null for runs of other tables) by commit, device and dtype."""
    entries: dict[str, dict[str, Any]] = {}
    for run in frame.drop_duplicates("run_id").to_dict("records"):
        made: dict[str, Any] = {name: run[name] or None for name in ("commit", "device", "dtype")}
        made["versions"] = versions.get(run["run_id"])
        entry = entries.setdefault(json.dumps(made, sort_keys=True), {**made, "runs": 0, "hours": 0.0})
        entry["runs"] += 1
        entry["hours"] += float(run["seconds"] or 0) / 3600
    return [{**entry, "hours": round(entry["hours"], 3)} for _, entry in sorted(entries.items())]


def planned(runs: Sequence[Run], out: Path) -> int:
    """Write N, D and the bits in training of so many runs to the CSV `out`, each once: what can be predicted before
    anything is trained. Returns the number of rows."""
    parts = {"P_w": "weights", "P_a": "activations", "P_kv": "kv"}
    rows = [
        {"N": run.N, "D": run.D} | {column: run.precision.format(part).bits for column, part in parts.items()}
        for run in runs
    ]
    frame = pd.DataFrame(rows).drop_duplicates().sort_values(["N", "D", *parts])
    write(as_written(frame), out)
    return len(frame)


def _read(study_folder: Path, settings: Settings | None) -> tuple[dict[str, _Folder], list[dict[str, Any]], list[str]]:
    """The finished runs by their ids, all their rows, and a line for whatever is damaged or missing."""
    folders, rows, faults = {}, [], []
    for path in sorted(study_folder.glob("*/result.json")):
        try:
            folder = _folder(path.parent)
        except InputError as fault:
            faults.append(str(fault))
            continue
        folders[folder.path.name] = folder
        if settings and (missing := _missing(folder, settings(folder.run))):
            faults.append(missing)
    for name, folder in list(folders.items()):
        try:
            if isinstance(folder.run, MeasuredRun):
                of_run = list(rows_of_measured(folder.run, folder.result, folder.quantizations))
            else:
                of_run = list(_rows(folder, folders))
            if unknown := sorted(set().union(*of_run) - set(NAMES)):
                raise InputError(f"{folder.path}: was made by a later version, which has {', '.join(unknown)} as well")
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            # Files without a checksum may say anything.
            of_file = f"{folder.path}: damaged ({type(fault).__name__}: {fault}); {TRAIN_AGAIN}"
            faults.append(str(fault) if isinstance(fault, InputError) else of_file)
            del folders[name]
        else:
            rows += of_run
    return folders, rows, faults


def _folder(path: Path) -> _Folder:
    """A finished run with its records.

    Raises:
        InputError: a file of it is damaged, the folder is a copy of another, or a process is adding to it.
    """
    if who := holder(path):
        raise InputError(f"{path}: {who} is writing to it; collect again when that has ended")
    records = RunFolder.at(path)
    result = records.finished()
    windows = {name: values for name, values in records.windows().items() if "/" not in name}
    return _Folder(path, records.run, result, windows, records.ptq())


def _missing(folder: _Folder, settings: Sequence[str]) -> str | None:
    """Which rows a run lacks of those that its config asks for, and what to do, in one line."""
    run = folder.run
    if folder.result["diverged"]:
        return None
    expected = run.evaluated_tokens
    evaluated = {evaluation.get("tokens_seen") for evaluation in folder.result["evaluations"]}
    if unseen := [tokens for tokens in expected if tokens not in evaluated]:
        return f"{folder.path}: was never evaluated at {_some(unseen)} tokens; {TRAIN_AGAIN}"
    names = [evaluation_name(tokens) for tokens in expected]
    if unknown := [name for name in (*names, "documents") if name not in folder.windows]:
        return f"{folder.path / 'windows.safetensors'}: missing, or lacks {_some(unknown)}; {TRAIN_AGAIN}"
    there = {(row["tokens_seen"], row["setting"]) for row in folder.quantizations}
    wanted = [(tokens, setting) for tokens in expected for setting in settings]
    if lacking := [evaluation_name(*row) for row in wanted if row not in there]:
        rows = f"{len(lacking)} of {len(wanted)} rows are missing ({_some(lacking)})"
        return f"{folder.path / 'ptq.jsonl'}: {rows}; add them with {RunFolder(run, folder.path).add_rows}"
    return None


def _some(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")


def _rows(folder: _Folder, folders: dict[str, _Folder]) -> Iterator[dict[str, Any]]:
    constant = _constant_columns(folder)
    # A run that diverged before its first evaluation still has a row: it was tried.
    for evaluation in folder.result["evaluations"] or [{"tokens_seen": folder.run.D}]:
        tokens = evaluation["tokens_seen"]
        trained = folder.run.precision.spec("weights")
        gap = _qat_gap(folder, folders.get(folder.result["base_run_id"]), tokens)
        constant["lr_share"] = share_of_peak(folder.run.schedule, tokens, folder.run.data.batch_tokens, folder.run.D)
        own = {**gap, **bits_per_byte(folder.result, evaluation), **_stored(folder, trained, folder.run.skip)}
        yield {**constant, **evaluation, **own}
        for row in folder.quantizations:
            if row["tokens_seen"] == tokens:
                stored = QuantSpec.of(row["format_post"], row["granularity_post"], row["scale_rule"])
                skip = (row.get("skip_post") or "").split(BETWEEN)
                tables = {"embedding": row.get("format_post_emb"), "head": row.get("format_post_head")}
                named = {part: QuantSpec.of(name) for part, name in tables.items() if name}
                own = {**bits_per_byte(folder.result, row), **_stored(folder, stored, skip, named)}
                yield {**constant, **row, **own, **_post(folder.run, stored, skip)}


def _stored(
    folder: _Folder, spec: QuantSpec, skip: Sequence[str], tables: Mapping[str, QuantSpec] | None = None
) -> dict[str, Any]:
    shapes = folder.run.model.shapes(1)
    columns = {name: columns for name, (_, columns) in shapes.items() if is_block_weight(name)}
    return {
        "bytes": model_bytes(folder.run, folder.result["vocab_size"], spec, skip=skip, **tables or {}),
        "short_blocks": short_blocks(columns, spec, skip) or None,
    }


def _post(run: Run, spec: QuantSpec, skip: Sequence[str]) -> dict[str, float]:
    sigma2, group = over_matrices(_matrices(run, skip), spec)
    shapes = {name: math.prod(shape) for name, shape in run.model.shapes(1).items() if is_block_weight(name)}
    covered = sum(size for name, size in shapes.items() if not is_skipped(name, skip))
    return {"sigma2_post": sigma2, "group_post": group, "share_post": covered / run.N}


def _matrices(run: Run, skip: Sequence[str] = ()) -> list[tuple[int, int, int]]:
    """(rows, columns, matrices stored in it) of each block matrix that is not skipped; of all, where all are."""
    shapes = {name: shape for name, shape in run.model.shapes(1).items() if is_block_weight(name)}
    names = [name for name in shapes if not is_skipped(name, skip)] or shapes
    return [(*shapes[name], parts_of(name)) for name in names]


def _constant_columns(folder: _Folder) -> dict[str, Any]:
    """What all rows of a run share."""
    run, result = folder.run, folder.result
    parameters, precision = result["parameters"], run.precision
    rate, decay = run.lr_peak, run.optimizer.weight_decay
    shapes = run.model.shapes(1)
    skipped = sum(math.prod(shapes[name]) for name in run.model.block_names if is_skipped(name, run.skip))
    quantized = parameters["N"] - skipped if precision.format("weights").quantizes else 0
    values = {
        "run_id": result["run_id"],
        "base_run_id": result["base_run_id"],
        "parent_id": result["parent_id"],
        "trunk_id": result["trunk_id"],
        "cluster": f"n{run.N}-s{run.seed_init}.{run.seed_data}",
        "study": run.study,
        "source": None,
        "seed_init": run.seed_init,
        "seed_data": run.seed_data,
        "N": parameters["N"],
        "N_emb": parameters["embedding"] + parameters["head"],
        "N_total": parameters["N_total"],
        "N_quantized": quantized,
        "d_model": run.model.d_model,
        "n_layers": run.model.n_layers,
        "n_heads": run.model.n_heads,
        "D": run.D,
        "unique_tokens": result["unique_tokens"],
        "corpus": run.data.corpus.kind,
        "bytes_per_token": result.get("bytes_per_token"),  # results of earlier versions do not say
        "data_sha": result["data_sha"][:16],
        "eval_sha": result["eval_sha"][:16],
        "schedule": run.schedule.kind,
        "lr_peak": rate,
        "lr_end": rate * (run.schedule.end_fraction if run.schedule.falls else 1.0),
        "warmup_tokens": run.schedule.warmup_tokens,
        "decay_tokens": run.schedule.decay_tokens,
        "batch_tokens": run.data.batch_tokens,
        "steps": run.steps,
        "weight_decay": decay,
        "tau": run.data.batch_tokens / (rate * decay) if decay else None,
        **_precision_columns(run),
        "n_windows": result["n_windows"],
        "n_docs": result["n_docs"],
        "diverged": result["diverged"] or not all(math.isfinite(e["loss"]) for e in result["evaluations"][-1:]),
        "device": result["device"],
        "dtype": result["dtype"],
        "commit": result["commit"],
        "seconds": round(result["seconds"], 3),
    }
    return declared("run", values)


def _precision_columns(run: Run) -> dict[str, Any]:
    """Training precision: bits, format, granularity, scale rule and error on normal values of each part, as they came
    into effect."""
    precision = run.precision
    letters = {"w": "weights", "a": "activations", "kv": "kv", "q": "queries", "emb": "embedding", "head": "head"}
    specs = {letter: precision.spec(part) for letter, part in letters.items()}
    scaled = {letter: specs[letter] for letter in ("w", "a", "kv")}
    matrices = _matrices(run, run.skip)
    sigma2_w, group_w = over_matrices(matrices, specs["w"])
    # What an activation or a cached vector shares its scale with: its row of a matmul input, or all rows of a batch.
    inputs = [(run.data.batch_tokens, columns, 1) for _, columns, _ in matrices]
    sigma2_a, group_a = over_matrices(inputs, specs["a"])
    cached = [(run.data.batch_tokens * run.model.n_heads, run.model.head_dim, 1)]
    by_channel = [(run.batch_size * run.model.d_model, run.data.sequence_length, 1)]
    sigma2_keys = over_matrices(by_channel if precision.keys_by_channel else cached, precision.spec(KEYS))[0]
    gradients = [precision.format(part) for part in ("dx_gradients", "dw_gradients")]
    backward = precision.quantized_backward()
    return {
        **{f"P_{letter}": s.format.bits for letter, s in specs.items()},
        "P_g": min(f.bits for f in gradients),
        **{f"format_{letter}": s.format.name for letter, s in specs.items()},
        "backward": " ".join(f"{part}={name}" for part, name in backward.items()) or None,
        **{f"granularity_{letter}": s.granularity for letter, s in scaled.items()},
        "granularity_keys": precision.own_granularity_keys,
        "skip": BETWEEN.join(run.skip) or None,
        **{f"scale_rule_{letter}": s.scale_rule for letter, s in scaled.items()},
        "sigma2_w": sigma2_w,
        "group_w": group_w,
        "sigma2_a": sigma2_a,
        "group_a": group_a,
        "sigma2_kv": (over_matrices(cached, specs["kv"])[0] + sigma2_keys) / 2,
        "granularity_backward": precision.granularity_backward if backward else None,
        "scale_rule_backward": _rule_backward(precision) if backward else None,
        "estimator": precision.estimator,
        "rounding": precision.rounding,
        "rounding_backward": precision.rounding_backward if backward else None,
    }


def _rule_backward(precision: Precision) -> str:
    """The scale rule of the backward operands by its one name; auto stays, as it is another for each operand."""
    rule = precision.scale_rule_backward.strip().lower()
    return rule if rule == "auto" else precision.spec("dx_gradients").scale_rule


def _qat_gap(folder: _Folder, base: _Folder | None, tokens: int) -> dict[str, float]:
    """Paired difference to the unquantized run, where that is in the study and saw the same windows."""
    if base is None or base.path == folder.path or base.result["eval_sha"] != folder.result["eval_sha"]:
        return {}
    ours, theirs, name = folder.windows, base.windows, evaluation_name(tokens)
    if name not in ours or name not in theirs:
        return {}
    gap, gap_se = clustered_mean(ours[name] - theirs[name], ours["documents"])
    return {"gap_qat": gap, "gap_qat_se": gap_se}
