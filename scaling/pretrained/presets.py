"""Which checkpoints are asked for: those of a series of the hub by their steps, local ones by their paths."""

import dataclasses
import difflib
import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path

from scaling.config.data import HfTokenizer, SyntheticCorpus
from scaling.config.from_dict import build, nearest
from scaling.config.pretrained.measured_run import Checkpoint, MeasuredRun, MeasureJob
from scaling.config.pretrained.series import SeriesConfig
from scaling.config.run import resolved_runtime
from scaling.config.schedule import ScheduleConfig
from scaling.errors import InputError
from scaling.pretrained.files import PACKAGE, local_path, local_sha

ALL, MAIN = "all", "main"
TRAINING = "training.json"
"""Beside a checkpoint that this program has exported: what its training says (`scaling.export`)."""


def runs_of(job: MeasureJob) -> list[MeasuredRun]:
    """A run for each checkpoint that a job names, in the order of their tokens as far as these are known.

    Raises:
        InputError: no such variant, revision or path, or a study that cannot be made of them.
    """
    series = with_variant(job.pretrained)
    checkpoints = list(_local(series) if series.repository is None else _published(series, job.revisions))
    if job.revisions and series.repository is None:
        checkpoints = _chosen(checkpoints, job.revisions)
    # Neither the horizon nor the tokenizer of configs/data/ is of use here.
    tokenizer = job.data.tokenizer
    if not isinstance(job.data.corpus, SyntheticCorpus):
        tokenizer = HfTokenizer(name="the checkpoint's own")
    data = dataclasses.replace(job.data, tokens=job.data.batch_tokens, repeat=False, tokenizer=tokenizer)
    runs = [
        MeasuredRun(
            study=job.study,
            checkpoint=checkpoint,
            data=data,
            precision=job.precision,
            ptq=job.ptq,
            tracking=job.tracking,
            runtime=resolved_runtime(job.runtime),
        )
        for checkpoint in checkpoints
    ]
    return list({run.run_id: run for run in sorted(runs, key=lambda run: run.tokens_seen)}.values())


def with_variant(series: SeriesConfig) -> SeriesConfig:
    """The series, or its sibling that `variant` names."""
    if series.variant is None:
        return series
    if series.variant not in series.variants:
        known = nearest(series.variant, series.variants) if series.variants else "it has none"
        raise InputError(f"pretrained.variant={series.variant}: no such sibling of {series.name}; {known}")
    sibling = series.variants[series.variant]
    changes = {k: v for k, v in vars(sibling).items() if v is not None}
    return dataclasses.replace(series, name=f"{series.name}-{series.variant}", **changes)


# -- on the hub --------------------------------------------------------------------------------------------------------


def steps_of(series: SeriesConfig) -> list[int]:
    """All steps that a series has published, in order.

    Raises:
        InputError: a range that is none.
    """
    steps: list[int] = []
    for entry in series.steps:
        match = re.fullmatch(r"(\d+)(?::(\d+):([1-9]\d*))?", entry)
        if not match:
            raise InputError(f"pretrained.steps={entry}: expected a number, or first:last:stride")
        first = int(match[1])
        steps += range(first, int(match[2]) + 1, int(match[3])) if match[2] else [first]
    return sorted(set(steps))


