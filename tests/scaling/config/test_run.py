import copy
import dataclasses

import pytest
import yaml
from hydra import compose, initialize_config_dir

from scaling.config.compose import BEHAVIOUR, CONFIGS, composed, plain_config
from scaling.config.from_dict import plain
from scaling.config.run import build_run, short
from scaling.config.runtime import resolve_device
from scaling.errors import InputError
from tests.conftest import TINY


@pytest.fixture(scope="module")
def base():
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        return plain_config(compose("train", list(TINY)))


@pytest.fixture
def variant(base):
    """variant("precision.kv=int4", ...) -> the tiny run with settings replaced, without composing it again."""

    def make(*overrides):
        values = copy.deepcopy(base)
        for override in overrides:
            key, _, text = override.partition("=")
            *groups, name = key.split(".")
            node = values
            for group in groups:
                node = node[group]
            assert name in node or name == "seed"
            for target in ("seed_init", "seed_data") if name == "seed" else (name,):
                node[target] = yaml.safe_load(text)
        return build_run(values)

    return make


def test_counts_follow_from_tokens_in_whole_batches(variant):
    run = variant("data.tokens=5200", "seed=3")
    assert (run.steps, run.D, run.first_step, run.batch_size) == (40, 5120, 0, 4)
    assert (run.seed_init, run.seed_data) == (3, 3)
    assert run.N == 4 * 16 * 16 + 3 * 16 * 16
    assert run.flops == 6 * run.N * 5120


def test_a_branch_trains_only_what_its_parent_did_not(variant):
    run = variant("branch.parent=x", "branch.tokens=1300")
    assert run.first_step == 10
    assert run.flops == 6 * run.N * 30 * 128


def test_the_peak_rate_follows_the_width(variant):
    narrow = variant("optimizer.lr=1e-3", "optimizer.lr_width=64", "optimizer.lr_exponent=1")
    assert narrow.lr_peak == pytest.approx(4e-3)
    assert variant("optimizer.lr=1e-3", "optimizer.lr_exponent=0").lr_peak == 1e-3


CHANGES = [
    "model.extra_norm=false",
    "model.rope_base=20000",
    "data.tokens=5248",
    "data.eval_windows=32",
    "data.corpus.zipf=1",
    "optimizer.lr=5e-3",
    "optimizer.weight_decay=0",
    "optimizer.epsilon=1e-9",
    "schedule.warmup_tokens=640",
    "schedule.end_fraction=0",
    "precision.weights=int4",
    "precision.kv=e4m3",
    "precision.queries=int4",
    "seed_init=1",
    "seed_data=1",
    "snapshots=[1280]",
    "runtime.dtype=bfloat16",
]


def test_whatever_could_change_the_numbers_changes_the_id(variant):
    runs = [variant(), *(variant(change) for change in CHANGES)]
    assert len({run.run_id for run in runs}) == len(runs)


@pytest.mark.parametrize(
    "change",
    [
        "study=other",
        "runtime.out=elsewhere",
        "runtime.threads=2",
        "runtime.max_members=2",
        "ptq.formats=[]",
        "tracking.mode=offline",
        "tracking.val_windows=8",
        "tracking.tags=[a,b]",
    ],
)
def test_where_and_how_it_runs_does_not(variant, change):
    assert variant(change) != variant()
    assert variant(change).run_id == variant().run_id


def test_ids_are_readable_and_stable_over_a_round_trip(variant):
    run = variant("precision.weights=int4", "precision.kv=e4m3", "seed_data=7")
    assert run.run_id.startswith("n1.8k-d5.1k-cosine-w4a16kve4m3-s0.7-")
    assert build_run(plain(run)) == run
    rotated = variant("precision.weights=e2m1-hadamard", "precision.dx_gradients=e5m2")
    assert rotated.run_id.startswith("n1.8k-d5.1k-cosine-we2m1ha16kv16ge5m2-s0-")


def test_the_base_run_is_unquantized_and_otherwise_the_same(variant):
    quantized = variant("precision.weights=int4", "precision.kv=e4m3", "seed=2")
    assert quantized.base_run_id == variant("seed=2").run_id
    assert variant().base_run_id == variant().run_id


def test_stacks_may_differ_in_numbers_only(variant):
    key = variant().stack_key
    numbers = [
        "seed=1",
        "data.tokens=2560",
        "optimizer.lr=1",
        "precision.kv=int4",
        "schedule.kind=linear",
        "snapshots=[1280]",
    ]
    assert {variant(change).stack_key for change in numbers} == {key}
    shapes = [
        "model.d_ff=32",
        "data.batch_tokens=256",
        "precision.granularity_kv=token",
        "optimizer.beta1=0.8",
        "study=x",
    ]
    assert len({variant(change).stack_key for change in shapes} | {key}) == len(shapes) + 1


