"""What a run came to: for a person its loss and its quantizations as a table, for a sweeper one number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.errors import InputError, nearest_names

LOSS = "loss"
"""The metric that is that of the model as it was trained."""


def outcome(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines about a finished run: its last loss, and below it the loss and the gap of that model in each format.

    Args:
        result: what is in its result.json.
        rows: what is in its ptq.jsonl; those of its snapshots are left out. Losses and gaps in nats a token, errors
            are standard errors.
    """
    if not result["evaluations"]:
        return ["diverged"]
    last, of_it = _last(result, rows)
    lines = [f"loss {_with_error(last, 'loss')}"]
    if of_it:
        width = max(len(row["setting"]) for row in of_it)
        lines.append(f"  {'quantized by':<{width}}  {'loss':>8}  gap")
        lines += [f"  {row['setting']:<{width}}  {_number(row['loss']):>8}  {_with_error(row, 'gap')}" for row in of_it]
    return lines


def check_metric(metric: object, settings: Sequence[str]) -> None:
    """Raise InputError where a run that is quantized in these settings has no such loss, before it is trained."""
    if metric not in (LOSS, *settings):
        near = nearest_names(str(metric), settings)
        raise InputError(f"optimized_metric={metric}: expected {LOSS}, or a quantization of the run, such as it{near}")


def optimized(metric: str, result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> float:
    """The last loss of a run, in nats a token, or that behind the quantization that `metric` names; infinite where it
    is not a number, as no sweeper goes on with what is not a number.

    Raises:
        InputError: the run was finished without that quantization.
    """
    if result["diverged"] or not result["evaluations"]:
        return math.inf
    last, of_it = _last(result, rows)
    losses = {LOSS: last["loss"]} | {row["setting"]: row["loss"] for row in of_it}
    if metric not in losses:
        raise InputError(f"optimized_metric={metric}: the run is done without it; python -m scaling.ptq adds it")
    loss = losses[metric]
    return math.inf if loss is None or not math.isfinite(loss) else loss


def _last(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping, list[Mapping]]:
    """The evaluation of the model at the end, and its quantizations."""
    last = result["evaluations"][-1]
    return last, [row for row in rows if row["tokens_seen"] == last["tokens_seen"]]


def _with_error(row: Mapping[str, Any], name: str) -> str:
    return f"{_number(row[name])} +- {_number(row[f'{name}_se'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
