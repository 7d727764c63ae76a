"""What Hydra composes from the files of configs/, as plain values. Imports nothing heavy: `--help` asks as well."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from scaling.config.limits import FolderName
from scaling.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"
"""What is shipped: in a checkout a link to configs/ and its sweeps, in an installed package the files themselves."""


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
        InputError: the name can name no study.
    """
    if not FolderName().allows(name):
        raise InputError(f"study={name if name.isprintable() else ascii(name)}: must be {FolderName()}")
    paths = [folder / "sweeps" / f"{name}.yaml" for folder in (CONFIGS, *user_folders())]
    return next(filter(Path.is_file, paths), None)


def plain_config(config: DictConfig) -> dict[str, Any]:
    """A composed config with all interpolations resolved; a mandatory value that is missing is a fault."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of one run: those of configs/ with overrides of the command line laid over them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain_config(compose("train", list(overrides)))
