import pytest
import yaml

from scaling.console.accelerators import peak_of
from scaling.console.tracking.names import USUAL, config, quantization, summary
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("rtn/int4/channel/absmax", "ptq/rtn/int4-channel"),
        ("rtn/mxfp4/block32/pow2_floor", "ptq/rtn/mxfp4-block32"),
        ("rtn/int4/block16/mse", "ptq/rtn/int4-block16-mse"),
        ("gptq/int4/channel/absmax/n=16384/act_order=False/damping=0.01", "ptq/gptq/int4-channel"),
        (
            "gptq/int4/channel/absmax/n=131072/act_order=True/damping=0.01",
            "ptq/gptq/int4-channel-n131072-act_orderTrue",
        ),
        ("awq/int3/channel/absmax/skip=layers.0.*/n=16384/clip=True/grid=20", "ptq/awq/int3-channel-skiplayers_0__"),
        ("rtn/int4/channel/absmax/a=int8:token/kv=int8:token", "ptq/rtn/int4-channel-aint8_token-kvint8_token"),
    ],
)
def test_a_quantization_is_named_by_what_is_not_usual(key, name):
    assert quantization(key) == name


def test_the_usual_is_what_the_shipped_settings_say():
    shipped = yaml.safe_load((REPOSITORY / "configs/ptq/common.yaml").read_text())
    names = {"n": "calibration_tokens"}
    assert [f"{key}={shipped[names.get(key, key)]}" for key in (word.split("=")[0] for word in USUAL)] == list(USUAL)


def test_a_summary_is_of_the_last_model():
    rows = [
        {
            "tokens_seen": seen,
            "setting": "rtn/int4/channel/absmax",
            "loss": 3,
            "loss_se": 0.1,
            "gap": gap,
            "gap_se": 0.2,
        }
        for seen, gap in ((10, 0.5), (20, 0.75))
    ]
    evaluations = [{"tokens_seen": seen, "loss": 2.25, "loss_se": 0.1} for seen in (10, 20)]
    result = {"N": 5, "D": 20, "diverged": False, "seconds": 8.0, "evaluations": evaluations}
    found = summary(result, rows, {"tokens": 20, "loss_train": 2.5, "grad_norm": 1.5, "lr": 0.125})
    assert found == {
        "N": 5, "D": 20, "tokens_per_parameter": 4, "diverged": False, "perf/seconds": 8.0,
        "train/loss": 2.5, "train/grad_norm": 1.5, "train/lr": 0.125, "val/loss": 2.25, "val/loss_se": 0.1,
        "ptq/rtn/int4-channel/loss": 3, "ptq/rtn/int4-channel/loss_se": 0.1,
        "ptq/rtn/int4-channel/gap": 0.75, "ptq/rtn/int4-channel/gap_se": 0.2,
    }  # fmt: skip
    assert "val/loss" not in summary(result | {"evaluations": [], "diverged": True}, [])


def test_a_config_says_with_what_a_run_was_made(make_run):
    run = make_run("precision.weights=int4")
    found = config(run, {"commit": "abc", "machine": {"host": "here"}})
    assert (found["N"], found["D"], found["tokens_per_parameter"]) == (run.N, 5120, 5120 / run.N)
    assert (found["bits"], found["commit"], found["machine"]) == ("w4a16kv16", "abc", {"host": "here"})
    assert found["optimizer"]["lr"] == run.optimizer.lr


def test_peaks_are_known_by_the_names_that_drivers_say():
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA H100 PCIe") is None and peak_of("cpu Some Processor") is None
