import dataclasses

import pytest

from scaling.config.from_dict import build
from scaling.config.precision import DEFAULTS, GROUPS, PARTS, Precision
from scaling.errors import InputError
from scaling.model.quantizers import StackPrecision

SETTINGS = {
    **DEFAULTS,
    "granularity_weights": "channel",
    "granularity_activations": "tensor",
    "granularity_kv": "tensor",
    "granularity_backward": "channel",
    "scale_rule_weights": "auto",
    "scale_rule_activations": "auto",
    "scale_rule_kv": "auto",
    "scale_rule_backward": "auto",
    "estimator": "straight_through",
    "rounding": "nearest_even",
    "rounding_backward": "nearest_even",
}


def precision(**changes):
    return Precision(**{**SETTINGS, **changes})


# Identity


def test_identity_of_plain_settings_is_what_it_was():
    """Run ids are hashes of it: a key more would orphan every finished run."""
    assert precision().identity() == {}
    always = {"estimator": "straight_through", "rounding": "nearest_even"}
    for part in ("weights", "activations", "kv"):
        granularity = SETTINGS[f"granularity_{part}"]
        expected = {part: "int4", f"granularity_{part}": granularity, **always}
        assert precision(**{part: "int4"}).identity() == expected
    assert set(precision(weights="int4").identity()) == {"weights", "granularity_weights", "estimator", "rounding"}
    three = precision(weights="int4", activations="int8", kv="e4m3").identity()
    assert set(three) == {*GROUPS, "estimator", "rounding", *(f"granularity_{g}" for g in GROUPS)} - {
        "backward",
        "granularity_backward",
    }


@pytest.mark.parametrize(
    "base, change",
    [
        ({}, {"granularity_weights": "tensor"}),
        ({}, {"scale_rule_kv": "mse"}),
        ({}, {"estimator": "clipped", "rounding": "stochastic", "rounding_backward": "stochastic"}),
        ({"weights": "int4"}, {"granularity_activations": "token"}),
        ({"weights": "int4"}, {"granularity_backward": "tensor", "scale_rule_backward": "mse"}),
        ({"weights": "int4"}, {"rounding_backward": "stochastic"}),
        ({"weights": "int4"}, {"scale_rule_weights": "absmax"}),
        ({"weights": "mxfp4"}, {"scale_rule_weights": "pow2_floor"}),
        ({"weights": "nvfp4"}, {"scale_rule_weights": "e4m3"}),
        ({"weights": "ternary"}, {"scale_rule_weights": "absmean"}),
        ({"weights": "mxfp4"}, {"granularity_weights": "tensor"}),
        ({"dx_gradients": "int8"}, {"estimator": "clipped", "rounding": "stochastic"}),
        ({}, {"granularity_keys": "channel"}),
        ({"queries": "int4"}, {"granularity_keys": "channel"}),
        ({"kv": "int4"}, {"granularity_keys": "tensor"}),
        ({"kv": "mxfp4"}, {"granularity_keys": "token"}),
        ({"weights": "mxfp4"}, {"granularity_weights": "block16x16"}),
    ],
)
def test_settings_without_effect_are_left_out(base, change):
    assert precision(**base, **change).identity() == precision(**base).identity()


@pytest.mark.parametrize(
    "base, change",
    [
        ({"weights": "int4"}, {"weights": "int4-hadamard"}),
        ({"weights": "int4"}, {"granularity_weights": "block16"}),
        ({"weights": "int4"}, {"scale_rule_weights": "mse"}),
        ({"weights": "int4"}, {"estimator": "clipped"}),
        ({"weights": "int4"}, {"rounding": "stochastic"}),
        ({"weights": "mxfp4"}, {"scale_rule_weights": "absmax"}),
        ({"weights": "mxfp4", "embedding": "int4"}, {"granularity_weights": "tensor"}),
        ({"queries": "int4"}, {"granularity_kv": "token"}),
        ({"queries": "int4"}, {"scale_rule_kv": "pow2_ceil"}),
        ({"head": "int4"}, {"granularity_weights": "tensor"}),
        ({"weights": "int4"}, {"dx_weights": "bf16"}),
        ({"activations": "int4"}, {"dw_activations": "bf16"}),
        ({"dw_gradients": "int4"}, {"rounding_backward": "stochastic"}),
        ({"dw_gradients": "int4"}, {"granularity_backward": "block16"}),
        ({"dw_gradients": "int4"}, {"scale_rule_backward": "mse"}),
        ({"kv": "int4"}, {"granularity_keys": "channel"}),
        ({"kv": "int4"}, {"granularity_keys": "token"}),
        ({"kv": "mxfp4"}, {"granularity_keys": "channel"}),
        ({"weights": "int4"}, {"granularity_weights": "block16x16"}),
        ({"weights": "nvfp4"}, {"granularity_weights": "block16x16"}),
        ({"weights": "int4"}, {"weights": "int4-full"}),
        ({"weights": "int4-hadamard"}, {"weights": "int4-rht"}),
        ({"weights": "nvfp4"}, {"scale_rule_weights": "e4m3_4over6"}),
        *[({}, {part: "int4"}) for part in PARTS],
    ],
)
def test_settings_with_an_effect_are_in(base, change):
    assert precision(**{**base, **change}).identity() != precision(**base).identity()


def test_the_run_to_compare_with_has_nothing_quantized():
    quantized = precision(**dict.fromkeys(PARTS, "int4"), granularity_kv="token")
    assert quantized.unquantized() == precision(granularity_kv="token") and quantized.unquantized().identity() == {}
    assert all(not quantized.unquantized().format(part).quantizes for part in PARTS)


