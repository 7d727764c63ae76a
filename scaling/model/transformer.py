"""The transformer, written for a stack of models.

Decoder-only: SwiGLU, rotary embeddings, RMSNorm without gains (OLMo's norms have none either, so every parameter is a
matrix and N counts exactly the matmul weights), and the paper's extra norm before each projection (arXiv 2411.04330,
Appendix A, after BitNet b1.58). The inputs of qkv and gate_up are normed by the pre-norm already; the extra norm
stands in front of `out` and `down`.

Every weight has a leading model axis, and every model of the stack is computed by the same batched matmuls. Two lines
are written as they are so that a model gives the same bits alone and in a stack: the embedding is `F.embedding` on a
flattened table (the backward of plain indexing adds in random order), and losses are summed row by row (a long sum
over (1, n) is split over threads, one over (4, n) is not).

Shape suffixes: M models, B sequences, T positions, S = B * T, d width, H heads, k width of a head, f feed-forward
width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from scaling.config.model import ModelConfig
from scaling.model.linear import project
from scaling.model.quantizers import StackPrecision
from scaling.quantization.autocast import bmm
from scaling.quantization.fake_quantize import Quantizer

Weights = dict[str, torch.Tensor]


def as_stack(matrices: Mapping[str, torch.Tensor], device: torch.device) -> Weights:
    """The matrices of one model, (out, in), as a stack of one, (1, out, in), on a device."""
    return {name: w[None].to(device) for name, w in matrices.items()}


def initialize(config: ModelConfig, vocab_size: int, seeds: list[int]) -> Weights:
    """Fresh float32 weights (M, out, in) on the CPU, each model from its own seed alone.

    Normal with standard deviation 1/sqrt(in); the projections back into the residual stream are divided by sqrt(2 L),
    so that its variance does not grow with depth; the embedding has 1/sqrt(d), so that a tied head starts with unit
    logits.
    """
    stack: Weights = {}
    shapes = config.shapes(vocab_size)
    members = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        members.append([torch.randn(shape, generator=generator) for shape in shapes.values()])
    for i, (name, (_, columns)) in enumerate(shapes.items()):
        scale = columns**-0.5
        if name.endswith((".out", ".down")):
            scale /= math.sqrt(2 * config.n_layers)
        stack[name] = torch.stack([member[i] for member in members]) * scale
    return stack


Tap = Callable[[str, torch.Tensor], None]
"""Takes the name of a matrix and its inputs (M, S, in) as the matmul gets them."""


class Program(NamedTuple):
    """The two functions that take almost all of the time, so that they can be compiled apart from the rest: compile
    time then does not grow with depth."""

    block: Callable
    head_loss: Callable


def losses(
    weights: Mapping[str, torch.Tensor],
    inputs_MBT: torch.Tensor,
    targets_MBT: torch.Tensor,
    config: ModelConfig,
    precision: StackPrecision,
    program: Program | None = None,
) -> torch.Tensor:
    """Mean loss of every sequence of every model, (M, B), in nats a token. Sequences of one call share their scales
    wherever the granularity is `tensor`, so the batch belongs to what is computed."""
    program = program or EAGER
    h_MSd = hidden(weights, inputs_MBT, config, precision, program)
    head = precision.head(weights.get("head", weights["embedding"]))
    return program.head_loss(head, h_MSd, targets_MBT)


def hidden(
    weights: Mapping[str, torch.Tensor],
    inputs_MBT: torch.Tensor,
    config: ModelConfig,
    precision: StackPrecision,
    program: Program,
    tap: Tap | None = None,
) -> torch.Tensor:
    """The residual stream behind the last layer, (M, B * T, d). `tap` is shown what enters each matmul."""
    m, b, t = inputs_MBT.shape
    h_MSd = _embed(precision.embedding(weights["embedding"]), inputs_MBT.reshape(m, b * t))
    rotation = _rotation(t, config.head_dim, config.rope_base, h_MSd.device)
    for i in range(config.n_layers):
        layer = {k: weights[f"layers.{i}.{k}"] for k in ("qkv", "out", "gate_up", "down")}
        inner = None if tap is None else lambda name, x, i=i: tap(f"layers.{i}.{name}", x)
        h_MSd = program.block(layer, h_MSd, (b, t), rotation, config, precision.in_layer(i, tuple(layer)), inner)
    return h_MSd


def block(
    layer: Mapping[str, torch.Tensor],
    h_MSd: torch.Tensor,
    batch: tuple[int, int],
    rotation: torch.Tensor,
    config: ModelConfig,
    precision: StackPrecision,
    tap: Tap | None = None,
) -> torch.Tensor:
    """One layer: attention and feed-forward, each added to the residual stream (M, S, d). `tap` is shown what enters
    each matmul."""
    extra = _norm if config.extra_norm else _identity

    def linear(name: str, x: torch.Tensor, parts: int = 1) -> torch.Tensor:
        own = precision.of_matmul(name)
        if tap is not None:
            tap(name, own.activations.values(x))
        return project(x, layer[name], parts, own)

    qkv = linear("qkv", _norm(h_MSd), 3)
    mixed = _attention(qkv, batch, rotation, config, precision)
    h_MSd = h_MSd + linear("out", extra(mixed))
    gate, up = linear("gate_up", _norm(h_MSd), 2).chunk(2, dim=-1)
    return h_MSd + linear("down", extra(F.silu(gate) * up))


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


EPSILON = 1e-6


class _Norm(torch.autograd.Function):
    """RMSNorm in half as many passes over memory as autograd's own composition, which a CPU is limited by."""

    @staticmethod
    def forward(ctx, x):
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(root.square() / x.shape[-1] + EPSILON)
        y = x * scale
        ctx.save_for_backward(y, scale)
        # A `to` that changes nothing gives the same tensor a second time, whose gradient torch 2.11 loses when it
        # compiles (pytorch issue 180642).
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        # dx = (g - y mean(g y)) / rms(x), up to the epsilon that both sides share
        y, scale = ctx.saved_tensors
        along = (grad * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(grad.to(y.dtype), y, along, value=-1).mul_(scale).to(grad.dtype)


def _norm(x: torch.Tensor) -> torch.Tensor:
    if x.device.type == "cpu":
        return _Norm.apply(x)
    return F.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def _embed(table_MVd: torch.Tensor, tokens_MS: torch.Tensor) -> torch.Tensor:
    m, v, d = table_MVd.shape
    rows = torch.arange(m, device=tokens_MS.device)[:, None] * v
    return F.embedding(tokens_MS + rows, table_MVd.reshape(m * v, d))


def _rotation(t: int, k: int, base: float, device: torch.device) -> torch.Tensor:
    """cos and sin of the rotary embedding, (2, T, k / 2)."""
    wavelengths = base ** (-torch.arange(0, k, 2, device=device, dtype=torch.float32) / k)
    angles = torch.arange(t, device=device, dtype=torch.float32)[:, None] * wavelengths
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    cos, sin = rotation
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _attention(
    qkv_MS3d: torch.Tensor,
    batch: tuple[int, int],
    rotation: torch.Tensor,
    config: ModelConfig,
    precision: StackPrecision,
) -> torch.Tensor:
    """Causal attention with M, B and H folded into one batch axis: (M, S, 3 d) -> (M, S, d)."""
    m, (b, t), h, k = qkv_MS3d.shape[0], batch, config.n_heads, config.head_dim
    q, keys, v = qkv_MS3d.view(m, b, t, 3, h, k).permute(3, 0, 1, 4, 2, 5)  # each (M, B, H, T, k)

    def cached(x: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
        return quantizer(x.reshape(m, -1, x.shape[-1])).view(m * b * h, *x.shape[-2:])

    q = cached(_rotate(q, rotation), precision.queries)
    keys = _rotate(keys, rotation)
    if precision.keys_by_channel:
        keys = cached(keys.transpose(-1, -2), precision.keys).transpose(1, 2).contiguous()
    else:
        keys = cached(keys, precision.keys)
    v = cached(v, precision.kv)
    if q.device.type == "cpu":
        # Written out: on a CPU the backward of scaled_dot_product_attention alone takes 40% of a training step.
        future = torch.full((t, t), float("-inf"), dtype=q.dtype).triu(1)
        scores = bmm(q, keys.transpose(1, 2), plus=future.expand(len(q), t, t), alpha=k**-0.5)
        mixed = bmm(scores.softmax(dim=-1), v)
    else:
        heads = (x.view(m * b, h, t, k) for x in (q, keys, v))  # the fast kernels want four axes
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
    return mixed.view(m, b, h, t, k).transpose(2, 3).reshape(m, b * t, h * k)


def head_logits(w_MVd: torch.Tensor, h_MSd: torch.Tensor) -> torch.Tensor:
    """Logits (M, S, V) in float32."""
    return bmm(_norm(h_MSd), w_MVd.transpose(1, 2)).float()


def head_loss(w_MVd: torch.Tensor, h_MSd: torch.Tensor, targets_MBT: torch.Tensor) -> torch.Tensor:
    logits = head_logits(w_MVd, h_MSd)
    flat = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets_MBT.reshape(-1), reduction="none")
    return flat.view(targets_MBT.shape).mean(dim=-1)


EAGER = Program(block, head_loss)


def recomputing(program: Program) -> Program:
    """The same program, with a block's inputs kept for the backward pass instead of all that it computes. The backward
    pass computes it a second time, to the same bits: stochastic rounding draws from values and places."""

    def again(*arguments):
        return checkpoint(program.block, *arguments, use_reentrant=False, preserve_rng_state=False)

    return program._replace(block=again)


def in_chunks(program: Program, tokens: int) -> Program:
    """The same program, with the logits of at most so many tokens there at once (or of one sequence, if that is
    longer); the backward pass computes them a second time. With a vocabulary of 32,768 the logits of 8,192 tokens and
    their gradients take 2 GB. Losses of a sequence are the same; the head's gradient is summed in another order."""

    def head_loss(w_MVd, h_MSd, targets_MBT):
        _, b, t = targets_MBT.shape
        each = max(1, tokens // t)
        chunk_losses = []
        for first in range(0, b, each):
            targets = targets_MBT[:, first : first + each]
            h = h_MSd[:, first * t : first * t + targets.shape[1] * t]
            chunk_losses.append(
                checkpoint(program.head_loss, w_MVd, h, targets, use_reentrant=False, preserve_rng_state=False)
            )
        return torch.cat(chunk_losses, dim=1)

    return program._replace(head_loss=head_loss)


def compiled_program() -> Program:
    """The same through torch.compile. Caches of an earlier stack are dropped: its widths would be taken for dynamic."""
    torch._dynamo.reset()
    return Program(torch.compile(block), torch.compile(head_loss))
