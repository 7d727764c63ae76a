"""The run that measures one model that others trained: what its folder stores, and what its id is a hash of."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from scaling.config.batching import Batched, check_division
from scaling.config.data import DataConfig
from scaling.config.from_dict import Settings, build, plain
from scaling.config.limits import Count, FolderName, NotEmpty
from scaling.config.precision import Precision
from scaling.config.pretrained.series import SeriesConfig
from scaling.config.ptq import PTQConfig
from scaling.config.run import Run, build_run, resolved_runtime
from scaling.config.runtime import RuntimeConfig
from scaling.config.schedule import ScheduleConfig
from scaling.config.tracking import TrackingConfig
from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint(Settings):
    """One model that others trained."""

    series: Annotated[str, FolderName()]
    revision: Annotated[str, NotEmpty()]
    repository: str | None
    folder: str | None
    """Where it is stored: a local folder or .gguf file, or a folder within the repository."""
    sha: str | None
    """sha256 of a local one's files."""
    tokens: Count | None
    """D; null: not known."""
    tokenizer: str | None
    start_token: bool
    tokens_per_step: Count | None
    schedule: ScheduleConfig | None
    total_tokens: Count | None
    licence: str | None

    @property
    def source(self) -> str:
        """As the table names it: repository@revision, or the path."""
        if self.repository is None:
            return str(self.folder)
        return f"{self.repository}@{self.revision}"

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, wherever it is stored."""
        place = {"sha": self.sha} if self.repository is None else {"source": self.source, "folder": self.folder}
        return {**place, "tokens": self.tokens, "tokenizer": self.tokenizer, "start_token": self.start_token}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRun(Batched, Settings):
    """One checkpoint of others, measured as those of this program are."""

    study: Annotated[str, FolderName()]
    checkpoint: Checkpoint
    data: DataConfig
    """Held-out and calibration text. Its tokenizer is that of the checkpoint; `tokens` and `repeat` mean nothing."""
    precision: Precision
    """Nothing in it is quantized: its granularities and rules are those of activations and KV cache, where `ptq` does
    not say."""
    ptq: PTQConfig
    tracking: TrackingConfig
    runtime: RuntimeConfig

    def __post_init__(self):
        super().__post_init__()
        if self.precision != self.precision.unquantized():
            raise InputError("precision: the model is there already; what is quantized in it is a matter of ptq")
        check_division(self.data, self.tokens_at_once)

    @property
    def D(self) -> int | None:
        return self.checkpoint.tokens

    @property
    def tokens_seen(self) -> int:
        """What names its evaluation in the run folder: D, or 0 where nobody knows it."""
        return self.checkpoint.tokens or 0

    @property
    def evaluated_tokens(self) -> list[int]:
        """Token counts at which the model is evaluated."""
        return [self.tokens_seen]

    def identity(self) -> dict[str, Any]:
        """The resolved fields that could change the numbers; its hash is part of the run id."""
        data = {k: v for k, v in plain(self.data).items() if k not in ("tokens", "repeat", "tokenizer")}
        return {"checkpoint": self.checkpoint.identity(), "data": data, "dtype": self.runtime.dtype}

    @property
    def run_id(self) -> str:
        """Series, revision and the hash of the identity."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:10]
        revision = re.sub(r"[^\w.-]+", "-", self.checkpoint.revision)[-60:].lstrip("-.")
        series = self.checkpoint.series.encode()[:50].decode(errors="ignore")
        return f"{series}-{revision}-{digest}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureJob(Settings):
    """What `python -m scaling.pretrained` is asked to do."""

    study: Annotated[str, FolderName()]
    pretrained: SeriesConfig
    revisions: tuple[str, ...]
    """Names of revisions, or steps; `all`; empty: the last one (of local paths all)."""
    data: DataConfig
    precision: Precision
    ptq: PTQConfig
    tracking: TrackingConfig
    runtime: RuntimeConfig
    plan: bool
    """Only say what it would take."""


def build_stored(values: Mapping[str, Any]) -> Run | MeasuredRun:
    """The run that a run folder stores, of either kind.

    Raises:
        InputError: one line with the full key of the offending value.
    """
    if isinstance(values, Mapping) and "checkpoint" in values:
        return build_measured(values)
    return build_run(values)


def build_measured(values: Mapping[str, Any]) -> MeasuredRun:
    """A checked `MeasuredRun` from a plain dict, its dtype resolved: that is part of its identity.

    Raises:
        InputError: one line with the full key of the offending value.
    """
    run = build(MeasuredRun, values)
    return dataclasses.replace(run, runtime=resolved_runtime(run.runtime))