def revision_name(series: SeriesConfig, step: int) -> str:
    """The name of the revision of a step."""
    known = steps_of(series)
    if series.final is not None and known and step == known[-1]:
        return series.final
    # Rounded up, as those who name them do.
    billions = -(-step * (series.tokens_per_step or 0) // 10**9)
    return series.revision.format(step=step, billions=billions)


def tokens_named(series: SeriesConfig, name: str) -> int | None:
    """D of a revision, as far as its name and the series say. None: nobody knows, or nothing was trained yet."""
    pattern = re.sub(r"\\{(\w+)[^}]*\\}", r"(?P<\1>\\d+)", re.escape(series.revision))
    match = re.fullmatch(pattern, name)
    parts = match.groupdict() if match else {}
    numbers = re.findall(r"\d+", name)
    if series.tokens_per_step is not None:
        step = parts.get("step") or (numbers[-1] if numbers and not match else None)
        return (step and int(step) * series.tokens_per_step) or None
    return int(parts["billions"]) * 10**9 if "billions" in parts else None


def _published(series: SeriesConfig, asked: tuple[str, ...]) -> Iterator[Checkpoint]:
    steps = steps_of(series)
    by_name = {revision_name(series, step): step for step in steps}
    if not asked:
        if not steps and series.files == "folders":
            raise InputError(f"revisions=[]: the checkpoints of {series.name} are folders; name them")
        asked = (str(steps[-1]),) if steps else (series.final or MAIN,)
    elif asked == (ALL,):
        if not steps:
            raise InputError(f"revisions=all: the steps of {series.name} are not known here; name its revisions")
        asked = tuple(map(str, steps))
    if series.tokens and len(series.tokens) != len(asked):
        raise InputError(f"pretrained.tokens: {len(series.tokens)} numbers for {len(asked)} revisions; give one each")
    for i, name in enumerate(asked):
        step = by_name.get(name, int(name) if name.isdigit() else None)
        _check_step(series, i, name, step, steps, by_name)
        is_rule = step is not None and "{step" in series.revision
        revision = revision_name(series, step) if is_rule else name
        if series.tokens:
            tokens = series.tokens[i]
        elif step is not None and series.tokens_per_step is not None:
            tokens = step * series.tokens_per_step or None
        else:
            tokens = tokens_named(series, revision)
        folder = revision if series.files == "folders" else None
        yield _checkpoint(series, revision=revision, folder=folder, tokens=tokens, sha=None)


def _check_step(
    series: SeriesConfig, i: int, name: str, step: int | None, steps: list[int], by_name: dict[str, int]
) -> None:
    """Raise InputError where a series whose steps are known has no such one. Other stages go by their whole names."""
    if not steps or step in steps:
        return
    stem = series.revision.partition("{")[0]
    if step is None and not name.startswith(stem) and name != MAIN and any(c.isdigit() for c in name):
        return  # of another stage, such as stage2-...
    if step is not None:
        nearest_step = min(steps, key=lambda known: abs(known - step))
        hint = f"the nearest is {nearest_step}, {revision_name(series, nearest_step)}"
    else:
        hint = nearest(name, by_name) if len(by_name) < 9 else _near(name, by_name)
    raise InputError(f"revisions[{i}]={name}: no such revision of {series.name}; {hint}")


def _near(name: str, known: dict[str, int]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    first, *_, last = known
    return f"did you mean {close[0]}?" if close else f"they are {first} ... {last}, or their numbers"


def _checkpoint(series: SeriesConfig, **of_one) -> Checkpoint:
    return Checkpoint(
        **{
            "series": series.name,
            "repository": series.repository,
            "tokenizer": series.tokenizer,
            "start_token": series.start_token,
            "tokens_per_step": series.tokens_per_step,
            "schedule": series.schedule,
            "total_tokens": series.total_tokens,
            "licence": series.licence,
            **of_one,
        }
    )


# -- local -------------------------------------------------------------------------------------------------------------


def _local(series: SeriesConfig) -> Iterator[Checkpoint]:
    if not series.path:
        raise InputError("pretrained.path=[]: name folders of checkpoints, as in 'pretrained.path=runs/step*'")
    paths: list[tuple[str, Path]] = []  # as the table names it, and where it is stored
    for pattern in series.path:
        matches = [Path(path) for path in glob.glob(local_path(pattern))]
        if not matches:
            raise InputError(f"pretrained.path={pattern}: no such folder or file")
        whole = pattern.startswith(PACKAGE)
        paths += [(pattern if whole else str(path), path) for path in sorted(matches, key=_by_number)]
    if series.tokens and len(series.tokens) != len(paths):
        raise InputError(f"pretrained.tokens: {len(series.tokens)} numbers for {len(paths)} checkpoints; give one each")
    for i, (name, path) in enumerate(paths):
        said = _said_by_training(path)
        number = re.findall(r"\d+", path.name)
        tokens = series.tokens[i] if series.tokens else said.get("tokens")
        if tokens is None and series.tokens_per_step is not None and number:
            tokens = int(number[-1]) * series.tokens_per_step or None
        more = {name: said[name] for name in ("schedule", "total_tokens", "tokens_per_step") if name in said}
        if "schedule" in more:
            more["schedule"] = build(ScheduleConfig, more["schedule"], f"{path / TRAINING}: schedule")
        yield _checkpoint(
            series, **{"revision": path.name, "folder": name, "sha": local_sha(path), "tokens": tokens, **more}
        )


def _by_number(path: Path) -> list:
    """So that step9 comes before step10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _said_by_training(path: Path) -> dict:
    try:
        values = json.loads((path / TRAINING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _chosen(checkpoints: list[Checkpoint], asked: tuple[str, ...]) -> list[Checkpoint]:
    """Of local checkpoints those that are named, by name or by the number in it."""
    if asked == (ALL,):
        return checkpoints
    chosen = []
    for i, name in enumerate(asked):
        matches = [c for c in checkpoints if name in (c.revision, *re.findall(r"\d+", c.revision)[-1:])]
        if not matches:
            known = nearest(name, [c.revision for c in checkpoints])
            raise InputError(f"revisions[{i}]={name}: none of pretrained.path; {known}")
        chosen += matches
    return chosen