def test_auto_dtype_is_resolved_because_it_is_part_of_the_identity(variant):
    assert variant("runtime.dtype=auto").runtime.dtype == "float32"
    assert variant("runtime.dtype=auto").run_id == variant("runtime.dtype=float32").run_id


@pytest.mark.parametrize(
    "overrides, line",
    [
        (["study=a/b"], "study=a/b: must be a folder name"),
        (["study=''"], "study=: must be a folder name"),
        (["study=.."], "study=..: must be a folder name"),
        ([f"study={'a' * 300}"], f"study={'a' * 300}: must be a folder name of at most 128 bytes"),
        (['study="a\\nb"'], "study='a\\nb': must be a folder name"),
        (["data.tokens=100"], "data.tokens=100: below one batch (batch_tokens=128)"),
        (["data.tokens=abc"], "data.tokens='abc': expected a number"),
        (["data.batch_tokens=100"], "data.batch_tokens=100: must be a multiple of sequence_length=32"),
        (["model.d_model=20"], "model.d_model=20: must be a multiple of head_dim=8"),
        (["model.n_layers=0"], "model.n_layers=0: must be at least 1"),
        (["model.n_layers=1e30"], "model.n_layers=1e30: expected a whole number of 64 bits"),
        (["model.n_layers=1e9"], "model.n_layers=1000000000: must be at least 1 and at most 10,000"),
        (["model.d_ff=0"], "model.d_ff=0: must be at least 1 and at most 10,000,000, or null"),
        (["optimizer.lr_exponent=1000"], "optimizer.lr_exponent=1000.0: must be at least -10 and at most 10"),
        (["schedule.kind=wsd", "schedule.decay_tokens=0"], "schedule.decay_tokens=0: must be at least 1, or null"),
        (["data.corpus.kind=[1]"], "data.corpus.kind=[1]: use one of hf, python, synthetic, text"),
        (["model.head_dim=1"], "model.head_dim=1: must be even"),
        (["precision.weights=int1"], "precision.weights=int1: 1 bits are out of range; integers have 2 to 16 bits"),
        (["precision.kv=int17"], "precision.kv=int17: 17 bits are out of range"),
        (["precision.activations=in4"], "precision.activations=in4: no such number format; nearest: int4"),
        (["precision.weights=e9m1"], "precision.weights=e9m1: 11 bits with the sign"),
        (
            ["precision.granularity_kv=channel"],
            "precision.granularity_kv=channel: no such granularity; use tensor, token, or",
        ),
        (["precision.granularity_weights=block"], "precision.granularity_weights=block: no such granularity"),
        (
            ["precision.weights=int4", "precision.granularity_weights=block12"],
            "precision.weights=int4: block12: does not divide a width of 16",
        ),
        (["precision.dw_gradients=e5m22"], "precision.dw_gradients=e5m22: 28 bits with the sign"),
        (["precision.dx_weights=fwd"], "precision.dx_weights=fwd: no such number format; use forward, bf16"),
        (["precision.head=mxfp5"], "precision.head=mxfp5: no such number format; nearest: mxfp"),
        (["precision.scale_rule_kv=max"], "precision.scale_rule_kv=max: no such scale rule; use absmax"),
        (
            ["precision.weights=uint4", "precision.scale_rule_weights=pow2_ceil"],
            "precision.scale_rule_weights=pow2_ceil: not for uint4",
        ),
        (["precision.estimator=trust"], "precision.estimator=trust: use one of straight_through, clipped"),
        (
            ["ptq.formats=[int4]", "ptq.granularities=[channel,block6]"],
            "ptq.formats[0]=int4: block6: does not divide a width of 16",
        ),
        (
            ["ptq.methods=[rtn]", "ptq.activations=[trained,uint4]", "precision.scale_rule_activations=gaussian"],
            "precision.scale_rule_activations=gaussian: not for uint4",
        ),
        (
            ["ptq.methods=[rtn]", "ptq.kv=[int4]", "ptq.granularity_kv=block3"],
            "ptq.kv[0]=int4: block3: does not divide a width of 8",
        ),
        (
            ["precision.activations=mxfp4", "precision.scale_rule_activations=absmean"],
            "precision.activations=mxfp4: absmean: a width of 16 leaves a short block of 32",
        ),
        (
            ["precision.dx_gradients=int8", "precision.granularity_backward=block5"],
            "precision.dx_gradients=int8: block5: does not divide a width of 16",
        ),
        (["precision.rounding=up"], "precision.rounding=up: use one of nearest_even"),
        (["ptq.formats=[int3,int99]"], "ptq.formats[1]=int99: 99 bits are out of range"),
        (["optimizer.lr=0"], "optimizer.lr=0.0: must be above 0"),
        (["optimizer.beta2=1"], "optimizer.beta2=1.0: must be at least 0 and below 1"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1.0: must be at least 0"),
        (["schedule.end_fraction=2"], "schedule.end_fraction=2.0: must be at least 0 and at most 1"),
        (["schedule.decay_tokens=1280"], "schedule.decay_tokens=1280: a number of tokens for kind=wsd and average"),
        (
            ["schedule.kind=average", "schedule.decay_tokens=null"],
            "schedule.decay_tokens=None: a number of tokens for kind=wsd",
        ),
        (
            ["schedule.kind=average", "schedule.decay_tokens=100"],
            "schedule.decay_tokens=100: an average needs at least one batch (128 tokens) and no more than the run "
            "trains on (5120)",
        ),
        (
            ["schedule.kind=average", "schedule.decay_tokens=2560", "branch.parent=p", "branch.tokens=3840"],
            "schedule.decay_tokens=2560: an average needs at least one batch (128 tokens) and no more than the run "
            "trains on (1280)",
        ),
        (
            ["schedule.kind=average", "schedule.decay_tokens=512", "snapshots=[2560,5120]"],
            "snapshots=[2560, 5120]: not at the end of an average",
        ),
        (["schedule.warmup_tokens=5121"], "schedule.warmup_tokens=5121: longer than the run (data.tokens=5120)"),
        (
            ["schedule.kind=wsd", "schedule.decay_tokens=500000"],
            "schedule.warmup_tokens + decay_tokens=500512: longer than the run",
        ),
        (["snapshots=[64]"], "snapshots[0]=64: must lie between 128 and 5120 tokens"),
        (["snapshots=[1280,9999]"], "snapshots[1]=9999: must lie between 128 and 5120 tokens"),
        (["branch.parent=x"], "branch.tokens: parent and tokens are given together, or neither"),
        (["branch.parent=x", "branch.tokens=9999"], "branch.tokens=9999: must lie within the run"),
        (["runtime.max_members=0"], "runtime.max_members=0: must be at least 1"),
        (["runtime.threads=0"], "runtime.threads=0: must be at least 1"),
        (["runtime.checkpoint_seconds=-1"], "runtime.checkpoint_seconds=-1.0: must be at least 0"),
        (["runtime.device=tpu"], "runtime.device=tpu: use one of auto, cpu, cuda, mps"),
    ],
)
def test_bad_values_are_named_with_what_is_accepted(variant, overrides, line):
    with pytest.raises(InputError) as fault:
        variant(*overrides)
    assert str(fault.value).startswith(line)
    assert "\n" not in str(fault.value)


def test_a_device_that_is_not_there(variant):
    # A sweep may be sent from a machine without the device: its use is what fails, not its name.
    assert variant("runtime.device=cuda", "runtime.dtype=auto").runtime.dtype == "bfloat16"
    with pytest.raises(InputError, match=r"^runtime\.device=mps: not on this machine; it has cpu"):
        resolve_device("mps")


def test_replacing_a_field_checks_again(variant):
    with pytest.raises(InputError, match="must be a folder name"):
        dataclasses.replace(variant(), study="")


@pytest.mark.parametrize(
    "count, name",
    [
        (950, "950"),
        (1792, "1.8k"),
        (23552, "24k"),
        (99_999, "100k"),
        (663_552, "664k"),
        (1_556_480, "1.6M"),
        (7e10, "70B"),
    ],
)
def test_short_numbers(count, name):
    assert short(count) == name


@pytest.mark.parametrize(
    "settings, warmup, decay",
    [
        (["data.tokens=2e6"], 409_600, None),
        (["data.tokens=1638400"], 409_600, None),
        (["data.tokens=200k"], 50_000, None),
        (["data.tokens=2M", "schedule=wsd"], 409_600, 500_000),
        (["data.tokens=200k", "schedule=wsd"], 50_000, 50_000),
        (["data.tokens=200k", "schedule=average"], 50_000, 50_000),
        (["data.tokens=2M", "schedule=paper"], 200_000, None),
        (["data.tokens=200k", "schedule.warmup_tokens=1000"], 1000, None),
    ],
)
def test_the_default_schedule_follows_from_the_run(settings, warmup, decay):
    schedule = build_run(composed(settings)).schedule
    assert (schedule.warmup_tokens, schedule.decay_tokens) == (warmup, decay)
