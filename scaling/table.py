"""Collects run folders into the tidy table: one row an evaluated model, everything that an analysis needs in its
columns.

A run has one row for each token count at which it was evaluated (its end, and snapshots), with `ptq` empty, and one for
each quantization of that model. N counts parameters without embedding and head, D is the run's horizon in tokens,
losses are in nats a token, P counts bits (16 where unquantized). `gap` is the loss minus that of the same checkpoint
before quantization, `gap_qat` the loss minus that of the unquantized run with the same everything else at the same
token count; both are paired over windows, and standard errors are clustered by document.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.config import Run
from scaling.errors import InputError
from scaling.evaluate import clustered_mean
from scaling.formats import Format, parse
from scaling.measure import evaluation_name
from scaling.model import is_block_weight, parts_of
from scaling.runs import RunFolder, read_result, replacing, stored_run

SCALE_BYTES = 2  # one 16-bit scale a group
PLAIN_BYTES = 2  # what is not quantized is kept in bf16


@dataclasses.dataclass(frozen=True)
class _Folder:
    path: Path
    run: Run
    result: dict[str, Any]


def collect(study_folder: Path, out: Path) -> int:
    """Write the table of all finished runs under `study_folder` to the CSV `out`; returns its number of rows.

    Raises:
        InputError: no finished run there, or a folder is damaged.
    """
    folders = {folder.path.name: folder for folder in _finished(study_folder)}
    rows = [row for folder in folders.values() for row in _rows(folder, folders)]
    if not rows:
        raise InputError(f"{study_folder}: no finished run; train some with python -m scaling.train")
    order = ["N", "D", "run_id", "tokens_seen", "ptq", "granularity_post", "P_post", "format_post"]
    frame = pd.DataFrame(rows).sort_values(order, na_position="first", kind="stable")
    with replacing(out) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
    return len(frame)


def _finished(study_folder: Path) -> Iterator[_Folder]:
    for path in sorted(study_folder.glob("*/result.json")):
        result = read_result(path.parent)
        if result is None:
            raise InputError(f"{path}: not the result of a run; delete it to train the run again")
        yield _Folder(path.parent, stored_run(path.parent), result)


def _rows(folder: _Folder, folders: dict[str, _Folder]) -> Iterator[dict[str, Any]]:
    constant = _constant_columns(folder)
    records = RunFolder.at(folder.path)
    quantizations = records.ptq()
    # A run that diverged before its first evaluation still has a row: it was tried.
    for evaluation in folder.result["evaluations"] or [{"tokens_seen": folder.run.D}]:
        tokens = evaluation["tokens_seen"]
        yield {
            **constant,
            **evaluation,
            **_qat_gap(folder, folders.get(folder.result["base_run_id"]), tokens),
            "bytes": model_bytes(folder.run, folder.result["vocab_size"], parse(folder.run.precision.weights)),
        }
        for row in quantizations:
            if row["tokens_seen"] == tokens:
                fmt, granularity = parse(row["format_post"]), row["granularity_post"]
                size = model_bytes(folder.run, folder.result["vocab_size"], fmt, granularity)
                yield {**constant, **{k: v for k, v in row.items() if k != "setting"}, "bytes": size}


def _constant_columns(folder: _Folder) -> dict[str, Any]:
    """What all rows of a run share, and the columns that only some rows fill, in the table's order."""
    run, result = folder.run, folder.result
    parameters, precision = result["parameters"], run.precision
    rate, decay = run.lr_peak, run.optimizer.weight_decay
    quantized = parameters["N"] if parse(precision.weights).quantizes else 0
    return {
        "run_id": result["run_id"],
        "base_run_id": result["base_run_id"],
        "parent_id": result["parent_id"],
        "trunk_id": result["trunk_id"],
        "cluster": f"n{run.N}-s{run.seed_init}.{run.seed_data}",
        "study": run.study,
        "seed_init": run.seed_init,
        "seed_data": run.seed_data,
        "N": parameters["N"],
        "N_emb": parameters["embedding"] + parameters["head"],
        "N_total": parameters["N_total"],
        "N_quantized": quantized,
        "d_model": run.model.d_model,
        "n_layers": run.model.n_layers,
        "n_heads": run.model.n_heads,
        "bytes": None,
        "D": run.D,
        "tokens_seen": None,
        "unique_tokens": result["unique_tokens"],
        "corpus": run.data.corpus.kind,
        "data_sha": result["data_sha"][:16],
        "eval_sha": result["eval_sha"][:16],
        "calib_sha": None,
        "schedule": run.schedule.kind,
        "lr_peak": rate,
        "lr_end": rate * (1.0 if run.schedule.kind == "constant" else run.schedule.end_fraction),
        "warmup_tokens": run.schedule.warmup_tokens,
        "decay_tokens": run.schedule.decay_tokens,
        "batch_tokens": run.data.batch_tokens,
        "steps": run.steps,
        "weight_decay": decay,
        "tau": run.data.batch_tokens / (rate * decay) if decay else None,
        "P_w": parse(precision.weights).bits,
        "P_a": parse(precision.activations).bits,
        "P_kv": parse(precision.kv).bits,
        "format_w": precision.weights,
        "format_a": precision.activations,
        "format_kv": precision.kv,
        "granularity_w": precision.granularity_weights,
        "granularity_a": precision.granularity_activations,
        "granularity_kv": precision.granularity_kv,
        "estimator": precision.estimator,
        "rounding": precision.rounding,
        "ptq": None,
        "P_post": None,
        "format_post": None,
        "granularity_post": None,
        "scale_rule": None,
        "loss": None,
        "loss_se": None,
        "gap": None,
        "gap_se": None,
        "gap_qat": None,
        "gap_qat_se": None,
        "n_windows": result["n_windows"],
        "n_docs": result["n_docs"],
        "diverged": result["diverged"],
        "device": result["device"],
        "dtype": result["dtype"],
        "commit": result["commit"],
        "seconds": round(result["seconds"], 3),
    }


def _qat_gap(folder: _Folder, base: _Folder | None, tokens: int) -> dict[str, float]:
    """Paired difference to the unquantized run, where that is in the study and saw the same windows."""
    if base is None or base.path == folder.path or base.result["eval_sha"] != folder.result["eval_sha"]:
        return {}
    ours, theirs = RunFolder.at(folder.path).windows(), RunFolder.at(base.path).windows()
    name = evaluation_name(tokens)
    if name not in ours or name not in theirs:
        return {}
    gap, gap_se = clustered_mean(ours[name] - theirs[name], ours["documents"])
    return {"gap_qat": gap, "gap_qat_se": gap_se}


def model_bytes(run: Run, vocab_size: int, fmt: Format, granularity: str | None = None) -> int:
    """Bytes of a model whose block weights are stored in `fmt`, scales (16 bits a group) and 16-bit embeddings
    included.

    `granularity` is that of training unless given.
    """
    granularity = granularity or run.precision.granularity_weights
    total = 0.0
    for name, (rows, columns) in run.model.shapes(vocab_size).items():
        if not is_block_weight(name) or not fmt.quantizes:
            total += rows * columns * PLAIN_BYTES
            continue
        groups = {"tensor": parts_of(name), "channel": rows}.get(granularity)
        groups = groups or rows * columns // int(granularity.removeprefix("block"))
        total += rows * columns * fmt.bits / 8 + groups * SCALE_BYTES
    return round(total)
