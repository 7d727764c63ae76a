"""What measuring checkpoints takes, said before anything is spent: time, memory, disk and download."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.pretrained.series import SeriesConfig
from scaling.config.runtime import resolve_device
from scaling.console.terminal import amount, duration
from scaling.errors import InputError
from scaling.pretrained.files import Files, is_fetched, locate
from scaling.pretrained.loading import memory_of
from scaling.pretrained.measure import is_lacking, tokens_of
from scaling.ptq.settings import Setting, lacking
from scaling.records.run_folder import RunFolder
from scaling.study.machine import MARGIN, available

CLIPPINGS = 10
"""That AWQ tries beside its exponents."""


class Size(NamedTuple):
    """What is known of a checkpoint without its weights."""

    blocks: int
    """N."""
    parameters: int
    config: dict
    download: float
    """Bytes."""


def lines(runs: Sequence[MeasuredRun], series: SeriesConfig) -> Iterator[str]:
    """What is to be done, in lines."""
    flops = flops_here(torch.device(resolve_device(runs[0].runtime.device)))
    seconds = download = held = 0.0
    memory = scratch = 0.0
    todo = 0
    for run in runs:
        folder = RunFolder(run)
        try:
            if not is_lacking(folder):
                yield f"done     {run.checkpoint.source}"
                continue
            settings = lacking(folder)
            size = size_of(run, series)
        except InputError as fault:
            yield f"refused  {fault}"
            continue
        todo += 1
        here, state = seconds_of(run, settings, size, flops), folder.state()
        tokens = amount(run.D) if run.D else "not known"
        yield (
            f"{'rows' if state == 'done' else state:8} {run.checkpoint.source}: D={tokens}, {len(settings)} "
            f"quantizations, about {duration(here)}, download {amount(size.download)}B"
        )
        seconds, download = seconds + here, download + size.download
        held = held + size.download if series.keep else max(held, size.download)
        memory = max(memory, memory_of(size.parameters, size.config, run))
        scratch = max(scratch, scratch_of(run, settings, size))
    if not todo:
        yield "nothing to measure"
        return
    room = runs[0].runtime.memory_gb
    free = room * 1e9 if room else available(resolve_device(runs[0].runtime.device))
    fits = "" if free is None else f" ({amount((1 - MARGIN) * free)}B are free)"
    yield f"{todo} of {len(runs)} checkpoints, about {duration(seconds)} at {amount(flops)}FLOP/s, as measured here now"
    yield f"memory about {amount(memory)}B{fits}, scratch files {amount(scratch)}B below {runs[0].runtime.cache}"
    yield f"download {amount(download)}B, of which {amount(held)}B are held in the hub's cache at once"


def size_of(run: MeasuredRun, series: SeriesConfig) -> Size:
    """From the files where they are here, else from what the preset says.

    Raises:
        InputError: neither is there.
    """
    if run.checkpoint.repository is None or is_fetched(run.checkpoint):
        return _size_of_files(locate(run.checkpoint, series))
    if series.parameters is None:
        raise InputError(f"{run.checkpoint.source}: its size is not known before it is fetched (pretrained.parameters)")
    total = series.parameters_total or series.parameters
    width = round((series.parameters * 64 / 12) ** (1 / 3))  # of a model 64 times as wide as deep
    return Size(series.parameters, total, {"hidden_size": width}, float(total * series.bytes_per_parameter))


def _size_of_files(files: Files) -> Size:
    config = files.config
    tables = int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0)
    tables *= 1 if config.get("tie_word_embeddings") else 2
    return Size(max(1, files.parameters - tables), files.parameters, config, 0.0)


def seconds_of(run: MeasuredRun, settings: Sequence[Setting], size: Size, flops: float) -> float:
    """Forward passes, 2 N a token, and what GPTQ and AWQ compute: their errors are products with Hessians."""
    width = 2 * int(size.config.get("hidden_size") or 1024)  # of inputs, on average over the matrices
    passes = 2.0 * size.parameters * tokens_of(run, settings)
    tries = sum((s.grid or 0) + CLIPPINGS for s in settings if s.method == "awq")
    walks = 3 * sum(s.method == "gptq" for s in settings)
    return (passes + 2.0 * size.blocks * width * (tries + walks)) / flops


def scratch_of(run: MeasuredRun, settings: Sequence[Setting], size: Size) -> float:
    """Bytes of the files that hold the original matrices, and the statistics of what enters them."""
    own = size.blocks * getattr(torch, run.runtime.dtype).itemsize
    calibrates = any(setting.calibration_tokens for setting in settings)
    # A group of matrices of (out, in) has (in, in) numbers in float64; outs are about twice the ins together.
    return own + (size.blocks * 8 / 2 if calibrates else 0)


def flops_here(device: torch.device) -> float:
    """FLOP/s of a product of matrices, measured for a tenth of a second."""
    x = torch.ones(768, 768, device=device)
    x @ x
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < 0.1:
        float((x @ x)[0, 0])
        done += 1
    return 2.0 * 768**3 * done / spent
