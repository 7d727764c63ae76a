"""Rows of the table for models that others trained. What only their training could say, and nobody knows, is empty."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.schedule import share_of_peak
from scaling.quantization.normal_error import over_matrices
from scaling.quantization.skip import BETWEEN, is_skipped
from scaling.quantization.spec import QuantSpec
from scaling.records.columns import COLUMNS, declared
from scaling.records.model_bytes import PLAIN_BYTES, matrix_bytes, short_blocks

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
        skip = (row.get("skip_post") or "").split(BETWEEN)
        matrices = [(rows, columns, 1) for name, rows, columns in result["matrices"] if not is_skipped(name, skip)]
        sigma2, group = over_matrices(matrices or _all(result), spec)
        share = sum(rows * columns for rows, columns, _ in matrices) / result["parameters"]["N"]
        post = {"sigma2_post": sigma2, "group_post": group, "share_post": share}
        tables = {"embedding": row.get("format_post_emb"), "head": row.get("format_post_head")}
        named = {part: QuantSpec.of(name) for part, name in tables.items() if name}
        short = short_blocks({name: columns for name, _, columns in result["matrices"]}, spec, skip)
        stored = {"bytes": _bytes(result, spec, matrices, named), "short_blocks": short or None}
        yield {**own, **post, **stored}


def _all(result: Row) -> list[tuple[int, int, int]]:
    """(rows, columns, 1) of every matrix of the blocks. A fused one counts as it is stored, as one."""
    return [(rows, columns, 1) for _, rows, columns in result["matrices"]]


def _bytes(
    result: Row,
    spec: QuantSpec,
    matrices: Sequence[tuple[int, int, int]] = (),
    tables: Mapping[str, QuantSpec] | None = None,
) -> int:
    """What is quantized in its format with scales, the rest in 16 bits; a table that embedding and head share in the
    wider of their formats."""
    stored = {part: (shape, (tables or {}).get(part)) for part, shape in result["tables"].items() if shape}
    if result["tables"]["head"] is None and "embedding" in stored:
        both = [(tables or {}).get(part) for part in ("embedding", "head")]
        wider = None if None in both else max(both, key=lambda s: s.format.bits)
        stored["embedding"] = (stored["embedding"][0], wider)
    quantized = [(tuple(shape), own) for shape, own in stored.values() if own is not None]
    quantized += [((rows, columns), spec) for rows, columns, _ in matrices]
    plain = result["parameters"]["N_total"] - sum(rows * columns for (rows, columns), _ in quantized)
    return round(plain * PLAIN_BYTES + sum(matrix_bytes(own, *shape, 1) for shape, own in quantized))


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
