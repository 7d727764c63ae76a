"""Runs precision-scaling experiments: config -> tokens -> stack of models -> training -> PTQ -> records.

From the bottom up; each imports only itself and what stands before it:

    errors         bad input, as one line
    quantization/  number formats, and tensors rounded to them
    config/        what a run may say, checked; its identity
    model/         the transformer, M models of one shape as one program
    data/          text in, batches and held-out windows out
    console/       what a person, W&B or torchrun sees of a command
    records/       what is on disk of runs, and the table made of it
    ptq/           a trained model measured, as it is and in every quantization
    training/      one stack of models trained to its end
    study/         a grid of runs made into jobs: priced, launched and watched
    pretrained/    models that others trained, measured by the same functions into the same table
    train, sweep, export   the commands, beside scaling.ptq and scaling.pretrained

The public interface, imported when it is first used (torch takes two seconds):

    from scaling import awq, fake_quantize, gptq, load_run, parse_format, rtn

Everything else is internal and may move.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

if sys.argv[:1] == ["-m"] and find_spec("hydra") is None:  # as a command, of a Python that knows nothing of it
    sys.exit(
        f"scaling: {sys.executable} lacks its packages; activate the environment that has them: . .venv/bin/activate"
    )

_PUBLIC = {
    "fake_quantize": ("scaling.quantization.fake_quantize", "fake_quantize"),
    "parse_format": ("scaling.quantization.formats", "parse"),
    "rtn": ("scaling.ptq.rtn", "rtn"),
    "gptq": ("scaling.ptq.gptq", "gptq"),
    "awq": ("scaling.ptq.awq", "awq"),
    "load_run": ("scaling.records.loaded_run", "load_run"),
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'scaling' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
