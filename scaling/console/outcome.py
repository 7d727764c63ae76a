"""What a run came to, as a person reads it at the end of the command: its loss, and its quantizations as a table."""

from collections.abc import Mapping, Sequence
from typing import Any


def outcome(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines about a finished run: its last loss, and below it the loss and the gap of that model in each format.

    Args:
        result: what is in its result.json.
        rows: what is in its ptq.jsonl; those of its snapshots are left out. Losses and gaps in nats a token, errors
            are standard errors.
    """
    if not result["evaluations"]:
        return ["diverged"]
    last = result["evaluations"][-1]
    lines = [f"loss {_with_error(last, 'loss')}"]
    found = [row for row in rows if row["tokens_seen"] == last["tokens_seen"]]
    if found:
        width = max(len(row["setting"]) for row in found)
        lines.append(f"  {'quantized by':<{width}}  {'loss':>8}  gap")
        lines += [f"  {row['setting']:<{width}}  {_number(row['loss']):>8}  {_with_error(row, 'gap')}" for row in found]
    return lines


def _with_error(row: Mapping[str, Any], name: str) -> str:
    return f"{_number(row[name])} +- {_number(row[f'{name}_se'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
