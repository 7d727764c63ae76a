import pytest

from scaling.errors import InputError
from scaling.quantization.formats import parse
from scaling.quantization.spec import QuantSpec, check_granularity


@pytest.mark.parametrize(
    "asked, granularity, rule, block",
    [
        (("int4",), "channel", "absmax", None),
        (("INT4", "token", "mse"), "token", "mse", None),
        ((parse("int4"), "block16"), "block16", "absmax", 16),
        (("mxfp4", "tensor"), "block32", "pow2_floor", 32),
        (("nvfp4", "block64", "absmax"), "block16", "absmax", 16),
        (("ternary", "tensor"), "tensor", "absmean", None),
        (("bf16", "tensor"), "tensor", "absmax", None),
    ],
)
def test_what_comes_into_effect(asked, granularity, rule, block):
    spec = QuantSpec.of(*asked)
    assert (spec.granularity, spec.scale_rule, spec.block) == (granularity, rule, block)
    # What is in effect stays so: tables hold that, and are read back.
    assert QuantSpec.of(spec.format, spec.granularity, spec.scale_rule) == spec
    assert hash(QuantSpec.of(*asked)) == hash(spec)


@pytest.mark.parametrize("granularity", ["row", "block", "block0", "block-4", "block4x", "Tensor", "token", ""])
def test_granularities_that_do_not_exist(granularity):
    check_granularity("block4", "channel")
    check_granularity("channel", "channel")
    with pytest.raises(InputError, match="no such granularity; use tensor, channel, or block<k>") as caught:
        check_granularity(granularity, "channel")
    assert str(caught.value).startswith(f"{granularity}: ")


@pytest.mark.parametrize(
    "asked, key",
    [
        (("in4",), "weights=in4: no such number format"),
        (("int4", "token"), "grain=token: no such granularity; use tensor, channel, or"),
        (("uint4", "channel", "gaussian"), "rule=gaussian: not for uint4, which has a zero point"),
    ],
)
def test_messages_name_the_setting(asked, key):
    with pytest.raises(InputError) as caught:
        QuantSpec.of(*asked, rows=("channel",), keys=("weights", "grain", "rule"))
    assert str(caught.value).startswith(key) and "\n" not in str(caught.value)


def test_padding_and_widths_that_do_not_fit():
    assert [QuantSpec.of("mxfp4").padding(width) for width in (32, 40, 64)] == [0, 24, 0]
    assert QuantSpec.of("int4", "block16").padding(32) == QuantSpec.of("int4", "tensor").padding(33) == 0
    for spec, width, line in (
        (QuantSpec.of("int4", "block16"), 40, "int4: block16: does not divide a width of 40"),
        (QuantSpec.of("int4-hadamard"), 5, "int4-hadamard: a width of 5 is odd"),
        (QuantSpec.of("mxfp4", scale_rule="absmean"), 48, "mxfp4: absmean: a width of 48 leaves a short block of 32"),
    ):
        with pytest.raises(InputError) as caught:
            spec.padding(width)
        assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
