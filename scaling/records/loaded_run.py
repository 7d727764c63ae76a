"""A finished run for a person or another program: its settings, its model, its losses and its quantizations."""

import dataclasses
import html
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from scaling.config.from_dict import plain
from scaling.config.pretrained.measured_run import MeasuredRun
from scaling.config.run import Run
from scaling.console.terminal import note
from scaling.data.corpus import Corpus, Windows
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.model.module import Transformer
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import VAL_CURVE, RunFolder

SHOWN = ("setting", "loss", "loss_se", "gap", "gap_se")
"""Of a quantization, what a notebook shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A finished run. What is large is read when it is asked for."""

    folder: RunFolder
    result: dict[str, Any]
    """What result.json holds: losses in nats a token with their standard errors, N, D, versions, ..."""

    @property
    def config(self) -> Run:
        """Its resolved settings; `config.run_id`, `config.N`, `config.data.tokens`, ..."""
        return self.folder.run

    @property
    def settings(self) -> dict[str, Any]:
        """The same as nested dicts of plain values."""
        return plain(self.config)

    @cached_property
    def model(self) -> Transformer:
        """The model at the end of training, on the CPU: a `torch.nn.Module`. `model(tokens)` are logits;
        `model.losses(run.held_out())` are the losses of the record.

        Raises:
            InputError: the checkpoint is missing or damaged.
        """
        run = self.config
        return Transformer(
            Checkpoint.load(self.folder.checkpoint_path).weights,
            run.model,
            run.precision,
            sequences=run.evaluated_at_once(run.precision),
            dtype=getattr(torch, run.runtime.dtype),
        )

    @cached_property
    def windows(self) -> pd.DataFrame:
        """A row a held-out window: `documents`, the document that it is from, and a column for each evaluation with its
        losses, in nats a token: `<tokens>`, or `<tokens>/<setting>` after a quantization.

        Raises:
            InputError: the file is damaged or another run's.
        """
        return pd.DataFrame(self.folder.windows()).rename_axis("window")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row a quantization of the model, or of its snapshots, with the columns of `ptq.jsonl`.

        Raises:
            InputError: the file is damaged or another run's.
        """
        return pd.DataFrame(self.folder.ptq())

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The training curve: tokens, loss_train, grad_norm, lr.

        Raises:
            InputError: it is missing or damaged.
        """
        return pd.DataFrame(self.folder.curve())

    @cached_property
    def val_curve(self) -> pd.DataFrame:
        """Losses on a few held-out windows while it was trained: tokens, loss_val. Empty where they were not measured.

        Raises:
            InputError: it is damaged.
        """
        return pd.DataFrame(self.folder.curve(VAL_CURVE), columns=["tokens", "loss_val"])

    def held_out(self, cache: Path | str | None = None) -> torch.Tensor:
        """The held-out windows (n, T+1) as tokens, in the order of `windows`. Their corpus is in the folder `cache`,
        by default that of the run's settings, and is built there where it is missing.

        Raises:
            InputError: the corpus cannot be made, or is another now.
        """
        _, windows = data_of(self.folder, self.result, Path(cache or self.config.runtime.cache))
        return torch.from_numpy(windows.tokens)

    def __repr__(self) -> str:
        last = self.result["evaluations"][-1:]
        loss = "diverged" if self.result["diverged"] or not last else f"loss {last[0]['loss']:.4f}"
        return f"{self.config.run_id}: N={self.config.N:,}, D={self.config.D:,}, {loss}"

    def _repr_html_(self) -> str:
        rows = self.rows[[name for name in SHOWN if name in self.rows]]
        return f"<p>{html.escape(repr(self))}</p>{rows.to_html(index=False, float_format='{:.4f}'.format)}"


def load_run(path: Path | str) -> LoadedRun:
    """Read the folder of a finished run.

    Raises:
        InputError: there is no finished run, or a file of it is damaged.

    >>> from scaling import load_run
    >>> run = load_run("tests/scaling/fixtures/stored/n1.8k-d5.1k-cosine-w8a8kv8-s0-20bdfecd7c")
    >>> run
    n1.8k-d5.1k-cosine-w8a8kv8-s0-20bdfecd7c: N=1,792, D=5,120, loss 1.9636
    >>> run.config.precision.weights, run.config.data.batch_tokens
    ('int8', 128)
    >>> sum(weight.numel() for weight in run.model.parameters())
    1936
    >>> run.rows[["tokens_seen", "format_post", "loss", "gap"]].tail(2).round(4)
       tokens_seen format_post    loss     gap
    6         5120        int3  1.9637  0.0002
    7         5120        int4  1.9644  0.0008
    >>> f"{run.windows['5120'].mean():.4f}"
    '1.9636'
    """
    folder = RunFolder.at(Path(path))
    result = folder.result()
    if result is None:
        raise InputError(f"{path}: not the folder of a finished run (no result.json that validates)")
    if isinstance(folder.run, MeasuredRun):
        raise InputError(f"{path}: of {folder.run.checkpoint.source}, which others trained; its weights lie there")
    return LoadedRun(folder=folder, result=result)


_corpora: dict[tuple[str, Path], tuple[Corpus, Windows]] = {}


def data_of(folder: RunFolder, result: dict[str, Any], cache: Path) -> tuple[Corpus, Windows]:
    """The corpus and the held-out windows that a finished run has seen; `cache` is where corpora are.

    Raises:
        InputError: they are others now.
    """
    data = dataclasses.replace(folder.run.data, tokens=folder.run.data.batch_tokens, repeat=False)
    key = str(data), cache.absolute()
    if key not in _corpora:
        corpus = prepare(data, cache, note)
        _corpora[key] = corpus, corpus.windows(data.eval_windows, data.sequence_length)
    corpus, windows = _corpora[key]
    if (corpus.data_sha, windows.sha) != (result["data_sha"], result["eval_sha"]):
        raise InputError(f"{folder.path}: was trained on other tokens, the corpus has changed since")
    return corpus, windows
