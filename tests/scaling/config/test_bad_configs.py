"""Random bad settings: every key, values of every wrong kind. Each is one line, nothing is trained, nothing written."""

import json
import math
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import scaling.train
from scaling.config.compose import composed
from scaling.config.from_dict import plain
from scaling.config.run import build_run
from scaling.console.cli import UnfinishedError
from scaling.errors import InputError
from tests.conftest import TINY

GOOD = {
    "synthetic": composed(TINY),
    "text": composed(["data=text", "data/tokenizer=bpe", "data.corpus.paths=[a.txt]", "schedule=wsd"]),
    "hf": composed(["data=hf", "data.corpus.path=a/b", "data/tokenizer=hf", "data.tokens=1e6"]),
    "python": composed(["precision=quartet", "schedule=average"]),
}


def keys(values: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of nested settings, groups included."""
    found = []
    for name, value in values.items():
        found.append((*above, name))
        if isinstance(value, dict):
            found += keys(value, (*above, name))
    return found


KEYS = [(name, key) for name, values in GOOD.items() for key in keys(values)]
NUMBERS = [0, -1, 1, 0.5, -0.0, 3.7, 10**6, 10**30, -(10**400), 1e308, 1e-320, math.nan, math.inf, -math.inf]
TEXTS = ["", " ", "nan", "1e400", "\u0663", "\u00bd", "x" * 1000, "../x", "=1+1", "\x00", "\n", "\ud800", "\U0001f600"]
LISTS = [[], [[]], [None], [1, 2], [-1], [math.nan], ["a"], (1,)]
GROUPS = [{}, {"a": 1}, {"kind": "x"}, {"kind": [1]}, {"": {}}, {1: 2}]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=2)
VALUES = st.sampled_from([*NUMBERS, *TEXTS, *LISTS, *GROUPS]) | st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(SCALARS, one, max_size=3), max_leaves=4
)


def with_value(values: dict, key: tuple[str, ...], value) -> dict:
    """A copy of nested settings with one of them replaced."""
    name, *below = key
    return {**values, name: with_value(values[name], tuple(below), value) if below else value}


def test_the_good_ones_are_good():
    assert all(build_run(values).run_id for values in GOOD.values())
    assert len(KEYS) > 200


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
@example(("synthetic", ("model", "n_layers")), 10**15)
@example(("synthetic", ("data", "corpus", "kind")), [1])
@example(("synthetic", ("study",)), "\ud800")
def test_a_bad_value_is_one_line(place, value):
    name, key = place
    try:
        run = build_run(with_value(GOOD[name], key, value))
    except InputError as fault:
        line = str(fault)
        assert line.isprintable() and 0 < len(line) < 2500, line
    else:
        json.dumps(plain(run), allow_nan=False)
        assert run.run_id and run.base_run_id and run.stack_key and run.flops < math.inf


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_what_is_no_group_at_all_is_one_line(value):
    with pytest.raises(InputError) as fault:
        build_run(value)
    assert str(fault.value).isprintable()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KEYS))
def test_a_lacking_value_is_one_line(place):
    name, key = place
    values = json.loads(json.dumps(GOOD[name]))
    group = values
    for part in key[:-1]:
        group = group[part]
    del group[key[-1]]
    try:
        build_run(values)
    except InputError as fault:
        assert str(fault).isprintable()


LIST = (
    "null nan inf -inf -1 0 1e30 1e400 0.5 true [] [1] [null] [[1]] {} {a:1} {kind:x} abc é '=x' ../x '\\' 1,2 [ ' a=b"
)
WORDS = st.sampled_from(["", "'a b'", "${nowhere}", "${oc.env:NOWHERE}", "${data}", "???", *LIST.split()])
SIGNS = st.sampled_from(["", "", "", "+", "~", "++"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([key for name, key in KEYS if name == "synthetic"]),
    WORDS,
    st.sampled_from(["", "", "+", "~", "++"]),
)
@example(("data", "corpus", "kind"), "[1]", "")
@example(("stack",), "[1]", "+")
@example(("study",), "x" * 300, "")
def test_a_bad_command_line_is_one_line(train, monkeypatch, tmp_path, key, word, sign):
    """By the command itself, whose training is taken away."""

    def no_training(runs, processes=None):
        json.dumps([plain(run) for run in runs], allow_nan=False)
        raise UnfinishedError("would train")

    monkeypatch.setattr(scaling.train, "train", no_training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status, out, err = train(f"{sign}{'.'.join(key)}={word}")
    lines = (out + err).strip().splitlines()
    assert status == 1 and len(lines) == 1 and lines[0].startswith("scaling.train: "), (out, err)
    assert not list(tmp_path.iterdir())
