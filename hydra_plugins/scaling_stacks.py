"""Makes the stack sweeper and its way to SLURM known to Hydra, which looks for plugins only below `hydra_plugins`.

Hydra executes this file in every Hydra program of the environment, so it imports nothing of the project until a sweep
is asked for.
"""

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper


class StackSweeper(Sweeper):
    """`scaling.study.sweeper.StackSweeper` under a name that Hydra accepts."""

    def __init__(self, **settings):
        from scaling.study.sweeper import StackSweeper as Real

        self._real = Real(**settings)

    def setup(self, **context) -> None:
        self._real.setup(**context)

    def sweep(self, arguments: list[str]) -> None:
        self._real.sweep(arguments)


class SlurmLauncher(Launcher):
    """Holds the settings of configs/hydra/launcher/submitit_slurm.yaml, which the sweeper reads: it sends its stacks to
    SLURM itself (`scaling.study.slurm`)."""

    def __init__(self, **settings):
        self.settings = settings

    def setup(self, **context) -> None:
        pass

    def launch(self, job_overrides, initial_job_idx):
        from scaling.errors import InputError

        raise InputError("hydra/launcher=submitit_slurm: works with hydra/sweeper=stacks")


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="stacks",
    provider="scaling",
    node={"_target_": "hydra_plugins.scaling_stacks.StackSweeper", "params": None, "grids": [], "largest_N": None},
)
