"""What may be said of models that others trained: a series, its checkpoints, and the run that measures one of them.

The files of configs/pretrained/ describe series. `scaling.pretrained.presets` makes of one, and of the revisions that
are asked for, a `MeasuredRun` for each checkpoint: what its run folder stores, and what its id is a hash of.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from scaling.config.batching import Batched, check_division
from scaling.config.data import DataConfig
from scaling.config.from_dict import Settings, build, plain
from scaling.config.limits import Count, FolderName, NotEmpty, Share
from scaling.config.precision import Precision
from scaling.config.ptq import PTQConfig
from scaling.config.run import Run, build_run, resolved_runtime
from scaling.config.runtime import RuntimeConfig
from scaling.config.schedule import ScheduleConfig
from scaling.config.tracking import TrackingConfig
from scaling.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantConfig(Settings):
    """A sibling of a series: the same models from other data, or with another seed."""

    repository: str
    revision: str | None = None
    """As in the series, where null."""
    tokens_per_step: Count | None = None
    """As in the series, where null."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesConfig(Settings):
    """A series of checkpoints of one model, as others have published it, or folders of one's own."""

    name: Annotated[str, FolderName()]
    """Of the series: part of run ids, and the cluster of its rows."""
    repository: str | None
    """On the hub, as `owner/name`; null: local, see `path`."""
    path: tuple[str, ...] = ()
    """Folders of checkpoints in the layout of transformers, .gguf files, or patterns of these; `package:NAME/FILE` is a
    file of an installed Python package."""
    files: Literal["revisions", "folders"] = "revisions"
    """How a repository holds its checkpoints: each is a revision (branch), or a folder of the main one."""
    revision: str = "main"
    """Name of a revision, with `{step}` and `{billions}`, the tokens in billions, rounded up, in place of numbers."""
    steps: tuple[str, ...] = ()
    """Which steps there are: numbers, and ranges as `first:last:stride`."""
    final: str | None = None
    """Name of the revision of the last step, where it is not that of the others."""
    tokens_per_step: Count | None = None
    """D of a checkpoint is its step times this. null: not known, unless `tokens` says it."""
    tokens: tuple[Count, ...] = ()
    """D of each checkpoint that is asked for, in their order, where no rule gives it."""
    variants: dict[str, VariantConfig] = dataclasses.field(default_factory=dict)
    variant: str | None = None
    """Which of the variants; null: the series itself."""
    parameters: Count | None = None
    """N, without embeddings, as stated; what is measured is counted again."""
    parameters_total: Count | None = None
    bytes_per_parameter: Count = 2
    """Of the published files: for what a plan says of the download."""
    licence: str | None = None
    schedule: ScheduleConfig | None = None
    """Of the learning rate in training; null: not known."""
    total_tokens: Count | None = None
    """At which that schedule ends."""
    tokenizer: str | None = None
    """Repository or folder of the tokenizer, where the checkpoints come without it."""
    start_token: bool = False
    """Whether every window gets the tokenizer's first token in front, on which no loss is taken: models that were never
    trained without one (Gemma) are lost without it."""
    loaded: bool = False
    """Whether somebody has loaded the series with this program yet."""
    pickle: bool = False
    """Whether checkpoints that are stored as pickles may be read."""
    remote_code: bool = False
    """Whether code that comes with a checkpoint may be run."""
    keep: bool = True
    """false: a revision's files leave the cache of the hub once it is measured."""
    least_share: Share = 0.9
    """Share of N that has to be quantized: a model of which less can be is refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint(Settings):
    """One model that others trained."""

    series: Annotated[str, FolderName()]
    revision: Annotated[str, NotEmpty()]
    repository: str | None
    folder: str | None
    """Where it lies: a local folder or .gguf file, or a folder within the repository."""
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
        """What its numbers depend on, wherever it lies."""
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
