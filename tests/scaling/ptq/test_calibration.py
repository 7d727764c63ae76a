import dataclasses

import pytest
import torch

from scaling.data.shards import prepare
from scaling.model.transformer import EPSILON, initialize
from scaling.ptq.calibration import calibrate, windows_of
from scaling.quantization.fake_quantize import fake_quantize


@pytest.fixture
def corpus(make_run, corpus_cache):
    return prepare(make_run().data, corpus_cache)


def normed(x):
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt()


def test_statistics_are_those_of_what_the_matmuls_get(make_run, corpus):
    """For the first matmul of the model, whose inputs are the normed embeddings, worked out by hand."""
    run = make_run("ptq=gptq", "ptq.calibration_tokens=500")
    weights = initialize(run.model, corpus.vocab_size, [0])
    found = calibrate(run, weights, corpus)
    tokens = torch.from_numpy(windows_of(run, corpus))
    assert tokens.shape == (16, 33) and found.tokens == 512  # whole windows of 32 tokens
    x = normed(weights["embedding"][0][tokens[:, :-1]]).reshape(-1, run.model.d_model).double()
    hessian, magnitude = found.inputs["layers.0.qkv"]
    torch.testing.assert_close(hessian[0], x.T @ x / len(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(magnitude[0], x.abs().mean(0), rtol=1e-5, atol=1e-6)
    assert set(found.inputs) == {name for name in weights if name.startswith("layers.")}
    for name, (hessian, _) in found.inputs.items():
        assert hessian.shape[1] == weights[name].shape[2]


def test_inputs_are_quantized_as_in_training(make_run, corpus):
    run = make_run("ptq=gptq", "precision.activations=int3")
    weights = initialize(run.model, corpus.vocab_size, [0])
    tokens = torch.from_numpy(windows_of(run, corpus))
    x = normed(weights["embedding"][0][tokens[:, :-1]])
    batches = [fake_quantize(x[i : i + run.batch_size], "int3", "tensor") for i in range(0, len(x), run.batch_size)]
    x = torch.cat(batches).reshape(-1, run.model.d_model).double()
    hessian, _ = calibrate(run, weights, corpus).inputs["layers.0.qkv"]
    torch.testing.assert_close(hessian[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_all_runs_of_a_study_share_the_windows(make_run, corpus):
    runs = [make_run("ptq=awq", f"seed={seed}", "precision.weights=int4") for seed in (0, 5)]
    weights = initialize(runs[0].model, corpus.vocab_size, [0])
    assert len({calibrate(run, weights, corpus).sha for run in runs}) == 1
    more = dataclasses.replace(runs[0], ptq=dataclasses.replace(runs[0].ptq, calibration_tokens=20000))
    assert calibrate(more, weights, corpus).sha != calibrate(runs[0], weights, corpus).sha
