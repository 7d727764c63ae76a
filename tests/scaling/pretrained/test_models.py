"""Models of many families, made here, saved and loaded: losses, matrices and cache against what is written by hand."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from scaling.data.corpus import Windows
from scaling.errors import InputError
from scaling.model.quantizers import StackPrecision
from scaling.pretrained.attention import _quantized, check_cache, quantized_cache
from scaling.pretrained.inference import window_losses
from scaling.pretrained.linears import layout_of
from scaling.pretrained.presets import runs_of
from scaling.ptq.settings import settings_of
from scaling.quantization.fake_quantize import fake_quantize
from tests.scaling.pretrained.conftest import tiny

FAMILIES = ("llama", "neox", "olmo2", "gpt2", "gemma3", "qwen3", "phi3")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_blocks_is_found_and_n_is_what_remains(models, family):
    layout = layout_of(models(family), 0.9)
    tables = {"wte", "wpe", "embed_in", "embed_tokens", "embed_out", "lm_head"}
    matrices = {
        name: p for name, p in models(family).named_parameters() if p.dim() == 2 and not tables & set(name.split("."))
    }
    assert {f"{linear.name}.weight" for linear in layout.linears} == set(matrices)
    for linear in layout.linears:
        stored = matrices[f"{linear.name}.weight"]
        assert torch.equal(linear.weight, stored.T if family == "gpt2" else stored)
    assert layout.parameters["N_total"] == models(family).num_parameters()
    others = sum(p.numel() for p in models(family).parameters() if p.dim() < 2)
    assert layout.parameters["N"] == sum(p.numel() for p in matrices.values()) + others
    assert [len(layout.in_block(i)) for i in range(2)] == [len(layout.linears) // 2] * 2


def test_experts_are_no_matrices_and_a_model_of_them_is_refused_unless_asked_for(models):
    with pytest.raises(InputError, match=r"of N is in matrices.*experts.*least_share") as fault:
        layout_of(models("moe"), 0.9)
    layout = layout_of(models("moe"), 0.1)
    assert f"{layout.share:.1%}" in str(fault.value)
    assert 0.1 < layout.share < 0.5


WINDOWS = np.random.default_rng(0).integers(0, 16, (6, 33))


def losses_of(models, family, make_job, saved, *overrides, start=None):
    """Losses on `WINDOWS` as the command computes them, with the first setting's precision."""
    run = runs_of(make_job(f"pretrained.path={saved(family)}", *overrides))[0]
    layout = layout_of(models(family), 0.9)
    windows = Windows(tokens=WINDOWS, documents=np.arange(6), sha="")
    setting = settings_of(run)[0]
    return window_losses(layout, run, windows, setting.precision(run.precision), start), setting


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_the_model_itself(models, make_job, saved, family):
    found, _ = losses_of(models, family, make_job, saved)
    for loss, window in zip(found, torch.from_numpy(WINDOWS), strict=True):
        assert loss == pytest.approx(float(models(family)(window[None], labels=window[None]).loss), abs=1e-5)


def test_a_token_in_front_is_context_alone(models, make_job, saved):
    found, _ = losses_of(models, "llama", make_job, saved, start=3)
    logits = models("llama")(torch.tensor([[3, *WINDOWS[0, :-1]]])).logits[0, 1:]
    assert found[0] == pytest.approx(float(cross_entropy(logits, torch.from_numpy(WINDOWS[0, 1:]))), abs=1e-5)


def cache_of(fmt: str, by_channel: bool = False):
    """A cache of transformers that holds what is rounded to a format, a scale for each token and head; for each channel
    of the keys, if so asked."""
    from transformers import DynamicCache

    class Rounded(DynamicCache):
        def update(self, key_states, value_states, *rest, **more):
            values = fake_quantize(value_states, fmt, "token")
            if by_channel:
                keys = fake_quantize(key_states.transpose(-1, -2), fmt, "token").transpose(-1, -2)
            else:
                keys = fake_quantize(key_states, fmt, "token")
            return super().update(keys, values, *rest, **more)

    return Rounded()


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_quantized_as_a_cache_would_hold_them(models, make_job, saved, family):
    model = models(family)
    asked = ("ptq.kv=[int3]", "ptq.granularity_kv=token")
    found, _ = losses_of(models, family, make_job, saved, *asked)
    for loss, window in zip(found, torch.from_numpy(WINDOWS), strict=True):
        logits = model(window[None, :-1], past_key_values=cache_of("int3"), use_cache=True).logits[0]
        assert loss == pytest.approx(float(cross_entropy(logits, window[1:])), abs=1e-5)
    plain, _ = losses_of(models, family, make_job, saved)
    assert abs(found - plain).max() > 1e-3
    assert model.config._attn_implementation == "sdpa"


