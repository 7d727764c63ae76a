"""What Hydra composes from the files of configs/, as plain values. Imports nothing heavy: `--help` asks as well."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

CONFIGS = Path(__file__).parents[2] / "configs"


def plain_config(config: DictConfig) -> dict[str, Any]:
    """A composed config with all interpolations resolved; a mandatory value that is missing is a fault."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of one run: those of configs/ with overrides of the command line laid over them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain_config(compose("train", list(overrides)))
