"""What Hydra composes from the files of configs/, as plain values. Imports nothing heavy: `--help` asks as well."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import hydra
import omegaconf
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


# OmegaConf 2.4 warns of the name that earlier versions have for it, whose `register_resolver` was another.
NAMED_AGAIN = Version(omegaconf.__version__) >= Version("2.4.dev0")
register_resolver = OmegaConf.register_resolver if NAMED_AGAIN else OmegaConf.register_new_resolver
register_resolver("part_of", part_of, replace=True)

OF_A_STUDY = ("mode", "sweeper", "launcher")
"""What a study's file may set of Hydra, which makes objects of any class that some other settings name."""
BENEATH = "common"
"""The file of a group over which its choices are laid; it is no choice itself."""
CONFIG_DIR = ("-cd", "--config-dir")
"""Hydra's options for one more folder of settings."""
CONFIGS = Path(__file__).parents[1] / "configs"
"""What is shipped: in a checkout a link to configs/ and its sweeps, in an installed package the files themselves."""

BEHAVIOUR = {"version_base": "1.3"} if Version(hydra.__version__) < Version("1.4.dev0") else {}
"""Hydra 1.3 takes its own defaults only where this version is given, and 1.4 only where none is."""


_NAMED: ContextVar[tuple[Path, ...]] = ContextVar("_NAMED", default=())
"""What `with_folder` has added."""


@contextlib.contextmanager
def with_folder(name: str | None) -> Iterator[None]:
    """Let choices and studies (its sweeps/) be found in one more folder, that of `--config-dir`; None: in no other.

    Raises:
        InputError: there is no such folder.
    """
    if name is not None and not Path(name).is_dir():
        raise InputError(f"--config-dir {name}: no such folder")
    before = _NAMED.set((*_NAMED.get(), *([] if name is None else [Path(name).absolute()])))
    try:
        yield
    finally:
        _NAMED.reset(before)


def folder_of(arguments: Sequence[str]) -> str | None:
    """The value of `--config-dir` among the arguments of a Hydra program; None without it."""
    folder = None
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        option, given, value = argument.partition("=")
        if option in CONFIG_DIR:
            folder = value if given else following
    return folder


def user_folders() -> list[Path]:
    """Folders of the user's own, in which Hydra looks as well: that of `--config-dir`, ./configs for choices of any
    group, and the working folder for the studies of ./sweeps. In the checkout the last two are those that are shipped.
    """
    here, shipped = Path.cwd(), Path(__file__).parents[1] / "configs"
    if (here / "configs").resolve() == shipped.resolve():
        return list(_NAMED.get())
    own = {here / "configs": here / "configs", here / "sweeps": here}
    return [*_NAMED.get(), *(folder for asked, folder in own.items() if asked.is_dir())]


def groups(name: str) -> dict[str, list[str]]:
    """Group -> its choices: the groups that the command takes whose file in configs/ has this name."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    taken = [group for entry in content["defaults"] if isinstance(entry, dict) for group in entry]
    names: dict[str, set[str]] = {}
    for folder in (CONFIGS, *user_folders()):
        for path in itertools.chain.from_iterable((folder / group).rglob("*.yaml") for group in taken):
            names.setdefault(path.parent.relative_to(folder).as_posix(), set()).add(path.stem)
    return {group: choices_of(names[group]) for group in sorted(names)}


def choices_of(names: Iterable[str]) -> list[str]:
    """The choices among the files of a group: models by their size, others by the alphabet."""

    def order(name: str) -> tuple[float, str]:
        size = re.fullmatch(r"[\d.]+[kM]", name)
        return (number(name) if size else 0.0), name

    return sorted({*names} - {BENEATH}, key=order)


def _listed(name: str) -> str:
    """`${groups:NAME}` in the help of a command."""
    return "\n".join(f"{group}: {', '.join(choices)}" for group, choices in groups(name).items())


register_resolver("groups", _listed, replace=True)


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
    """Raise InputError where an override lets Hydra choose a folder, which would then hold nothing of a run."""
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
