"""From what a study says to its runs.

A study is a grid (`hydra.sweeper.params`: setting -> values, as in every Hydra program), or the union of several
(`hydra.sweeper.grids`: a list of such maps, each laid over `params`), because few studies are one full product.
Settings of the command line replace those of the file in every grid. Values stand with commas between, or as a list.

In one of several grids, `parent` names no setting: it says how the run from which a point branches differs from it;
a parent that branches itself has a `parent` of its own.

    params: {data.tokens: 8e6}
    grids:
      - {schedule: constant, snapshots: "[1e6,4e6]"}
      - {schedule: linear, branch.tokens: "1e6,4e6", parent: {schedule: constant, snapshots: "[1e6,4e6]"}}

Hydra composes a config in 70 ms, which makes 465 points slow. Only a choice of groups needs it: points that share their
groups share one composition, and their values are set on copies of it. Points share their parents, too.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from scaling.config.compose import plain_config
from scaling.config.from_dict import takes_list
from scaling.config.run import Run, build_run
from scaling.errors import InputError
from scaling.numbers import number

Params = Mapping[str, Any]


class Value(NamedTuple):
    """One value of one setting."""

    text: str
    """As an override, `setting=value`."""
    value: Any
    composed: bool
    """Whether it changes which files are composed, so that setting it on a copy will not do."""


Point = dict[str, Value]
"""Setting -> its value."""


def study_runs(params: Params, grids: Sequence[Params], arguments: Sequence[str], loader: ConfigLoader) -> list[Run]:
    """The runs of a study, each once, in the order of its grids.

    Args:
        params, grids: those of the study's file; a single point where there are none.
        arguments: overrides of the command line, `sweeps=NAME` among them.
        loader: Hydra's, initialized with the project's configs.

    Raises:
        InputError: a value cannot be used; nothing has been written then.
        HydraException, OmegaConfBaseException: likewise, from the composition.
    """
    known = _Known()
    runs: dict[str, Run] = {}
    seen = set()
    for grid in grids or [{}]:
        ancestors = _ancestors(grid.get("parent"), loader)
        settings = {key: value for key, value in {**params, **grid}.items() if key != "parent"}
        values_of = axes([*_overrides(settings), *arguments], loader)
        for values in product(*values_of.values()):
            point = dict(zip(values_of, values, strict=True))
            # Overrides of the command line often leave several grids the same.
            texts = _texts(point, *ancestors)
            if texts in seen:
                continue
            seen.add(texts)
            run = _branched(point, ancestors, known)
            runs.setdefault(run.run_id, run)
    return list(runs.values())


def up_to(largest_N: float | str | None, runs: list[Run]) -> list[Run]:
    """The runs of at most so many parameters: larger ones can be predicted from these before they are trained.

    Raises:
        InputError: there is none.
    """
    if largest_N is None:
        return runs
    try:
        most = number(largest_N)
    except (TypeError, ValueError):
        raise InputError(f"hydra.sweeper.largest_N={largest_N}: expected a number of parameters") from None
    small = [run for run in runs if most >= run.N]
    if not small:
        least = min(run.N for run in runs)
        raise InputError(f"hydra.sweeper.largest_N={most:g}: no run is that small; the smallest has N = {least:,}")
    return small


def axes(overrides: Sequence[str], loader: ConfigLoader) -> dict[str, list[Value]]:
    """Setting -> its values. A setting that is named twice has the later values."""
    parser = OverridesParser.create(config_loader=loader)
    settings: dict[str, list[Value]] = {}
    for override in parser.parse_overrides(list(overrides)):
        key = override.get_key_element()
        texts = [f"{key}={value}" for value in _values(override)]
        composed = bool(
            override.is_add()
            or override.is_force_add()
            or override.is_delete()
            or override.package
            or _is_group(loader, override.key_or_group)
        )
        parsed = parser.parse_overrides(texts)
        settings[key] = [Value(text, one.value(), composed) for text, one in zip(texts, parsed, strict=True)]
    if len(studies := settings.get("sweeps", [])) > 1:
        raise InputError(f"sweeps={','.join(str(study.value) for study in studies)}: one study at a time")
    return settings


@cache
def _is_group(loader: ConfigLoader, key: str) -> bool:
    """As Hydra's `get_group_options` says, which makes a repository of configs to answer."""
    folders = (source for source in loader.get_sources() if source.is_group(config_path=key))
    return any(folder.list(config_path=key, results_filter=ObjectType.CONFIG) for folder in folders)


def _ancestors(settings: Params | None, loader: ConfigLoader, name: str = "parent") -> list[Point]:
    """How the parent of a point differs from it, how that one's parent differs from that one, and so on."""
    if settings is None:
        return []
    values_of = axes(_overrides({key: value for key, value in settings.items() if key != "parent"}), loader)
    for key, values in values_of.items():
        if len(values) > 1:
            raise InputError(f"{name}.{key}={settings[key]}: a point has one parent; give one value")
    point = {key: values[0] for key, values in values_of.items()}
    return [point, *_ancestors(settings.get("parent"), loader, f"{name}.parent")]


class _Known:
    """What points of a study share."""

    def __init__(self):
        self.compositions: dict[tuple[str, ...], DictConfig] = {}
        """Overrides that choose groups -> what Hydra composes of them."""
        self.run_ids: dict[tuple[frozenset[str], ...], str] = {}
        """Overrides of a parent, and of its ancestors -> its run id."""


def _texts(*points: Point) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(value.text for value in point.values()) for point in points)


def _branched(point: Point, ancestors: Sequence[Point], known: _Known) -> Run:
    """The run of a point, which branches from the run of its parent where there is one."""
    config = _config(point, known)
    if ancestors:
        above = {key: value for key, value in point.items() if not key.startswith("branch.")} | ancestors[0]
        texts = _texts(above, *ancestors[1:])
        if texts not in known.run_ids:
            known.run_ids[texts] = _branched(above, ancestors[1:], known).run_id
        config.branch.parent = known.run_ids[texts]
    return _run(config)


def _config(point: Point, known: _Known) -> DictConfig:
    """The composed config of a point."""
    choices = tuple(value.text for value in point.values() if value.composed)
    if choices not in known.compositions:
        known.compositions[choices] = compose("train", list(choices))
    config = copy.deepcopy(known.compositions[choices])
    for key, value in point.items():
        if not value.composed:
            OmegaConf.update(config, key, value.value)
    return config


def _run(config: DictConfig) -> Run:
    return build_run(plain_config(config))


def _overrides(settings: Params) -> list[str]:
    """Settings of a study's file in the words of Hydra's command line."""
    return [f"{key}={_swept(key, value)}" for key, value in settings.items()]


def _swept(key: str, value: Any) -> str:
    """A list is one value of a setting that is a list itself, and several values of any other."""
    if not isinstance(value, list | tuple | ListConfig):
        return _text(value)
    return _text(value) if takes_list(Run, key) else ",".join(map(_text, value))


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise InputError(f"{override.input_line}: has no list of values; use a,b,c or choice(...) or range(...)")
    return list(override.sweep_string_iterator())
