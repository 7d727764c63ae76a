"""The list of columns is what committed tables have, and what both packages read."""

import csv
from pathlib import Path

import pytest

from analysis import table
from scaling.records.columns import COLUMNS, LATER, NAMES, TYPES, declared

REPOSITORY = Path(__file__).parents[3]
TABLES = sorted(REPOSITORY.glob("results/*/runs.csv"))


def test_names_and_types():
    assert len(set(NAMES)) == len(NAMES)
    assert set(TYPES.values()) == {"text", "integer", "number", "true or false"}
    assert {rows for column in COLUMNS for rows in column.rows.split()} == {"run", "evaluation", "ptq", "collected"}
    assert all(column.meaning for column in COLUMNS)


def test_the_analysis_reads_the_same_list():
    assert table.TYPES == TYPES


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_committed_tables_have_these_columns_in_this_order_and_of_these_types(path):
    with open(path, newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) in (NAMES, tuple(name for name in NAMES if name not in LATER))
    table.load(path)


def test_rows_have_what_is_declared_and_nothing_else():
    row = {"tokens_seen": 1, "loss": 1.0, "loss_se": 0.1}
    assert declared("evaluation", row) is row
    for wrong in ({**row, "gap": 0.0}, {"tokens_seen": 1, "loss": 1.0}):
        with pytest.raises(AssertionError, match="evaluation"):
            declared("evaluation", wrong)
