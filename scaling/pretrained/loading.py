"""A checkpoint's files made into a model, if they fit into memory."""

import contextlib
import io
import logging
from typing import Any

import torch
from torch import nn

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.pretrained.series import SeriesConfig
from scaling.console.terminal import amount
from scaling.data.documents import first_line
from scaling.errors import InputError
from scaling.pretrained.files import Files
from scaling.study.machine import MARGIN, available


def load(files: Files, run: MeasuredRun, series: SeriesConfig, device: torch.device) -> nn.Module:
    """The model, in the dtype of `run`, ready for forward passes.

    Raises:
        InputError: it does not fit, no class of transformers has its layout, or weights are missing in its files.
    """
    for name in ("torchao", "torch.utils._pytree"):  # what transformers imports warns of itself
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as its_logging

    its_logging.set_verbosity_error()
    its_logging.disable_progress_bar()
    check_room(files, run, device)
    source = run.checkpoint.source
    named_file = {"gguf_file": files.gguf.name} if files.gguf else {"use_safetensors": not series.pickle or None}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for each tensor
            model, report = AutoModelForCausalLM.from_pretrained(
                str(files.folder),
                dtype=getattr(torch, run.runtime.dtype),
                trust_remote_code=series.remote_code,
                local_files_only=True,
                output_loading_info=True,
                **named_file,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as fault:
        raise InputError(f"{source}: cannot be loaded ({type(fault).__name__}: {first_line(fault)})") from None
    missing = set(report["missing_keys"]) - set(getattr(model, "_tied_weights_keys", None) or ())
    if missing:
        raise InputError(f"{source}: {len(missing)} tensors are missing in its files, such as {min(missing)}")
    return model.eval().requires_grad_(False).to(device)


def check_room(files: Files, run: MeasuredRun, device: torch.device) -> None:
    """Raise InputError unless the model and what is computed with it fit into memory."""
    needed = memory_of(files.parameters, files.config, run)
    room = run.runtime.memory_gb * 1e9 if run.runtime.memory_gb is not None else available(device.type)
    if room is not None and needed > (1 - MARGIN) * room:
        raise InputError(
            f"{run.checkpoint.source}: needs about {amount(needed)}B of memory in {run.runtime.dtype} with "
            f"{run.tokens_at_once} tokens at once, and {amount((1 - MARGIN) * room)}B are free; use fewer "
            "(data.batch_tokens), runtime.dtype=bfloat16, or another machine"
        )


def memory_of(parameters: int, config: dict[str, Any], run: MeasuredRun) -> float:
    """Bytes that it takes to measure a model: itself, logits and hidden states of one pass, and its largest matrix in
    the float64 copies that GPTQ makes. Files that are mapped into memory are not counted: they can be had back."""
    width, inner = (int(config.get(name) or 0) for name in ("hidden_size", "intermediate_size"))
    inner = max(inner, 4 * width)
    logits = run.tokens_at_once * int(config.get("vocab_size") or 0) * 8
    hidden = run.tokens_at_once * (8 * width + 3 * inner) * 4
    matrix = 4 * 8 * width * inner + (3 * 8 * inner**2 if run.ptq.calibrates else 0)
    return parameters * getattr(torch, run.runtime.dtype).itemsize + max(logits + hidden, matrix)
