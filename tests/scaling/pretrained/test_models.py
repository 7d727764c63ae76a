"""Models of many families, made here, saved and loaded: losses, matrices and cache against what is written by hand."""

import math

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from scaling.pretrained.linears import layout_of

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
