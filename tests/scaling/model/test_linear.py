import pytest
import torch

from scaling.model.linear import project
from scaling.model.quantizers import StackPrecision
from scaling.quantization.fake_quantize import fake_quantize
from scaling.quantization.hadamard import rotate
from tests.scaling.config.test_precision import precision

M, TOKENS, IN, OUT = 2, 12, 16, 24
BACKWARD = ["dx_gradients", "dx_weights", "dw_gradients", "dw_activations"]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def operands(m=M):
    """Inputs (M, S, in), a matrix (M, out, in) and the gradient of the result (M, S, out)."""
    return randn(m, TOKENS, IN), randn(m, OUT, IN, seed=1), randn(m, TOKENS, OUT, seed=2)


def run(members, x, w, dy, parts=1):
    """Result and both gradients of `project`."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = project(x, w, parts, StackPrecision.of(members, "cpu"))
    y.backward(dy.to(y.dtype))
    return y.detach(), x.grad, w.grad


def each(x, fmt, granularity="channel", **more):
    return torch.stack([fake_quantize(piece, fmt, granularity, **more) for piece in x])


def turned(x):
    return x.transpose(1, 2)


@pytest.mark.parametrize(
    "weights, activations", [("bf16", "bf16"), ("int3", "bf16"), ("bf16", "e2m1"), ("int4", "int3")]
)
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_by_default_autograd_goes_through_the_quantized_tensors(weights, activations, parts, granularity):
    x, w, dy = operands()
    member = precision(weights=weights, activations=activations, granularity_weights=granularity)
    y, dx, dw = run([member] * M, x, w, dy, parts)
    x_q = each(x, activations, "tensor").requires_grad_()
    pieces = [each(piece, weights, granularity) for piece in w.chunk(parts, dim=1)]
    w_q = torch.cat(pieces, dim=1).requires_grad_()
    expected = torch.bmm(x_q, turned(w_q))
    expected.backward(dy)
    assert torch.equal(y, expected.detach()) and torch.equal(dx, x_q.grad) and torch.equal(dw, w_q.grad)


@pytest.mark.parametrize("custom", [*[[part] for part in BACKWARD], BACKWARD[:2], BACKWARD[2:], BACKWARD])
@pytest.mark.parametrize("granularity", ["channel", "tensor", "block4"])
@pytest.mark.parametrize("forward", [{}, {"weights": "int4", "activations": "int8"}])
def test_each_backward_operand_by_itself(custom, granularity, forward):
    """Scales run along the axis that the operand's own matmul sums over: dx = dy W over outputs, dw = dy^T x over
    tokens. Forward operands keep their own formats, and what is not asked for stays as it was."""
    names = dict(zip(BACKWARD, ["int3", "e2m1", "int4", "e3m0"], strict=True))
    names = {part: names[part] for part in custom}
    x, w, dy = operands()
    y, dx, dw = run([precision(**forward, **names, granularity_backward=granularity)] * M, x, w, dy)
    x_q, w_q = each(x, forward.get("activations", "bf16"), "tensor"), each(w, forward.get("weights", "bf16"))
    torch.testing.assert_close(y, torch.bmm(x_q, turned(w_q)))
    dy_dx = each(dy, names.get("dx_gradients", "bf16"), granularity)
    dy_dw = each(turned(dy), names.get("dw_gradients", "bf16"), granularity)
    w_dx = turned(each(turned(w), names["dx_weights"], granularity)) if "dx_weights" in names else w_q
    x_dw = turned(each(turned(x), names["dw_activations"], granularity)) if "dw_activations" in names else x_q
    torch.testing.assert_close(dx, torch.bmm(dy_dx, w_dx))
    torch.testing.assert_close(dw, torch.bmm(dy_dw, x_dw))


def test_parts_keep_their_own_scales_where_the_backward_pass_is_written_out():
    x, w, dy = operands()
    w[:, :8] *= 50
    member = precision(weights="int4", granularity_weights="tensor", dw_gradients="int8")
    y, dx, _ = run([member] * M, x, w, dy, parts=3)
    w_q = torch.cat([each(piece, "int4", "tensor") for piece in w.chunk(3, dim=1)], dim=1)
    torch.testing.assert_close(y, torch.bmm(x, turned(w_q)))
    torch.testing.assert_close(dx, torch.bmm(dy, w_q))


def test_bf16_for_a_forward_operand_is_the_unquantized_matrix():
    x, w, dy = operands()
    forward = {"weights": "int2", "activations": "int2"}
    _, dx, dw = run([precision(**forward, dx_weights="bf16")] * M, x, w, dy)
    torch.testing.assert_close(dx, torch.bmm(dy, w))
    torch.testing.assert_close(dw, torch.bmm(turned(dy), each(x, "int2", "tensor")))
    _, dx, dw = run([precision(**forward, dw_activations="bf16")] * M, x, w, dy)
    torch.testing.assert_close(dx, torch.bmm(dy, each(w, "int2")))
    torch.testing.assert_close(dw, torch.bmm(turned(dy), x))


def test_the_matmuls_written_out_are_those_of_autograd():
    """Sixteen bits for one backward operand takes the other path and must not change a gradient."""
    x, w, dy = operands()
    forward = {"weights": "int4", "activations": "int4"}
    plain = run([precision(**forward)] * M, x, w, dy)
    names = {"dx_gradients": "int16", "dw_gradients": "int16"}
    for ours, theirs in zip(run([precision(**forward, **names)] * M, x, w, dy), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    unquantized = run([precision(dx_weights="bf16")] * M, x, w, dy)
    for ours, theirs in zip(unquantized, run([precision()] * M, x, w, dy), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rotation", ["", "-hadamard"])
@pytest.mark.parametrize("custom", [{}, {"dx_gradients": "int8", "dw_activations": "e2m1"}])
def test_clipped_estimator_stops_the_gradients_of_clipped_operands(custom, rotation):
    x, w, dy = operands()
    rules = {"scale_rule_weights": "gaussian", "scale_rule_activations": "absmean", "granularity_activations": "token"}
    forward = {"weights": f"int3{rotation}", "activations": f"int2{rotation}"}
    clipped = run([precision(**forward, **rules, **custom, estimator="clipped")] * M, x, w, dy)
    through = run([precision(**forward, **rules, **custom)] * M, x, w, dy)
    turn = rotate if rotation else torch.clone
    assert torch.equal(clipped[0], through[0])
    largest_x = turn(x).abs().mean(-1, keepdim=True)  # of int2, times sqrt(Q) = 1
    largest_w = turn(w).square().mean(-1, keepdim=True).sqrt() * 0.6508 * 3
    kept = (turn(x).abs() <= largest_x, turn(w).abs() <= largest_w)
    for ours, unmasked, inside in zip(clipped[1:], through[1:], kept, strict=True):
        assert 0 < inside.float().mean() < 1
        torch.testing.assert_close(ours, turn(turn(unmasked) * inside))


def test_stochastic_rounding_backward_leaves_the_forward_pass():
    x, w, dy = operands()
    names = {"weights": "int4", "dx_gradients": "int3", "dw_gradients": "int3"}
    nearest = run([precision(**names)] * M, x, w, dy)
    y, dx, dw = run([precision(**names, rounding_backward="stochastic")] * M, x, w, dy)
    assert torch.equal(y, nearest[0]) and not torch.equal(dx, nearest[1]) and not torch.equal(dw, nearest[2])
    torch.testing.assert_close(dx, torch.bmm(each(dy, "int3", rounding="stochastic"), each(w, "int4")))
    torch.testing.assert_close(dw, torch.bmm(each(turned(dy), "int3", rounding="stochastic"), x))


@pytest.mark.parametrize("custom", [{}, {"dx_gradients": "e4m3", "dx_weights": "int8", "dw_activations": "int8"}])
def test_under_autocast(custom):
    """Matmuls run in bfloat16, gradients of float32 operands stay float32, and all is near to float32 throughout."""
    x, w, dy = operands()
    member = precision(weights="int8-hadamard", activations="int8", estimator="clipped", **custom)
    exact = run([member] * M, x, w, dy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = run([member] * M, x, w, dy)
    assert [t.dtype for t in near] == [torch.bfloat16, torch.float32, torch.float32]
    for ours, theirs in zip(near, exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=0.04 * theirs.abs().max().item())
        assert not torch.equal(ours.float(), theirs)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "shared",
    [
        {},
        {"granularity_weights": "tensor", "scale_rule_activations": "mse", "rounding": "stochastic"},
        {"dx_weights": "int8", "dw_activations": "int8", "rounding_backward": "stochastic"},
        {
            "dx_gradients": "int4",
            "granularity_backward": "block4",
            "estimator": "clipped",
            "scale_rule_weights": "gaussian",
        },
    ],
)
def test_a_member_of_a_stack_is_as_if_alone(shared, autocast):
    formats = ["int4", "bf16", "e2m1", "int8"]
    members = [
        precision(weights=f, activations=f, dw_gradients=f"int{b}", **shared)
        for f, b in zip(formats, (3, 4, 8, 5), strict=True)
    ]
    x, w, dy = operands(4)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        together = run(members, x, w, dy, parts=3)
        for m, member in enumerate(members):
            alone = run([member], x[m : m + 1], w[m : m + 1], dy[m : m + 1], parts=3)
            assert all(torch.equal(a[m], b[0]) for a, b in zip(together, alone, strict=True)), formats[m]


def test_a_nan_stays_in_its_own_model():
    x, w, dy = operands()
    member = precision(
        weights="int4", activations="int4", dx_gradients="int4", dx_weights="mxfp4", dw_gradients="mxfp4"
    )
    clean = run([member] * M, x, w, dy)
    x[0, 3, 2], w[0, 1, 1], dy[0, 2, 2] = float("nan"), float("inf"), float("nan")
    for ours, theirs in zip(run([member] * M, x, w, dy), clean, strict=True):
        assert torch.equal(ours[1], theirs[1]) and ours[0].isnan().any()