def test_keys_with_scales_along_the_tokens(models, make_job, saved):
    asked = ("ptq.kv=[int3]", "ptq.granularity_kv=token", "ptq.granularity_keys=channel")
    found, setting = losses_of(models, "qwen3", make_job, saved, *asked)
    assert "keys=channel" in setting.key
    for loss, window in zip(found, torch.from_numpy(WINDOWS), strict=True):
        logits = models("qwen3")(window[None, :-1], past_key_values=cache_of("int3", True), use_cache=True).logits[0]
        assert loss == pytest.approx(float(cross_entropy(logits, window[1:])), abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("part", ["embedding", "head"])
def test_embedding_and_head_are_quantized_where_it_is_asked_for(models, make_job, saved, family, part):
    """Also where they share a matrix: of qwen3 and gemma3 it is one."""
    found, _ = losses_of(models, family, make_job, saved, f"ptq.{part}=[int3]")
    model = tiny(family)
    table = model.lm_head if part == "head" else model.model.embed_tokens
    table.weight = torch.nn.Parameter(fake_quantize(table.weight, "int3", "channel"), requires_grad=False)
    for loss, window in zip(found, torch.from_numpy(WINDOWS), strict=True):
        assert loss == pytest.approx(float(model(window[None], labels=window[None]).loss), abs=1e-5)
    plain, _ = losses_of(models, family, make_job, saved)
    assert abs(found - plain).max() > 1e-3


def test_a_cache_of_one_scale_a_batch_is_that_of_a_handwritten_attention(models, make_job, saved):
    """Llama's first block by hand: projections, rotary embedding, one scale for the keys of all windows of a batch."""
    model = models("llama")
    found = {}

    def see(module, query, key, value, *rest, **more):
        found["key"], found["value"] = _quantized(key, value, cache.precision)
        raise StopIteration

    run = runs_of(make_job(f"pretrained.path={saved('llama')}", "ptq.kv=[int4]"))[0]
    precision = settings_of(run)[0].precision(run.precision)
    cache = type("Held", (), {"precision": StackPrecision.of([precision], "cpu")})
    tokens = torch.from_numpy(WINDOWS[:2, :-1])
    with quantized_cache(model, None):
        from transformers import AttentionInterface

        AttentionInterface.register("scaling_kv_cache", see)
        with pytest.raises(StopIteration):
            model(tokens)
    block = model.model.layers[0]
    x = block.input_layernorm(model.model.embed_tokens(tokens))
    key, value = (p(x).view(2, 32, 2, 8).transpose(1, 2) for p in (block.self_attn.k_proj, block.self_attn.v_proj))
    angles = torch.arange(32.0)[:, None] * 10000.0 ** (-torch.arange(4.0) / 4)
    a, b = key.chunk(2, -1)
    key = torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
    for name, x in (("key", key), ("value", value)):
        scale = x.abs().max() / 7
        assert torch.allclose(found[name], (x / scale).round() * scale, atol=1e-5)


def test_inputs_of_every_matrix_are_quantized(models, make_job, saved):
    found, _ = losses_of(
        models, "llama", make_job, saved, "ptq.activations=[int4]", "ptq.granularity_activations=token"
    )
    model = tiny("llama")
    for linear in layout_of(model, 0.9).linears:
        forward = linear.module.forward
        linear.module.forward = lambda x, forward=forward: forward(fake_quantize(x, "int4", "token"))
    for loss, window in zip(found, torch.from_numpy(WINDOWS), strict=True):
        assert loss == pytest.approx(float(model(window[None], labels=window[None]).loss), abs=1e-5)


def test_caches_that_are_others_are_refused(models, monkeypatch):
    tokens = torch.from_numpy(WINDOWS[:1, :-1])
    check_cache(layout_of(models("gemma3"), 0.9), tokens, [])
    model = tiny("llama")
    layout = layout_of(model, 0.9)
    model.config.kv_lora_rank = 4
    with pytest.raises(InputError, match="latents"):
        check_cache(layout, tokens, [])
    model.config.kv_lora_rank = None
    # As Falcon does: its attention goes past the interface.
    attention = model.model.layers[1].self_attn
    attention.config = copy.copy(attention.config)
    attention.config._attn_implementation_internal = "sdpa"
    monkeypatch.setattr(type(model), "set_attn_implementation", only_first_block)
    with pytest.raises(InputError, match="1 times for 2 blocks"):
        check_cache(layout, tokens, [])


def only_first_block(model, name):
    model.config._attn_implementation_internal = name
