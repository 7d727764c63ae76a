"""Compiled by torch.compile: on a card by Triton.

Triton divides float32 approximately, to about two units in the last place, so that scales move by as much and values
next to a tie go either way. `torch._inductor.config.eager_numerics.division_rounding` has it divide as eager mode does
(also TORCHINDUCTOR_EMULATE_DIVISION_ROUNDING=1), at some cost. Subnormal numbers are flushed to zero in any case.
"""

import pytest
import torch

from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.spec import QuantSpec
from scaling.records.provenance import has_compiler
from tests.cuda.runs import apart, elsewhere, trained

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not has_compiler(), reason="torch.compile needs g++ and Python.h"),
    pytest.mark.filterwarnings(
        "ignore:Dynamo detected a call", "ignore:.torch.jit.script_method", "ignore:.*should not be instantiated"
    ),
]


@pytest.fixture
def division_rounding():
    setting = torch._inductor.config.eager_numerics
    before, setting.division_rounding = setting.division_rounding, True
    yield
    setting.division_rounding = before


def both(card, name, granularity):
    """Values by eager mode and compiled, and their input, on the card. On a CPU they are only traced."""
    quantizer = Quantizer([QuantSpec.of(name, granularity)] * 2, card)
    x = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)).to(card)
    torch._dynamo.reset()
    backend = "inductor" if card.type == "cuda" else "aot_eager"
    return quantizer.values(x), torch.compile(quantizer.values, dynamic=False, backend=backend)(x), x


@pytest.mark.parametrize("name, granularity", [("int4", "channel"), ("e4m3", "block16"), ("nvfp4", "channel")])
def test_quantizers_with_exact_division_to_the_bit(card, division_rounding, name, granularity):
    eager, compiled, _ = both(card, name, granularity)
    assert torch.equal(compiled, eager)


@pytest.mark.parametrize("name", ["int4", "mxfp4"])
def test_quantizers_by_default(card, report, name):
    """At most one value in ten thousand goes the other way, and by one step of its format."""
    eager, compiled, x = both(card, name, "channel")
    # The widest step, in units of the largest value: e2m1 has one of 2, and mxfp4 scales of 1/8 to 1/4 of that value.
    step = x.abs().amax(-1, keepdim=True) / (7 if name == "int4" else 2)
    difference = (compiled - eager).abs() / step
    report("share that differs by a step", (difference > 1e-5).float().mean().item())
    report("share that differs at all", (compiled != eager).float().mean().item())
    assert (difference > 1e-5).float().mean() <= 1e-4 and difference.max() <= 1 + 1e-5


@pytest.mark.slow
def test_a_compiled_run_agrees_over_the_first_steps(card_run, report):
    """A stack of mixed formats. Tolerances are those of another kernel: see test_training.py."""
    cases = [
        (("precision.weights=int4", "precision.activations=int8"), 0.1),
        (("precision.weights=e2m1", "seed=1"), 0.1),
        (("seed=2",), 1e-4),
    ]
    ten = ("data.tokens=1280", "ptq=none", "tracking.points_per_doubling=100")
    runs = [card_run(*overrides, *ten) for overrides, _ in cases]
    compiled = trained(*(elsewhere(run, "compiled", compile="on") for run in runs))
    for folder, eager, (_, bound) in zip(compiled, trained(*runs), cases, strict=True):
        assert folder.result()["compiled"] and not eager.result()["compiled"]
        report("largest difference of ten losses", apart(folder, eager))
        assert apart(folder, eager) < bound
