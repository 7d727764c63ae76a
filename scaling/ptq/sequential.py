"""Calibration behind the layers that are quantized already, as GPTQModel and llm-compressor do it: a layer's inputs
are those that the quantized model has there, so that later layers make up for the errors of earlier ones.

Every setting is a model of its own then, with statistics of its own: what is done once for all settings otherwise is
done for each here, layer after layer. Within a layer all matrices are calibrated before any is quantized.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch

from scaling.config.model import is_block_weight, parts_of
from scaling.config.run import Run
from scaling.data.corpus import Corpus
from scaling.model.transformer import Weights
from scaling.ptq.apply import Notes, merge_notes, quantized
from scaling.ptq.calibration import Calibration, calibrate
from scaling.ptq.settings import Setting
from scaling.quantization.fake_quantize import Quantizer
from scaling.quantization.formats import UNQUANTIZED


def quantized_each(
    run: Run,
    weights: Weights,
    settings: Sequence[Setting],
    calibration: Callable[[], Calibration],
    corpus: Corpus,
) -> tuple[Weights, list[Notes]]:
    """As `scaling.ptq.apply.quantized`, which serves the settings that are not sequential.

    Raises:
        InputError: a weight is not finite.
    """
    together = [i for i, setting in enumerate(settings) if not setting.sequential]
    stack, notes = quantized(weights, [settings[i] for i in together], calibration)
    if len(together) == len(settings):
        return stack, notes
    models = {i: ({name: w[k] for name, w in stack.items()}, notes[k]) for k, i in enumerate(together)}
    for i, setting in enumerate(settings):
        if setting.sequential:
            one, of_one = quantized_sequentially(run, weights, setting, corpus)
            models[i] = {name: w[0] for name, w in one.items()}, of_one
    in_order = [models[i] for i in range(len(settings))]
    return {name: torch.stack([model[name] for model, _ in in_order]) for name in weights}, [n for _, n in in_order]


@torch.no_grad()
def quantized_sequentially(run: Run, weights: Weights, setting: Setting, corpus: Corpus) -> tuple[Weights, Notes]:
    """One model (1, out, in) in one setting, layer after layer."""
    # What the forward pass of training has for weights, as plain numbers: those that are quantized are plain as well.
    now = dict(weights)
    for name, w in weights.items():
        if is_block_weight(name):
            trained = Quantizer([run.precision.at(name).spec("weights")], w.device)
            now[name] = trained.values(w, parts_of(name))
    plain = dataclasses.replace(run.precision, weights=UNQUANTIZED)
    notes: Notes = {}
    for i in range(run.model.n_layers):
        up_to_here = dataclasses.replace(run, model=dataclasses.replace(run.model, n_layers=i + 1), precision=plain)
        calibration = calibrate(up_to_here, now, corpus)
        layer = {name: w for name, w in weights.items() if name.startswith(f"layers.{i}.")}
        values, (more,) = quantized(layer, [setting], lambda calibration=calibration: calibration)
        now |= values
        merge_notes(notes, more)
    return now, notes
