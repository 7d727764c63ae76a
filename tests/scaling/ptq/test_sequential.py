"""Calibration behind quantized layers, against taps of the model that has them."""

import torch

from scaling.data.shards import prepare
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, hidden, initialize
from scaling.ptq.calibration import calibrate, windows_of
from scaling.ptq.gptq import gptq
from scaling.ptq.sequential import quantized_each, quantized_sequentially
from scaling.ptq.settings import settings_of

BLOCK = ("model.n_layers=2", "ptq=gptq", "ptq.formats=[int3]", "ptq.calibration_tokens=512")


def inputs_of(run, weights, corpus):
    """What enters each matmul, (tokens, in)."""
    seen = {}
    tokens = torch.from_numpy(windows_of(run, corpus))[None, :, :-1]
    hidden(weights, tokens, run.model, StackPrecision.of([run.precision], "cpu"), EAGER, seen.__setitem__)
    return {name: x[0] for name, x in seen.items()}


def alike(found, wanted):
    """Equal but for roundings that sums in another order have turned."""
    return float(((found - wanted).abs() > 1e-4).float().mean()) < 0.02


def test_each_layer_sees_what_the_quantized_layers_before_it_give(make_run, corpus_cache):
    run = make_run(*BLOCK, "ptq.sequential=true")
    corpus = prepare(run.data, corpus_cache)
    weights = initialize(run.model, corpus.vocab_size, [0])
    (setting,) = settings_of(run)
    found, notes = quantized_sequentially(run, weights, setting, corpus)
    assert notes["damping"] == 0.01
    first = {name: found[name] if name.startswith("layers.0.") else w for name, w in weights.items()}
    seen = {**inputs_of(run, weights, corpus)}
    seen |= {k: x for k, x in inputs_of(run, first, corpus).items() if k.startswith("layers.1.")}
    for name, x in seen.items():
        assert alike(found[name][0], gptq(weights[name][0], x, "int3")), name
    assert torch.equal(found["embedding"], weights["embedding"])
    plain = gptq(weights["layers.1.down"][0], inputs_of(run, weights, corpus)["layers.1.down"], "int3")
    assert not alike(found["layers.1.down"][0], plain)


def test_settings_of_both_kinds_come_in_order(make_run, corpus_cache):
    run = make_run(*BLOCK, "ptq.sequential=true", "ptq.methods=[rtn,gptq]")
    corpus = prepare(run.data, corpus_cache)
    weights = initialize(run.model, corpus.vocab_size, [0])
    rtn, sequential = settings_of(run)
    assert (rtn.sequential, sequential.sequential) == (None, True)
    assert "sequential" not in rtn.key and sequential.key.endswith("/sequential=True")
    mixed, notes = quantized_each(run, weights, [sequential, rtn], lambda: calibrate(run, weights, corpus), corpus)
    alone, _ = quantized_sequentially(run, weights, sequential, corpus)
    for name, w in alone.items():
        assert torch.equal(mixed[name][0], w[0])
    only_rtn, _ = quantized_each(run, weights, [rtn], None, corpus)
    assert all(torch.equal(mixed[name][1], w[0]) for name, w in only_rtn.items())
    assert notes[1] == {} and "fallbacks" in notes[0]
