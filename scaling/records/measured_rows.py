"""Rows of the table for models that others trained. What only their training could say, and nobody knows, is empty."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.schedule import share_of_peak
from scaling.quantization.normal_error import over_matrices
from scaling.quantization.spec import QuantSpec
from scaling.records.columns import COLUMNS, declared
from scaling.records.model_bytes import PLAIN_BYTES, matrix_bytes

LETTERS = {"w": "weights", "a": "activations", "kv": "kv", "q": "queries", "emb": "embedding", "head": "head"}
Row = Mapping[str, Any]


def bits_per_byte(result: Row, evaluation: Row) -> dict[str, float | None]:
    """The loss of an evaluation in bits a byte, where the result says how long tokens are."""
    loss, size = evaluation.get("loss"), result.get("bytes_per_token")
    return {"bits_per_byte": loss / math.log(2) / size if loss is not None and size else None}


def rows_of_measured(run: MeasuredRun, result: Row, quantizations: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """A row of the model as it is, and one for each quantization.

    Raises:
        KeyError, TypeError, ValueError: the records say something else than this version writes.
    """
    constant = _constant_columns(run, result)
    plain = run.precision.spec("weights")
    for row in (*result["evaluations"], *quantizations):
        own = {**constant, **row, **bits_per_byte(result, row), "tokens_seen": run.D}
        if "setting" not in row:
            yield {**own, "bytes": _bytes(result, plain)}
            continue
        spec = QuantSpec.of(row["format_post"], row["granularity_post"], row["scale_rule"])
        sigma2, group = over_matrices(_each(result), spec)
        post = {"sigma2_post": sigma2, "group_post": group, "share_post": result["share_post"]}
        yield {**own, **post, "bytes": _bytes(result, spec), "short_blocks": _short_blocks(result, spec)}


def _each(result: Row) -> list[tuple[int, int, int]]:
    """(rows, columns, 1) of every matrix that is quantized. A fused one counts as it is stored, as one."""
    return [(rows, columns, 1) for _, rows, columns, count in result["matrices"] for _ in range(count)]


def _bytes(result: Row, spec: QuantSpec) -> int:
    """What is quantized in its format with scales, the rest in 16 bits."""
    parameters = result["parameters"]
    plain = parameters["N_total"] - sum(rows * columns for rows, columns, _ in _each(result))
    matrices = sum(count * matrix_bytes(spec, rows, columns, 1) for _, rows, columns, count in result["matrices"])
    return round(plain * PLAIN_BYTES + matrices)


def _short_blocks(result: Row, spec: QuantSpec) -> str | None:
    if not spec.block:
        return None
    return ",".join(kind for kind, _, columns, _ in result["matrices"] if columns % spec.block) or None


def _constant_columns(run: MeasuredRun, result: Row) -> dict[str, Any]:
    parameters, checkpoint = result["parameters"], run.checkpoint
    specs = {letter: run.precision.spec(part) for letter, part in LETTERS.items()}
    schedule = checkpoint.schedule
    known = {
        "run_id": result["run_id"],
        "base_run_id": result["base_run_id"],
        "trunk_id": result["trunk_id"],
        "cluster": checkpoint.series,
        "study": run.study,
        "source": checkpoint.source,
        "N": parameters["N"],
        "N_emb": parameters["embedding"] + parameters["head"],
        "N_total": parameters["N_total"],
        "N_quantized": 0,
        **result["shape"],
        "D": run.D,
        "corpus": run.data.corpus.kind,
        "bytes_per_token": result["bytes_per_token"],
        "data_sha": result["data_sha"][:16],
        "eval_sha": result["eval_sha"][:16],
        "schedule": schedule and schedule.kind,
        "warmup_tokens": schedule and schedule.warmup_tokens,
        "decay_tokens": schedule and schedule.decay_tokens,
        "batch_tokens": checkpoint.tokens_per_step,
        **{f"P_{letter}": spec.format.bits for letter, spec in specs.items()},
        "P_g": 16,
        **{f"format_{letter}": spec.format.name for letter, spec in specs.items()},
        **{f"sigma2_{letter}": 0.0 for letter in ("w", "a", "kv")},
        "n_windows": result["n_windows"],
        "n_docs": result["n_docs"],
        "diverged": result["diverged"],
        "device": result["device"],
        "dtype": result["dtype"],
        "commit": result["commit"],
        "seconds": round(result["seconds"], 3),
    }
    names = [column.name for column in COLUMNS if "run" in column.rows.split()]
    return {**declared("run", {**dict.fromkeys(names), **known}), "lr_share": _lr_share(run)}


def _lr_share(run: MeasuredRun) -> float | None:
    c = run.checkpoint
    if c.schedule is None or c.tokens is None or (c.total_tokens is None and c.schedule.falls):
        return None
    return share_of_peak(c.schedule, c.tokens, c.tokens_per_step or 1, c.total_tokens or c.tokens)
