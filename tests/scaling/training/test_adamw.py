import numpy as np
import pytest
import torch

from scaling.model.transformer import initialize
from scaling.training.adamw import SKIPS, AdamW, gradient_norms, rates
from scaling.training.schedule import learning_rate


def with_gradients(weights, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for w in weights.values():
        w.grad = torch.randn(w.shape, generator=generator) * scale
    return weights


def fresh(runs):
    weights = initialize(runs[0].model, 8, [run.seed_init for run in runs])
    return weights, AdamW(weights, runs, [0] * len(runs))


def update(optimizer, weights):
    """The next update, counted; its norms, and which models it changed."""
    found = optimizer.update(weights, torch.from_numpy(rates(optimizer.runs, optimizer.steps, 1))[0])
    optimizer.steps = [step + 1 for step in optimizer.steps]
    return found


def test_equals_torch_adamw_model_by_model(make_run):
    runs = [
        make_run("optimizer.lr=0.01", "optimizer.weight_decay=0.3", "seed=1", "optimizer.clip=1e9"),
        make_run("optimizer.lr=0.002", "optimizer.weight_decay=0", "seed=2", "schedule=constant", "optimizer.clip=1e9"),
    ]
    weights, ours = fresh(runs)
    copies = [{name: w[m].clone().requires_grad_() for name, w in weights.items()} for m in range(2)]
    theirs = [
        torch.optim.AdamW(c.values(), betas=(0.9, 0.95), eps=runs[0].optimizer.epsilon, weight_decay=0) for c in copies
    ]
    for step in range(20):
        with_gradients(weights, step)
        for m, (copy, optimizer) in enumerate(zip(copies, theirs, strict=True)):
            for name, w in copy.items():
                w.grad = weights[name].grad[m].clone()
            optimizer.param_groups[0]["lr"] = learning_rate(runs[m], step)
            optimizer.param_groups[0]["weight_decay"] = runs[m].optimizer.weight_decay
            optimizer.step()
        update(ours, weights)
    for m, copy in enumerate(copies):
        for name, w in copy.items():
            torch.testing.assert_close(weights[name][m], w.detach(), atol=1e-6, rtol=1e-5)


def test_clipping_equals_torch_and_is_per_model(make_run):
    runs = [make_run("optimizer.clip=0.5"), make_run("optimizer.clip=1e9", "seed=1")]
    weights, optimizer = fresh(runs)
    with_gradients(weights, 0)
    alone = [w.grad[0].clone().requires_grad_() for w in weights.values()]
    for g in alone:
        g.grad = g.detach().clone()
    total = torch.nn.utils.clip_grad_norm_(alone, 0.5)
    raw = {name: w.grad[1].clone() for name, w in weights.items()}
    norms, _ = update(optimizer, weights)
    assert norms[0] == pytest.approx(total.item(), rel=1e-5)
    for g, first in zip(alone, optimizer.first.values(), strict=True):
        torch.testing.assert_close(first[0], 0.1 * g.grad)
    for name, first in optimizer.first.items():
        torch.testing.assert_close(first[1], 0.1 * raw[name])


def test_norms_do_not_depend_on_the_company(make_run):
    runs = [make_run(f"seed={seed}", "model=24k") for seed in range(4)]
    weights, _ = fresh(runs)
    with_gradients(weights, 0)
    together = gradient_norms(weights)
    for m in range(4):
        alone = {name: w[m : m + 1].clone() for name, w in weights.items()}
        for name, w in alone.items():
            w.grad = weights[name].grad[m : m + 1].clone()
        assert torch.equal(gradient_norms(alone), together[m : m + 1])


def test_a_model_with_a_nan_gradient_keeps_its_weights(make_run):
    runs = [make_run("seed=0"), make_run("seed=1")]
    weights, optimizer = fresh(runs)
    with_gradients(weights, 0)
    update(optimizer, weights)
    before = {name: w.clone() for name, w in weights.items()}
    with_gradients(weights, 1)
    weights["embedding"].grad[0, 0, 0] = float("nan")
    norms, _ = update(optimizer, weights)
    assert norms[0].isnan() and norms[1].isfinite()
    for name, w in weights.items():
        assert torch.equal(w[0], before[name][0])
        assert not torch.equal(w[1], before[name][1])


def test_tables_of_rates_are_those_of_each_update(make_run):
    """From Python's doubles, rounded once: what a step would compute by itself."""
    runs = [
        make_run("schedule=cosine"),
        make_run("schedule=linear", "optimizer.lr=0.02"),
        make_run("schedule=wsd", "schedule.decay_tokens=1280"),
    ]
    runs.append(runs[0])
    starts = [0, 3, 5, 7]
    table = rates(runs, starts, 9)
    o = runs[0].optimizer
    assert table.shape == (9, 3, 4) and table.dtype == np.float32
    for k in range(9):
        for m, (run, start) in enumerate(zip(runs, starts, strict=True)):
            s = start + k
            wanted = [learning_rate(run, s), 1 - o.beta1 ** (s + 1), (1 - o.beta2 ** (s + 1)) ** -0.5]
            assert table[k, :, m].tolist() == torch.tensor(wanted, dtype=torch.float32).tolist()


def test_a_model_skipped_too_often_is_left_alone(make_run):
    """From the update that makes it diverged on, neither weights nor moments move, whatever gradients come."""
    runs = [make_run("seed=0"), make_run("seed=1")]
    weights, optimizer = fresh(runs)
    for step in range(SKIPS + 1):
        with_gradients(weights, step)
        if step:
            weights["embedding"].grad[0, 0, 0] = float("inf")
        assert optimizer.diverged.tolist() == [False, False]
        _, made = update(optimizer, weights)
        assert made.tolist() == [step == 0, True]
    assert optimizer.diverged.tolist() == [True, False] and optimizer.skipped.tolist() == [SKIPS, 0]
    groups = (weights, optimizer.first, optimizer.second)
    before = [{name: tensor.clone() for name, tensor in group.items()} for group in groups]
    for step in range(5):
        with_gradients(weights, step)  # finite again: it comes too late
        _, made = update(optimizer, weights)
        assert made.tolist() == [False, True]
    for group, was in zip(groups, before, strict=True):
        for name, tensor in group.items():
            assert torch.equal(tensor[0], was[name][0]) and not torch.equal(tensor[1], was[name][1])
