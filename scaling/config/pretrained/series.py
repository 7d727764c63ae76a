"""What may be said of a series of checkpoints: the settings of the files of configs/pretrained/."""

import dataclasses
from typing import Annotated, Literal

from scaling.config.from_dict import Settings
from scaling.config.limits import Count, FolderName, Share
from scaling.config.schedule import ScheduleConfig


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
    """Of the published files: for the download that a plan shows."""
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