# Faults


BAD = [
    *[(part, "in4", "nearest: int4") for part in PARTS],
    ("weights", "mxfp5", "mxfp4"),
    ("weights", "nvfp5", "nvfp4"),
    ("kv", "e4m33", " e4m3"),
    ("kv", "int17", "2 to 16"),
    ("kv", "e9m9", "1 to 8"),
    ("queries", "bf16-hadamard", "nothing to rotate for"),
    ("weights", "forward", "int2 to int16"),
    ("dx_gradients", "forward", "int2 to int16"),
    ("dx_weights", "foward", "forward"),
    ("dw_activations", "", "forward"),
    *[(f"granularity_{group}", "row", "use tensor") for group in GROUPS],
    ("granularity_weights", "block0", "block16"),
    ("granularity_weights", "token", "channel"),
    ("granularity_kv", "channel", "token"),
    *[(f"scale_rule_{group}", "absmx", "absmax") for group in GROUPS],
    ("scale_rule_kv", "percentile0", "percentile99.9"),
    ("scale_rule_kv", "e4m3_sngle", "nearest: e4m3_single"),
    ("granularity_keys", "chanel", "nearest: channel"),
    ("granularity_keys", "channel_tensor", "channel_block32"),
    ("granularity_keys", "channel_block0", "channel_block32"),
    ("granularity_weights", "block16x", "nearest: block16"),
    *[(f"granularity_{group}", "block16x16", "use tensor") for group in GROUPS if group != "weights"],
]


@pytest.mark.parametrize("field, value, says", BAD)
def test_every_fault_is_one_line(field, value, says):
    """It starts with the field, names the value, and says what would be accepted."""
    with pytest.raises(InputError) as caught:
        precision(**{field: value})
    line = str(caught.value)
    assert line.startswith(f"{field}={value}: ") and "\n" not in line
    assert says in line.removeprefix(f"{field}={value}: ")
    with pytest.raises(InputError) as caught:
        build(Precision, {**SETTINGS, field: value}, "run.precision")
    assert str(caught.value) == f"run.precision.{line}"


@pytest.mark.parametrize("field", ["estimator", "rounding", "rounding_backward"])
def test_choices_are_checked_at_the_door(field):
    with pytest.raises(InputError) as caught:
        build(Precision, {**SETTINGS, field: "up"}, "precision")
    line = str(caught.value)
    assert line.startswith(f"precision.{field}=up: use one of ") and SETTINGS[field] in line and "\n" not in line


def test_rules_are_checked_for_each_format_of_a_group():
    with pytest.raises(InputError, match="scale_rule_weights=gaussian: not for uint4, which has a zero point"):
        precision(weights="int4", head="uint4", scale_rule_weights="gaussian")
    precision(weights="uint4", scale_rule_weights="mse", scale_rule_kv="gaussian", kv="int4")


# Stacks


@pytest.mark.parametrize(
    "base, change, same",
    [
        ({"weights": "int4"}, {"weights": "e2m1"}, True),
        ({"weights": "int4"}, {"weights": "bf16"}, True),
        ({"weights": "int4"}, {"weights": "int2", "scale_rule_weights": "absmax"}, True),
        ({"weights": "mxfp4"}, {"weights": "mxfp8"}, True),
        ({"weights": "uint4"}, {"weights": "uint8"}, True),
        ({"dx_gradients": "int4"}, {"dx_gradients": "e5m2"}, True),
        ({"weights": "int4"}, {"weights": "nf4"}, False),
        ({"weights": "int4"}, {"weights": "uint4"}, False),
        ({"weights": "int4"}, {"weights": "mxfp4"}, False),
        ({"weights": "mxfp4"}, {"weights": "nvfp4"}, False),
        ({"weights": "int4"}, {"weights": "int4-hadamard"}, False),
        ({"weights": "int2"}, {"weights": "ternary"}, False),
        ({"weights": "int4"}, {"granularity_weights": "tensor"}, False),
        ({"weights": "int4"}, {"scale_rule_weights": "mse"}, False),
        ({"weights": "int4"}, {"estimator": "clipped"}, False),
        ({"weights": "int4"}, {"rounding": "stochastic"}, False),
        ({"weights": "int4"}, {"rounding_backward": "stochastic"}, True),
        ({"dx_gradients": "int4"}, {"rounding_backward": "stochastic"}, False),
        ({"weights": "int4"}, {"dx_weights": "int4"}, False),
        ({"weights": "int4"}, {"dw_activations": "bf16"}, False),
        ({"weights": "int4"}, {"weights": "int8-full"}, True),
        ({"weights": "int4-rht"}, {"weights": "e2m1-rht"}, True),
        ({"weights": "int4-hadamard"}, {"weights": "int4-rht"}, False),
        ({"weights": "int4", "skip": ("*.down",)}, {"weights": "int8"}, True),
        ({"weights": "int4"}, {"skip": ("*.down",)}, False),
        ({"kv": "int4", "granularity_keys": "channel"}, {"kv": "bf16"}, True),
        ({"kv": "int4"}, {"granularity_keys": "channel"}, False),
        ({"kv": "mxfp4"}, {"granularity_keys": "channel"}, False),
    ],
)
def test_which_members_share_a_program(base, change, same):
    members = [precision(**base), precision(**{**base, **change})]
    assert (members[0].program() == members[1].program()) == same
    if same:
        StackPrecision.of(members, "cpu")
    else:
        with pytest.raises(AssertionError):
            StackPrecision.of(members, "cpu")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        precision().weights = "int4"
