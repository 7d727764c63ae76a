"""Matmuls of bfloat16 without instructions for it, against PyTorch's own ones, which are slow and exact where the
instructions are missing, and against float64."""

import pytest
import torch

from scaling.quantization import autocast
from scaling.quantization.autocast import bmm

BF16 = torch.bfloat16


@pytest.fixture(params=[True, False], ids=["instructions", "none"])
def instructions(request, monkeypatch):
    monkeypatch.setattr(autocast, "BFLOAT16", request.param)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(a, b, dy, monkeypatch, **more):
    """(y, da, db) with and without the instructions."""
    found = []
    for present in (True, False):
        monkeypatch.setattr(autocast, "BFLOAT16", present)
        leaves = [x.clone().requires_grad_() for x in (a, b)]
        with autocast.autocast(a.device, BF16):
            y = bmm(*leaves, **more)
        y.backward(dy.to(y.dtype))
        found.append((y.detach(), *(x.grad for x in leaves)))
    return zip(*found, strict=True)


def near(ours, theirs):
    """Within one step of bfloat16: sums in another order may round to the neighbour."""
    step = theirs.abs().float() * 2**-7 + 1e-6 * theirs[theirs.isfinite()].abs().max()
    equal = ours == theirs
    assert ours.dtype == theirs.dtype and (equal | ((ours - theirs).abs() <= step)).all()
    assert equal.float().mean() > 0.9


@pytest.mark.parametrize("wide", [8, 200])
def test_values_and_gradients_are_those_of_the_instructions(wide, monkeypatch):
    a, b, dy = randn(3, 17, wide), randn(3, wide, 12, seed=1), randn(3, 17, 12, seed=2)
    for ours, theirs in both(a, b, dy, monkeypatch):
        near(ours, theirs)


def test_a_mask_and_a_factor(monkeypatch):
    a, b, dy = randn(2, 9, 16), randn(2, 16, 9, seed=1), randn(2, 9, 9, seed=2)
    mask = torch.full((9, 9), float("-inf"), dtype=BF16).triu(1).expand(2, 9, 9)
    for ours, theirs in both(a, b, dy, monkeypatch, plus=mask, alpha=0.177):
        near(ours, theirs)


def test_sums_are_not_rounded_on_the_way(instructions):
    """1 + 256 terms of 2^-8: a sum that is kept in bfloat16 would stay 1."""
    a = torch.full((1, 1, 257), 2.0**-8)
    a[..., 0] = 1
    with autocast.autocast(a.device, BF16):
        assert bmm(a, torch.ones(1, 257, 1)).item() == 2


def test_float32_is_float32(instructions):
    a, b = randn(2, 5, 7), randn(2, 7, 3, seed=1)
    assert torch.equal(bmm(a, b), torch.bmm(a, b))
    with autocast.autocast(a.device, BF16), autocast.autocast(a.device, torch.float32):
        assert torch.equal(bmm(a, b), torch.bmm(a, b))


def test_a_gradient_that_nobody_wants_is_not_computed(monkeypatch):
    monkeypatch.setattr(autocast, "BFLOAT16", False)
    a, b = randn(1, 2, 3).to(BF16), randn(1, 3, 2, seed=1).requires_grad_()
    with autocast.autocast(a.device, BF16):
        bmm(a, b).sum().backward()
    assert a.grad is None and torch.allclose(b.grad, a.float().sum(1)[..., None].expand(1, 3, 2), rtol=2**-7)
