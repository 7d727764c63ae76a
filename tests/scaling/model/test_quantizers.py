import torch

from scaling.config.precision import PARTS
from scaling.model.quantizers import StackPrecision
from tests.scaling.config.test_precision import precision


def test_quantizers_of_a_stack_have_the_settings_of_their_group():
    shared = {
        "granularity_weights": "block4",
        "granularity_activations": "token",
        "granularity_backward": "tensor",
        "scale_rule_kv": "mse",
        "scale_rule_backward": "pow2_ceil",
        "rounding_backward": "stochastic",
        "estimator": "clipped",
    }
    stack = StackPrecision.of([precision(**shared, dx_weights=f) for f in ("int4", "e2m1", "bf16")], "cpu")
    assert stack.custom_backward and stack.dw_activations is None
    assert [f.name for f in stack.dx_weights.formats.formats] == ["int4", "e2m1", "bf16"]
    quantizers = {part: getattr(stack, part) for part in PARTS if part != "dw_activations"}
    groups = {"weights": "block4", "activations": "token", "kv": "tensor", "backward": "tensor"}
    rules = {"weights": "absmax", "activations": "absmax", "kv": "mse", "backward": "pow2_ceil"}
    for part, quantizer in quantizers.items():
        group = PARTS[part]
        rounding = "stochastic" if group == "backward" else "nearest_even"
        assert quantizer.spec.granularity == groups[group] and quantizer.spec.scale_rule == rules[group], part
        assert quantizer.spec.rounding == rounding and quantizer.spec.estimator == "clipped"
    plain = StackPrecision.of([precision(weights="int4")], "cpu")
    assert plain.dx_weights is None and plain.dw_activations is None and not plain.custom_backward
    x = torch.randn(1, 4, 8)
    assert plain.activations(x) is x and not torch.equal(plain.weights(x), x)
