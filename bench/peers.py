"""The model of `scaling.model.transformer` written the usual way, one model at a time with modules and autograd's own
operations, and torchao's fake quantization of its linear layers.

It is the same function of the same weights (`check_same`), so what differs in time is how it is written. Where the
usual way leaves a choice, the fastest is taken (measured on a CPU): one matrix for queries, keys and values and one for
gate and up, F.scaled_dot_product_attention, the fused AdamW, and torch.compile over the whole model instead of layer by
layer.
"""

import torch
import torch.nn.functional as F
from torch import nn

from bench.timing import Step, UnavailableError
from scaling.config.model import ModelConfig
from scaling.config.run import Run
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EPSILON, Weights, losses

TOLERANCE = 1e-4


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        d, f = config.d_model, config.width_ff
        self.heads = config.n_heads
        self.norm = nn.RMSNorm(d, EPSILON, elementwise_affine=False)
        self.extra_norm = self.norm if config.extra_norm else nn.Identity()
        self.wide_norm = nn.RMSNorm(f, EPSILON, elementwise_affine=False) if config.extra_norm else nn.Identity()
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * f, bias=False)
        self.down = nn.Linear(f, d, bias=False)

    def forward(self, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        h = h + self.out(self.extra_norm(self.attend(self.qkv(self.norm(h)), cos, sin)))
        gate, up = self.gate_up(self.norm(h)).chunk(2, dim=-1)
        return h + self.down(self.wide_norm(F.silu(gate) * up))

    def attend(self, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, t, _ = qkv.shape
        q, k, v = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(b, t, -1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Transformer(nn.Module):
    """Tokens (B, T) and targets (B, T) to the mean loss."""

    def __init__(self, config: ModelConfig, vocab_size: int, length: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, EPSILON, elementwise_affine=False)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tied_head:
            self.head.weight = self.embedding.weight
        wavelengths = config.rope_base ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
        angles = torch.arange(length)[:, None] * wavelengths
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        h = self.embedding(tokens)
        for layer in self.layers:
            h = layer(h, self.cos, self.sin)
        logits = self.head(self.norm(h)).float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def with_weights(run: Run, weights: Weights) -> Transformer:
    """The usual model with a copy of the weights (1, out, in) of one of ours."""
    vocab_size = weights["embedding"].shape[1]
    device = weights["embedding"].device
    model = Transformer(run.model, vocab_size, run.data.sequence_length).to(device)
    state = {f"{name}.weight": w[0].clone() for name, w in weights.items()}
    model.load_state_dict({"head.weight": state["embedding.weight"], **state})
    return model


@torch.no_grad()
def check_same(model: Transformer, run: Run, weights: Weights, tokens: torch.Tensor) -> None:
    """Raise unless both give the same loss on the same tokens (1, B, T + 1), in float32 and unquantized."""
    precision = StackPrecision.of([run.precision.unquantized()], tokens.device)
    ours = losses(weights, tokens[..., :-1], tokens[..., 1:], run.model, precision).mean().item()
    usual = model(tokens[0, :, :-1], tokens[0, :, 1:]).item()
    if not abs(ours - usual) < TOLERANCE:
        raise AssertionError(f"another model: the loss is {usual:.6f} written the usual way, and {ours:.6f} here")


def quantize_linear(model: Transformer) -> None:
    """Replace the linear layers by torchao's: int4 weights, symmetric with a scale a channel, and int4 activations with
    a scale and a zero point a token (it has no symmetric ones)."""
    try:
        from torchao.quantization import quantize_
        from torchao.quantization.qat import FakeQuantizedLinear, IntxFakeQuantizeConfig, QATConfig
    except ImportError as fault:
        raise UnavailableError(f"no torchao with quantization.qat: {fault}") from None
    activations = IntxFakeQuantizeConfig(torch.int4, "per_token", is_symmetric=False)
    weights = IntxFakeQuantizeConfig(torch.int4, "per_channel", is_symmetric=True)
    prepare = QATConfig(activation_config=activations, weight_config=weights, step="prepare")
    quantize_(model.layers, prepare)  # not the head, which stays unquantized in ours too
    layers = sum(isinstance(module, FakeQuantizedLinear) for module in model.modules())
    assert layers == 4 * len(model.layers), layers


def usual_step(model: Transformer, run: Run, tokens: torch.Tensor, *, compiled: bool) -> Step:
    """A whole training step on tokens (B, T + 1)."""
    o = run.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), run.lr_peak, (o.beta1, o.beta2), o.epsilon, o.weight_decay, fused=True
    )
    loss_of = torch.compile(model, dynamic=False) if compiled else model
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    dtype = getattr(torch, run.runtime.dtype)

    def step() -> torch.Tensor:
        with torch.autocast(tokens.device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
