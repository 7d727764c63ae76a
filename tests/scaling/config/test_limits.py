"""Every number of every class of settings, found by walking the classes: what is no number, not finite or beyond its
limits gives one line that names its key."""

import dataclasses
import math
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from scaling.config.compose import BEHAVIOUR, CONFIGS, plain_config
from scaling.config.from_dict import build
from scaling.config.limits import Above, AtLeast, AtMost, Below
from scaling.config.run import Run
from scaling.errors import InputError
from tests.conftest import TINY

VARIANTS = (
    TINY,
    ("data=text", "data/tokenizer=bpe", "data.corpus.paths=[a.txt]", "schedule=wsd"),
    ("data=hf", "data.corpus.path=a/b", "data/tokenizer=hf", "schedule=average"),
    ("data=python",),
)
"""Together they have every class."""


def leaves(hint):
    """The types in a type, each with its limits."""
    if get_origin(hint) is Annotated or not get_args(hint):
        return [hint]
    return [leaf for part in get_args(hint) for leaf in leaves(part)]


def classes(cls):
    """A class of settings and those of its fields."""
    hints = get_type_hints(cls, include_extras=True).values()
    below = [leaf for hint in hints for leaf in leaves(hint) if dataclasses.is_dataclass(leaf)]
    return [cls, *(c for found in below for c in classes(found))]


def numbers(cls):
    """(field, its type, int or float, its limits) of every field with numbers."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for leaf in leaves(hint):
            kind = get_args(leaf)[0] if get_origin(leaf) is Annotated else leaf
            if kind in (int, float):
                yield name, hint, kind, getattr(leaf, "__metadata__", ())


CASES = [(cls, *case) for cls in classes(Run) for case in numbers(cls)]


def parts(values):
    """A made value and all values of settings in it."""
    yield values
    for field in dataclasses.fields(values):
        if dataclasses.is_dataclass(value := getattr(values, field.name)):
            yield from parts(value)


@pytest.fixture(scope="module")
def examples():
    """Class -> good settings of it."""
    found = {}
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        for overrides in VARIANTS:
            values = plain_config(compose("train", list(overrides)))
            made = build(Run, {name: values[name] for name in (f.name for f in dataclasses.fields(Run))})
            found |= {type(part): part for part in parts(made)}
    return found


def beyond(limits):
    for bound in limits:
        if isinstance(bound, (Above, Below)):
            yield bound.limit
        elif isinstance(bound, (AtLeast, AtMost)):
            step = max(1, abs(bound.limit)) * (-1 if isinstance(bound, AtLeast) else 1)
            yield bound.limit + step


def test_the_walk_meets_every_number():
    names = {f"{cls.__name__}.{name}" for cls, name, *_ in CASES}
    assert len(CASES) > 40
    assert {"ModelConfig.d_ff", "HfCorpus.shuffle_buffer", "Run.snapshots", "RuntimeConfig.memory_gb"} <= names


@pytest.mark.parametrize(("cls", "name", "hint", "kind", "limits"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_bad_numbers_are_named(cls, name, hint, kind, limits, examples):
    good = examples[cls]
    values = {field.name: getattr(good, field.name) for field in dataclasses.fields(cls)}
    assert build(cls, values) == good
    bad = [math.nan, math.inf, -math.inf, "nan", "-inf", "abc", True, {"a": 1}, 10**400, -(10**400), *beyond(limits)]
    bad += [[[1]], 0.5, 1e30] if kind is int else [[[1]]]
    bad += [None] if type(None) not in get_args(hint) else []
    for value in bad:
        wrapped = [value] if get_origin(hint) is tuple else value
        for make in (
            lambda wrapped=wrapped: build(cls, {**values, name: wrapped}, "place"),
            lambda wrapped=wrapped: dataclasses.replace(good, **{name: wrapped}),
        ):
            with pytest.raises(InputError) as fault:
                make()
            line = str(fault.value)
            assert line.removeprefix("place.").startswith(name) and "\n" not in line, (value, line)
