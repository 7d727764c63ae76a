"""Keys and values as a quantized KV cache would hold them, in any family that calls attention through transformers'
`AttentionInterface`: the function registered there gets keys behind the rotary embedding as (B, KV heads, T, k), before
they are repeated for the heads that share them.

The interface of masks has to know the name as well, or masks that are not plainly causal (sliding windows) are lost.
Some families pass the interface by, with a warning at most, so a model is refused unless the function is called once a
block and, quantizing nothing, changes no logits.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from scaling.errors import InputError, named
from scaling.model.quantizers import StackPrecision
from scaling.pretrained.linears import Layout, text_config
from scaling.ptq.settings import Inputs
from scaling.quantization.fake_quantize import Quantizer

NAME = "scaling_kv_cache"
SAME = 1e-4
"""Largest difference of logits, as a share of their largest, that is taken for rounding."""


class _Cache:
    """What the registered function does now."""

    precision: StackPrecision | None = None
    calls = 0
    heads: int | None = None
    width: int | None = None


def _attention(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest, **more):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    _Cache.calls += 1
    _Cache.heads, _Cache.width = key.shape[1], key.shape[-1]
    if _Cache.precision is not None:
        key, value = _quantized(key, value, _Cache.precision)
    return sdpa_attention_forward(module, query, key, value, *rest, **more)


def _quantized(
    key_BHTk: torch.Tensor, value_BHTk: torch.Tensor, precision: StackPrecision
) -> tuple[torch.Tensor, torch.Tensor]:
    def cached(x: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
        return quantizer(x.reshape(1, -1, x.shape[-1])).view(x.shape)

    value = cached(value_BHTk, precision.kv)
    if precision.keys_by_channel:
        return cached(key_BHTk.transpose(-1, -2), precision.keys).transpose(-1, -2), value
    return cached(key_BHTk, precision.keys), value


@contextlib.contextmanager
def quantized_cache(model: nn.Module, precision: StackPrecision | None) -> Iterator[None]:
    """While it lasts, the model's keys and values are quantized (None: left as they are)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = model.config._attn_implementation
    _Cache.precision, _Cache.calls, _Cache.heads = precision, 0, None
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        _Cache.precision = None


@torch.no_grad()
def check_cache(layout: Layout, tokens_BT: torch.Tensor, inputs: Sequence[Inputs]) -> None:
    """Raise InputError unless the keys and values of every block can be quantized as its cache would hold them, in the
    ways that are asked for."""
    model, config = layout.model, text_config(layout.model)
    name = type(model).__name__
    if getattr(config, "kv_lora_rank", None):
        raise InputError(
            f"ptq.kv: {name} caches latents, and its keys arrive expanded; its cache cannot be quantized here"
        )
    before = model.config._attn_implementation
    if before != "sdpa":
        raise InputError(f"ptq.kv: {name} computes attention by {before}; its cache cannot be quantized here")
    plain = model(input_ids=tokens_BT, use_cache=False).logits
    with quantized_cache(model, None):
        logits = model(input_ids=tokens_BT, use_cache=False).logits
    blocks = getattr(config, "num_hidden_layers", len(layout.blocks))
    if _Cache.calls != blocks:
        raise InputError(
            f"ptq.kv: {name} called the attention function {_Cache.calls} times for {blocks} blocks; "
            "its cache cannot be quantized here"
        )
    heads = getattr(config, "num_key_value_heads", None)
    if heads is not None and _Cache.heads != heads:
        raise InputError(f"ptq.kv: {name} has {heads} heads of keys, and {_Cache.heads} arrive; its cache is another")
    apart = float((logits - plain).abs().max() / plain.abs().max())
    if not apart < SAME:
        raise InputError(f"ptq.kv: {name}: logits change by {apart:.1g} of their largest although nothing is quantized")
    for kv in inputs:
        named("ptq.kv", kv.spec.padding, _Cache.width)
        named("ptq.granularity_keys", kv.keys.padding, tokens_BT.shape[1] if kv.keys_by_channel else _Cache.width)
