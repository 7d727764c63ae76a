"""What Hydra composes from the files of configs/, as plain values. Imports nothing heavy: `--help` asks as well."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

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


def is_study(name: str) -> bool:
    """Whether a file of sweeps/, shipped or the user's own, has this name."""
    folders = [CONFIGS, *user_folders()]
    # Not Path.is_file, which raises where the name is too long for a file.
    return any(os.path.isfile(folder / "sweeps" / f"{name}.yaml") for folder in folders)


def plain_config(config: DictConfig) -> dict[str, Any]:
    """A composed config with all interpolations resolved; a mandatory value that is missing is a fault."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of one run: those of configs/ with overrides of the command line laid over them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain_config(compose("train", list(overrides)))
