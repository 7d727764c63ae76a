"""The usual model and ours are the same function, and take the same step."""

import pytest
import torch

from bench import peers
from bench.training import Ours, Usual

TINY = ("data.batch_tokens=64", "data.sequence_length=32")


@pytest.mark.parametrize("tied", ["true", "false"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_both(tied, dtype):
    common = {"model": "2k", "device": "cpu", "compiled": False, "dtype": dtype}
    overrides = (*TINY, f"model.tied_head={tied}")
    # `make` of the usual kind checks the loss on the same weights itself
    torch.manual_seed(0)
    usual = Usual(overrides=overrides, **common).make()
    torch.manual_seed(0)
    ours = Ours(overrides=overrides, **common).make()
    for _ in range(2):
        assert usual().item() == pytest.approx(ours().item(), abs=1e-4 if dtype == "float32" else 0.05)


def test_a_stack_quantized():
    step = Ours(
        model="2k", device="cpu", compiled=False, dtype="float32", precision="w4a4kv4", members=3, overrides=TINY
    ).make()
    assert step().shape == (3,)


def test_another_model_is_noticed():
    way = Usual(model="2k", device="cpu", compiled=False, dtype="float32", overrides=TINY)
    weights = {name: torch.randn(1, *shape) for name, shape in way.run.model.shapes(256).items()}
    model = peers.with_weights(way.run, weights)
    weights["layers.0.out"] = torch.zeros_like(weights["layers.0.out"])
    with pytest.raises(AssertionError, match="another model"):
        peers.check_same(model, way.run, weights, torch.randint(256, (1, 2, 33)))
