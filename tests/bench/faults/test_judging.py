"""The bench of faults itself: planted faults are seen, each as what it is."""

import random

import pytest

from bench.faults.commands import Command, Ended
from bench.faults.damage import _damaged
from bench.faults.kills import KINDS
from bench.faults.outcomes import Case, judged, table
from bench.faults.place import differences

TRACEBACK = "Traceback (most recent call last):\n  File ...\nValueError: x\n"


@pytest.mark.parametrize(
    ("status", "err", "changed", "outcome"),
    [
        (0, "", [], "same"),
        (0, "a.json: something was noted\n", [], "same"),
        (0, "", ["table"], "silent"),
        (1, "prog: outputs/a.json: damaged; delete it\n", ["table"], "one line"),
        (1, "prog: something is wrong\n", ["table"], "unclear"),
        (1, "", [], "unclear"),
        (1, TRACEBACK + "a.json\n", [], "traceback"),
        (0, TRACEBACK, [], "traceback"),
        (1, "n1: ValueError: x (traceback in outputs/n1/error.txt) a.json\n", [], "traceback"),
        (-11, "a.json\n", [], "traceback"),
    ],
)
def test_each_end_is_judged(status, err, changed, outcome):
    ended = Ended(command=Command.of("scaling.train"), status=status, out="", err=err)
    assert judged(ended, changed, ("a.json",))[0] == outcome


def test_the_table_counts_all_and_names_what_is_bad():
    made = [Case(section="s", kind="k", what=str(i), outcome=o) for i, o in enumerate(("same", "same", "lost"))]
    lines = table(made)
    assert lines[1].split() == ["s:", "k", "3", "2", "1"] and lines[2].split() == ["all", "3", "2", "1"]
    assert lines[3].startswith("lost: s: k: 2")


def test_what_is_other_missing_or_new_is_a_difference():
    assert differences({"a": "1", "b": "2", "new": "3"}, {"a": "1", "b": "x", "gone": "4"}) == ["b", "gone", "new"]


@pytest.mark.parametrize("content", [b"", b"x", b'{"a": 1}\n{"b": 2}\n', bytes(range(256)) * 4])
def test_damage_always_changes_a_file(tmp_path, content):
    files = [tmp_path / name for name in ("one", "other")]
    files[0].write_bytes(content)
    files[1].write_bytes(b"something else")
    draw = random.Random(0)
    kinds = set()
    for _ in range(60):
        kind, changed = _damaged(files[0], content, files, draw)
        assert changed != content
        kinds.add(kind)
    assert kinds == ({"cut", "zeroed", "swapped", "bit flipped"} if len(content) > 1 else kinds) and "swapped" in kinds


def test_a_hundred_kills_are_planned():
    assert sum(kind.of_hundred for kind in KINDS) == 100
