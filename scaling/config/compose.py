"""What Hydra composes from the files of configs/, as plain values. Imports nothing heavy: `--help` asks as well."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from packaging.version import Version

from scaling.config.limits import FolderName
from scaling.errors import InputError
from scaling.numbers import number


def part_of(tokens: Any, parts: int, most: int | None = None) -> int | None:
    """`${part_of:TOKENS,PARTS,MOST}` in a file of configs/: one of so many parts, and at most so much.

    None where TOKENS is no number: what is wrong with it is said where it is read.
    """
    try:
        part = int(number(tokens)) // parts
    except (TypeError, ValueError, OverflowError):
        return None
    return part if most is None else min(part, most)


OmegaConf.register_new_resolver("part_of", part_of, replace=True)

OF_A_STUDY = ("mode", "sweeper", "launcher")
"""What a study's file may set of Hydra, which makes objects of any class that some other settings name."""
CONFIGS = Path(__file__).parents[1] / "configs"
"""What is shipped: in a checkout a link to configs/ and its sweeps, in an installed package the files themselves."""

BEHAVIOUR = {"version_base": "1.3"} if Version(hydra.__version__) < Version("1.4.dev0") else {}
"""Hydra 1.3 wants to be told that its own defaults are meant, and 1.4 not to be told."""


def user_folders() -> list[Path]:
    """Folders of the user's own, in which Hydra looks as well: ./configs for choices of any group, and the working
    folder for the studies of ./sweeps. None in the checkout, whose folders are those that are shipped."""
    here, shipped = Path.cwd(), Path(__file__).parents[1] / "configs"
    if (here / "configs").resolve() == shipped.resolve():
        return []
    own = {here / "configs": here / "configs", here / "sweeps": here}
    return [folder for asked, folder in own.items() if asked.is_dir()]


def study_file(name: str) -> Path | None:
    """The file of sweeps/, shipped or the user's own, that has this name; None if there is none.

    Raises:
        InputError: the name can name no study, or the file is not that of one.
    """
    if not FolderName().allows(name):
        raise InputError(f"study={name}: must be {FolderName()}")
    paths = [folder / "sweeps" / f"{name}.yaml" for folder in (CONFIGS, *user_folders())]
    path = next(filter(Path.is_file, paths), None)
    if path is not None:
        _check_study(path, name)
    return path


def _check_study(path: Path, name: str) -> None:
    """Raise InputError where Hydra would pass over what the file says, or follow it to other programs than a sweep."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as fault:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(fault).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: has no settings; expected those of a study, such as study: {name}")
    head = itertools.takewhile(lambda line: not line or line[0] == "#", map(str.strip, text.splitlines()))
    if not any(re.fullmatch(r"#\s*@package\s+_global_", line) for line in head):
        raise InputError(f"{path}: add the line `# @package _global_` at its head, or nothing of it is used")
    if not isinstance(content.get("study"), str):
        raise InputError(f"{path}: add a line such as `study: {name}`: the folder of its runs below runtime.out")
    about_hydra = content.get("hydra") or {}
    if not isinstance(about_hydra, dict):
        raise InputError(f"{path}: hydra={about_hydra}: expected a group of settings")
    if other := [str(key) for key in about_hydra if key not in OF_A_STUDY]:
        raise InputError(f"{path}: hydra.{other[0]}: a study sets only {', '.join(OF_A_STUDY)} of Hydra")
    for key, settings in about_hydra.items():
        if isinstance(settings, dict) and "_target_" in settings:
            raise InputError(f"{path}: hydra.{key}._target_: a study names no program; choose one in its defaults")


def check_places(overrides: Sequence[str]) -> None:
    """Raise InputError where Hydra is told to choose a folder, which would then hold nothing of a run."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
            raise InputError(f"{key}={value}: not used; runs go to runtime.out=FOLDER, below it to study=NAME")


def is_multirun(study: Path) -> bool:
    """Whether a study's file, which `study_file` has found, says that it is more than one run."""
    return (yaml.safe_load(study.read_text(encoding="utf-8")).get("hydra") or {}).get("mode") == "MULTIRUN"


def plain_config(config: DictConfig) -> dict[str, Any]:
    """A composed config with all interpolations resolved; a mandatory value that is missing is a fault."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of one run: those of configs/ with overrides of the command line laid over them."""
    return composed_as("train", overrides)


def composed_as(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The same for the command whose file in configs/ has this name."""
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        return plain_config(compose(name, list(overrides)))
