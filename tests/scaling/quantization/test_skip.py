import pytest

from scaling.errors import InputError
from scaling.quantization.skip import is_skipped, one_way

NAMES = [f"layers.{i}.{kind}" for i in range(3) for kind in ("qkv", "out", "gate_up", "down")]


@pytest.mark.parametrize(
    "patterns, expected",
    [
        ((), ()),
        (("*.down",), ("*.down",)),
        (("layers.0.down", "layers.1.down", "layers.2.d*"), ("*.down",)),
        (("layers.2.*", "layers.0.qkv"), ("layers.2.*", "layers.0.qkv")),
        (("layers.0.*", "*.down"), ("*.down", "layers.0.qkv", "layers.0.out", "layers.0.gate_up")),
        (("*",), ("*.qkv", "*.out", "*.gate_up", "*.down")),
        (("layers.[12].*",), ("layers.1.*", "layers.2.*")),
    ],
)
def test_what_is_skipped_has_one_name(patterns, expected):
    found = one_way(patterns, NAMES, "skip")
    assert found == expected == one_way(found, NAMES, "skip") == one_way(patterns[::-1], NAMES, "skip")
    assert [is_skipped(name, found) for name in NAMES] == [is_skipped(name, patterns) for name in NAMES]


@pytest.mark.parametrize("pattern, near", [("layers.3.down", "layers.2.down"), ("*.dwn", "*.down"), ("down", "*.down")])
def test_a_pattern_that_matches_nothing_is_one_line(pattern, near):
    with pytest.raises(InputError) as caught:
        one_way(("*.down", pattern), NAMES, "ptq.skip")
    line = str(caught.value)
    assert line.startswith(f"ptq.skip[1]={pattern}: matches none of layers.0.qkv to layers.2.down, *.qkv, *.out")
    assert near in line.partition("; nearest: ")[2] and "\n" not in line
