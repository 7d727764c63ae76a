"""Lets Hydra find the user's own ./configs and ./sweeps beside those that are shipped, in programs of this project.

Hydra executes this file in every Hydra program of the environment.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ScalingFolders(SearchPathPlugin):
    """Appends them to the search path: what is shipped comes first, so that a file of the same name changes nothing."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from scaling.config.compose import CONFIGS, user_folders

        main = next((element for element in search_path.get_path() if element.provider == "main"), None)
        if main is not None and main.path.removeprefix("file://") == str(CONFIGS):
            for folder in user_folders():
                search_path.append(provider="user", path=f"file://{folder}")
            # Hydra checks a file against the registered config of its name, which here is that of the launcher whose
            # place configs/hydra/launcher/submitit_slurm.yaml takes.
            ConfigStore.instance().repo["hydra"]["launcher"].pop("submitit_slurm.yaml", None)
