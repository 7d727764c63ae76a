"""Makes the stack sweeper known to Hydra, which looks for plugins only below `hydra_plugins`.

Hydra executes this file in every Hydra program of the environment, so it imports nothing of the project until a sweep
is asked for.
"""

from hydra.core.config_store import ConfigStore
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


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="stacks",
    provider="scaling",
    node={"_target_": "hydra_plugins.scaling_stacks.StackSweeper", "params": None, "grids": [], "largest_N": None},
)
