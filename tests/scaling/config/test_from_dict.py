from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from scaling.config.compose import composed
from scaling.config.from_dict import build, plain
from scaling.config.limits import Above, AtMost
from scaling.config.run import build_run
from scaling.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: float

    def __post_init__(self):
        if self.side <= 0:
            raise InputError(f"side={self.side}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    count: int
    shade: float
    name: str
    visible: bool
    style: Literal["thin", "thick"]
    limit: int | None
    steps: tuple[Annotated[int, Above(0), AtMost(5_000_000)], ...]
    weights: dict[str, float]
    shape: Circle | Square


GOOD = {
    "count": "2e6",
    "shade": 1,
    "name": "a",
    "visible": False,
    "style": "thin",
    "limit": None,
    "steps": [1, 2.0],
    "weights": {"x": 1},
    "shape": {"kind": "square", "side": 2},
}


def test_values_become_what_the_fields_say():
    drawing = build(Drawing, GOOD)
    assert drawing == Drawing(
        count=2_000_000,
        shade=1.0,
        name="a",
        visible=False,
        style="thin",
        limit=None,
        steps=(1, 2),
        weights={"x": 1.0},
        shape=Square(side=2.0),
    )
    assert isinstance(drawing.count, int) and isinstance(drawing.shade, float)
    assert all(isinstance(step, int) for step in drawing.steps)


def test_plain_is_the_inverse():
    assert build(Drawing, plain(build(Drawing, GOOD))) == build(Drawing, GOOD)


def test_one_value_is_a_list_of_one():
    assert build(Drawing, {**GOOD, "steps": "5e5"}).steps == (500_000,)


def test_large_whole_numbers_keep_every_digit():
    assert build(Drawing, {**GOOD, "count": 2**53 + 1}).count == 2**53 + 1


@pytest.mark.parametrize(
    "field, value, line",
    [
        ("coutn", 1, "coutn: no such setting; did you mean count?"),
        ("zzz", 1, "zzz: no such setting; use one of count, limit, name, "),
        ("count", "abc", "count='abc': expected a number"),
        ("count", 2.5, "count=2.5: expected a whole number"),
        ("count", float("inf"), "count=inf: expected a whole number"),
        ("count", float("nan"), "count=nan: expected a whole number"),
        ("count", True, "count=True: expected a whole number"),
        ("count", None, "count=None: expected a number"),
        ("count", [1], "count=[1]: expected a number"),
        ("count", 10**400, f"count={10**400}: expected a whole number"),
        ("count", 1e30, "count=1e+30: expected a whole number of 64 bits"),
        ("shade", float("-inf"), "shade=-inf: expected a finite number"),
        ("shade", "nan", "shade=nan: expected a finite number"),
        ("visible", 1, "visible=1: expected true or false"),
        ("name", {"a": 1}, "name={'a': 1}: expected text"),
        ("style", "thn", "style=thn: use one of thin, thick"),
        ("limit", "x", "limit='x': expected a number, or null"),
        ("steps", {"a": 3}, "steps={'a': 3}: expected a list"),
        ("steps", [1, "x"], "steps[1]='x': expected a number"),
        ("steps", [1, "9e6"], "steps[1]=9000000: must be above 0 and at most 5,000,000"),
        ("style", "thin\n", "style='thin\\n': use one of thin, thick"),
        ("weights", {"x": "y"}, "weights.x='y': expected a number"),
        ("shape", {"kind": "squar", "side": 1}, "shape.kind=squar: did you mean square?"),
        ("shape", {"kind": [1]}, "shape.kind=[1]: use one of circle, square"),
        ("shape", {"side": 1}, "shape.kind: missing; use one of circle, square"),
        ("shape", {"kind": "circle"}, "shape.radius: missing"),
        ("shape", {"kind": "square", "side": 1, "radius": 2}, "shape.radius: no such setting; use one of kind, side"),
        ("shape", {"kind": "square", "side": -1}, "shape.side=-1.0: must be above 0"),
    ],
)
def test_faults_name_the_key_and_what_is_accepted(field, value, line):
    with pytest.raises(InputError) as fault:
        build(Drawing, {**GOOD, field: value})
    assert str(fault.value).startswith(line)
    assert "\n" not in str(fault.value)


def test_a_missing_field_is_named_with_its_place():
    with pytest.raises(InputError, match=r"^outer\.shade: missing$"):
        build(Drawing, {k: v for k, v in GOOD.items() if k != "shade"}, "outer")


@pytest.mark.parametrize("text, value", [("2M", 2_000_000), ("200k", 200_000), ("1.5B", 1_500_000_000), ("3T", 3e12)])
def test_numbers_may_end_in_a_suffix(text, value):
    assert build(Drawing, GOOD | {"count": text}).count == value
    assert build(Drawing, GOOD | {"shade": text}).shade == value
    assert build(Drawing, GOOD | {"steps": [1, "0.5M"]}).steps == (1, 500_000)


@pytest.mark.parametrize("text", ["M", "2MM", "2e3k", "2m", "2 M", "infM"])
def test_other_ends_are_refused(text):
    with pytest.raises(InputError, match=f"count='{text}': expected a number"):
        build(Drawing, GOOD | {"count": text})


@pytest.mark.parametrize("tokens", ["2M", "2000k", "2000000", "0.002B"])
def test_a_suffix_makes_no_other_run(tokens):
    assert build_run(composed([f"data.tokens={tokens}"])).run_id == build_run(composed(["data.tokens=2e6"])).run_id
