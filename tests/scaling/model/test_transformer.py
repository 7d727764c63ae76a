import math
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
import yaml

from scaling.config.model import ModelConfig
from scaling.config.precision import Precision
from scaling.errors import InputError
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, in_chunks, initialize, losses
from scaling.quantization.fake_quantize import fake_quantize
from tests.conftest import REPOSITORY

V = 64


def shape(**changes):
    values = {
        "n_layers": 2, "d_model": 32, "head_dim": 16, "d_ff": None, "tied_head": True, "extra_norm": True,
        "rope_base": 10000.0,
    }  # fmt: skip
    return ModelConfig(**{**values, **changes})


def precision(weights="bf16", **changes):
    values = yaml.safe_load((REPOSITORY / "configs/precision/bf16.yaml").read_text())
    return Precision(**{**values, "weights": weights, **changes})


def batch(m, b=3, t=20, seed=0):
    tokens = torch.randint(0, V, (m, b, t + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[..., :-1], tokens[..., 1:]


def reference_losses(weights, inputs, targets, config, fmt="bf16", skip=(), keys=torch.clone, values=torch.clone):
    """One model, one sequence at a time, written from the description: plain 2-d matmuls, head by head, no batching.
    `keys` and `values` are applied to those of one head, (T, k)."""
    d, h, k = config.d_model, config.n_heads, config.head_dim

    def linear(x, name):
        return x @ fake_quantize(weights[name], "bf16" if name in skip else fmt).T

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def rotate(x):
        t = x.shape[0]
        angle = torch.arange(t)[:, None] / config.rope_base ** (torch.arange(0, k, 2) / k)
        pairs = torch.complex(x[:, : k // 2], x[:, k // 2 :]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([pairs.real, pairs.imag], -1)

    found = []
    for tokens, goal in zip(inputs, targets, strict=True):
        x, t = weights["embedding"][tokens], len(tokens)
        for i in range(config.n_layers):
            q, key, v = linear(norm(x), f"layers.{i}.qkv").split(d, -1)
            heads = []
            for head in range(h):
                at = slice(head * k, (head + 1) * k)
                scores = rotate(q[:, at]) @ keys(rotate(key[:, at])).T / math.sqrt(k)
                scores = scores + torch.full((t, t), -torch.inf).triu(1)
                heads.append(scores.softmax(-1) @ values(v[:, at]))
            mixed = torch.cat(heads, -1)
            x = x + linear(norm(mixed) if config.extra_norm else mixed, f"layers.{i}.out")
            gate, up = linear(norm(x), f"layers.{i}.gate_up").split(config.width_ff, -1)
            inner = F.silu(gate) * up
            x = x + linear(norm(inner) if config.extra_norm else inner, f"layers.{i}.down")
        logits = norm(x) @ weights.get("head", weights["embedding"]).T
        found.append(F.cross_entropy(logits, goal))
    return torch.stack(found)


@pytest.mark.parametrize("changes", [{}, {"tied_head": False}, {"extra_norm": False}, {"head_dim": 8, "d_ff": 48}])
@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_computes_what_the_description_says(changes, weights):
    config = shape(**changes)
    stack = initialize(config, V, [0, 1])
    x, y = batch(2)
    found = losses(stack, x, y, config, StackPrecision.of([precision(weights)] * 2, "cpu"))
    for m in range(2):
        alone = {name: w[m] for name, w in stack.items()}
        expected = reference_losses(alone, x[m], y[m], config, weights)
        torch.testing.assert_close(found[m], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("skip", [("*.down",), ("layers.1.*",), ("layers.0.qkv", "layers.1.out", "layers.?.gate_up")])
def test_matmuls_that_are_skipped_are_not_quantized(skip):
    """In a stack with a model that has nothing quantized, with gradients of both."""
    config, (x, y) = shape(), batch(2)
    stack = {name: w.requires_grad_() for name, w in initialize(config, V, [0, 1]).items()}
    named = [name for name in stack if any(fnmatchcase(name, pattern) for pattern in skip)]
    of = StackPrecision.of([precision("int3", skip=skip), precision(skip=skip)], "cpu")
    found = losses(stack, x, y, config, of)
    for m, fmt in enumerate(["int3", "bf16"]):
        alone = {name: w[m] for name, w in stack.items()}
        torch.testing.assert_close(found[m], reference_losses(alone, x[m], y[m], config, fmt, named), atol=2e-5, rtol=0)
    whole = StackPrecision.of([precision("int3"), precision()], "cpu")
    everywhere = losses(stack, x, y, config, whole)
    assert not torch.equal(found[0], everywhere[0]) and torch.equal(found[1], everywhere[1])
    found.sum().backward()
    assert all(w.grad.isfinite().all() and w.grad.any() for w in stack.values())


def test_a_skipped_matmul_has_no_quantized_operand_at_all():
    """Neither activations nor operands of its backward matmuls."""
    config, (x, y) = shape(), batch(1)
    stack = initialize(config, V, [0])
    quantized = {"activations": "int2", "dx_gradients": "int2", "dx_weights": "int2", "dw_gradients": "int2"}

    def gradient(**changes):
        weights = {name: w.clone().requires_grad_() for name, w in stack.items()}
        losses(weights, x, y, config, StackPrecision.of([precision(**changes)], "cpu")).sum().backward()
        return {name: w.grad for name, w in weights.items()}

    plain, all_skipped = gradient(), gradient(weights="int2", **quantized, skip=("layers.*",))
    assert all(torch.equal(plain[name], all_skipped[name]) for name in plain)
    assert not torch.equal(plain["layers.0.down"], gradient(weights="int2", **quantized)["layers.0.down"])


@pytest.mark.parametrize(
    "granularity, by_definition",
    [
        ("channel", lambda x: fake_quantize(x.T, "int3", "channel").T),
        ("channel_block5", lambda x: fake_quantize(x.T, "int3", "block5").T),
        ("block8", lambda x: fake_quantize(x, "int3", "block8")),
        ("token", lambda x: fake_quantize(x, "int3", "token")),
    ],
)
def test_keys_have_a_granularity_of_their_own(granularity, by_definition):
    """KIVI, arXiv 2402.02750: scales of keys run along the tokens of a channel of one head of one sequence."""
    config, (x, y) = shape(), batch(2)
    stack = initialize(config, V, [0, 1])
    changes = {"granularity_kv": "token", "granularity_keys": granularity}
    of = StackPrecision.of([precision(kv="int3", **changes), precision(**changes)], "cpu")
    found = losses(stack, x, y, config, of)
    alone = {name: w[0] for name, w in stack.items()}
    rounded = {"keys": by_definition, "values": lambda x: fake_quantize(x, "int3", "token")}
    torch.testing.assert_close(found[0], reference_losses(alone, x[0], y[0], config, **rounded), atol=2e-5, rtol=0)
    plain = losses(stack, x, y, config, StackPrecision.of([precision()] * 2, "cpu"))
    assert torch.equal(found[1], plain[1]) and not torch.equal(found[0], plain[0])


@pytest.mark.parametrize("part", ["activations", "kv", "queries", "embedding", "head"])
def test_every_part_is_quantized_alone(part):
    config, (x, y) = shape(), batch(1)
    stack = initialize(config, V, [0])
    plain = losses(stack, x, y, config, StackPrecision.of([precision()], "cpu"))
    fine = losses(stack, x, y, config, StackPrecision.of([precision(**{part: "int12"})], "cpu"))
    coarse = losses(stack, x, y, config, StackPrecision.of([precision(**{part: "int3"})], "cpu"))
    assert not torch.equal(plain, fine)
    assert (plain - fine).abs().max() < 0.02 * (plain - coarse).abs().max()


def test_a_future_token_changes_no_earlier_loss():
    config, (x, y) = shape(), batch(1, b=1)
    stack = initialize(config, V, [0])
    later = x.clone()
    later[..., -1] = (later[..., -1] + 1) % V
    of = StackPrecision.of([precision()], "cpu")
    early = [losses(stack, tokens[..., :-1], y[..., :-1], config, of) for tokens in (x, later)]
    assert torch.equal(*early)
    full = [losses(stack, tokens, y, config, of) for tokens in (x, later)]
    assert not torch.equal(*full)


def test_per_tensor_scales_do_not_join_the_matrices_stored_together():
    config, (x, y) = shape(), batch(1)
    of = StackPrecision.of([precision("int4", granularity_weights="tensor")], "cpu")
    stack = initialize(config, V, [0])
    grown = {name: w.clone() for name, w in stack.items()}
    grown["layers.0.qkv"][:, 64:] *= 1024.0  # values grow by a power of two, which the extra norm takes out again
    before, after = (losses(w, x, y, config, of) for w in (stack, grown))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_counts_parameters_by_group():
    count = shape().count(V)
    assert count == {
        "attention": 2 * 4 * 32 * 32, "feed_forward": 2 * 3 * 32 * 80, "embedding": V * 32, "head": 0,
        "N": 23552, "N_total": 23552 + V * 32,
    }  # fmt: skip
    assert shape(tied_head=False).count(V)["N_total"] == 23552 + 2 * V * 32
    actual = sum(w[0].numel() for w in initialize(shape(), V, [0]).values())
    assert actual == count["N_total"]


@pytest.mark.parametrize("layers, n", [(2, 23552), (3, 82944), (4, 200704), (5, 377600), (6, 663552)])
def test_ladder(layers, n):
    assert shape(n_layers=layers, d_model=16 * layers).n_nonembedding() == n


def test_initial_weights_depend_on_the_own_seed_only():
    alone, together = initialize(shape(), V, [7]), initialize(shape(), V, [3, 7])
    assert all(torch.equal(alone[name][0], together[name][1]) for name in alone)
    assert not torch.equal(together["embedding"][0], together["embedding"][1])


@pytest.mark.parametrize(
    "changes, says",
    [({"d_model": 33}, "d_model=33"), ({"head_dim": 5, "d_model": 30}, "head_dim=5"), ({"n_layers": 0}, "n_layers=0")],
)
def test_impossible_shapes_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        shape(**changes)


@pytest.mark.parametrize("tokens, most", [(1, 20), (45, 40), (10**6, 60)])
def test_loss_in_chunks_is_the_loss_with_fewer_logits_at_once(tokens, most, monkeypatch):
    """Chunks are whole sequences (of 20 tokens here): one at least."""
    config = shape()
    inputs, targets = batch(2)
    at_once = []
    cross_entropy = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda x, *a, **k: at_once.append(len(x) // 2) or cross_entropy(x, *a, **k))

    def gradients(program):
        weights = {name: w.requires_grad_() for name, w in initialize(config, V, [0, 1]).items()}
        found = losses(weights, inputs, targets, config, StackPrecision.of([precision()] * 2, inputs.device), program)
        found.sum().backward()
        return found, {name: w.grad for name, w in weights.items()}

    whole, expected = gradients(EAGER)
    at_once.clear()
    chunked, found = gradients(in_chunks(EAGER, tokens))
    assert max(at_once) == most
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7)
