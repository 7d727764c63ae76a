"""Every way of quantizing after training that a config asks for is one setting, however it is spelled."""

import pytest

from scaling.ptq.settings import settings_of


@pytest.fixture
def keys(make_run):
    """keys("ptq.formats=[int4]") -> keys of the settings that a run asks for."""
    return lambda *asked: [setting.key for setting in settings_of(make_run("ptq=rtn", "ptq.formats=[int4]", *asked))]


@pytest.mark.parametrize(
    "asked, expected",
    [
        (["ptq.activations=[int8,INT8]"], ["rtn/int4/channel/absmax/a=int8:tensor"]),
        (["ptq.activations=[mxfp8,mxfp8_e4m3]"], ["rtn/int4/channel/absmax/a=mxfp8:block32"]),
        (["ptq.kv=[mxfp6_e2m3,MXFP6]"], ["rtn/int4/channel/absmax/kv=mxfp6:block32"]),
        (["ptq.formats=[mxfp8-hadamard,mxfp8_e4m3-Hadamard]"], ["rtn/mxfp8-hadamard/block32/pow2_floor"]),
        (["ptq.formats=[int4,int04,' int4']"], ["rtn/int4/channel/absmax"]),
        (["ptq.scale_rules=[auto,absmax,AbsMax]"], ["rtn/int4/channel/absmax"]),
        (["ptq.scale_rules=[percentile99,percentile99.0]"], ["rtn/int4/channel/percentile99"]),
        (["ptq.scale_rules=[e4m3,E4M3,e04m03]"], ["rtn/int4/channel/e4m3"]),
        (["ptq.methods=[rtn,rtn]"], ["rtn/int4/channel/absmax"]),
        # What was in training is no other way, by whatever name.
        (["ptq.activations=[trained,bf16]", "ptq.kv=[BF16]", "ptq.head=[bf16,trained]"], ["rtn/int4/channel/absmax"]),
        (
            ["precision.kv=int4", "precision.head=int8", "ptq.kv=[INT4,trained]", "ptq.head=[int8,bf16]"],
            ["rtn/int4/channel/absmax", "rtn/int4/channel/absmax/head=bf16"],
        ),
        # What is not quantized is the same by every method, granularity and rule.
        (
            [
                "ptq.methods=[rtn,gptq,awq]",
                "ptq.formats=[bf16]",
                "ptq.granularities=[channel,block16]",
                "ptq.kv=[int4]",
            ],
            ["rtn/bf16/channel/absmax/kv=int4:tensor"],
        ),
    ],
)
def test_aliases_are_one_setting(keys, asked, expected):
    assert keys(*asked) == expected


def test_aliases_are_one_run(make_run):
    for first, second in (
        (["precision.weights=int4"], ["precision.weights=INT04"]),
        (["precision.weights=mxfp8-hadamard"], ["precision.weights=mxfp8_e4m3-hadamard"]),
        (
            ["precision=w4", "precision.scale_rule_weights=percentile99.9"],
            ["precision=w4", "precision.scale_rule_weights=percentile99.90"],
        ),
        (["precision=w4", "precision.scale_rule_weights=e4m3"], ["precision=w4", "precision.scale_rule_weights=E4M3"]),
    ):
        assert make_run(*first).run_id == make_run(*second).run_id
