"""The columns of the tidy table, as columns.csv beside this module lists them: name, type, unit, which rows fill them,
meaning. analysis/columns.csv is a link to that file, docs/contracts.md has it as a table.

A new column is a line there, and its value: in `scaling.records.table`, or, where it is measured, in
`scaling.training.record` or `scaling.ptq.measure`.

A column belongs to
    run          the same in all rows of a run
    evaluation   a model at one token count
    ptq          a quantization of it after training: what a line of ptq.jsonl holds
    collected    worked out from these, empty where it does not apply
"""

import csv
import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    name: str
    type: str
    """`text`, `integer`, `number`, or `true or false`."""
    unit: str
    rows: str
    meaning: str


with open(Path(__file__).with_name("columns.csv"), newline="", encoding="utf-8") as _file:
    COLUMNS = tuple(Column(**row) for row in csv.DictReader(_file))
NAMES = tuple(column.name for column in COLUMNS)
"""In the order of the table."""
TYPES = {column.name: column.type for column in COLUMNS}
LATER = (
    *("granularity_keys", "skip", "granularity_post_keys", "scale_rule_post_a", "scale_rule_post_kv", "P_post_emb"),
    *("P_post_head", "format_post_emb", "format_post_head", "skip_post", "source", "bytes_per_token", "lr_share"),
    *("sequential", "share_post", "bits_per_byte"),
)
"""Columns that tables of the first version lack; their rows would be empty there."""


def declared(rows: str, values: dict[str, Any]) -> dict[str, Any]:
    """`values`, which have to be the columns of such rows (`run`, `evaluation`, `ptq`), no fewer and no more."""
    names = {column.name for column in COLUMNS if rows in column.rows.split()}
    assert names == set(values), f"columns of {rows} that only columns.csv or only a row has: {names ^ set(values)}"
    return values
