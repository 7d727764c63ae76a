"""A function that Hydra runs as a job: it returns what a sweeper may minimize, or raises.

Hydra keeps what a job raises, and raises it again below a line of its own about the job's overrides. A sweeper needs
that; a person who asked for one run gets one line instead, for which the fault is carried past Hydra.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scaling.config import compose
from scaling.console.cli import EXPECTED, UnfinishedError, one_line
from scaling.console.terminal import note

Job = Callable[[DictConfig], Any]


class _Carried(BaseException):
    """Not an `Exception`, so that Hydra lets it pass."""

    def __init__(self, fault: Exception):
        super().__init__(fault)
        self.fault = fault


def hydra_job(job: Job) -> Job:
    """Let what a module's function raises out of `start` as it is."""

    @functools.wraps(job)
    def carrying(config: DictConfig) -> Any:
        try:
            return job(config)
        except EXPECTED as fault:
            if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.RUN:
                raise _Carried(fault) from None
            raise

    return carrying


def start(config_name: str, job: Job) -> None:
    """Compose the settings of the command line, and run the job with them; with --multirun a sweeper runs many.

    Raises:
        InputError: an override lets Hydra choose a folder. Besides, whatever the job or the sweeper raises.
    """
    compose.check_places(sys.argv[1:])
    # Not a decorator: workers look a job up by its name, which then has to lead to a function that takes its settings.
    try:
        hydra.main(config_path=str(compose.CONFIGS), config_name=config_name, **compose.BEHAVIOUR)(job)()
    except _Carried as carried:
        raise carried.fault from None


def is_done(job: Job, config: DictConfig) -> bool:
    """Run a job that is one of many, whose work is found on disk: a fault of its settings is said, and stops no other.

    Returns:
        Whether the job has done its work.
    """
    try:
        job(config)
    except UnfinishedError:  # whose runs were named
        return False
    except EXPECTED as fault:
        note(one_line(fault))
        return False
    return True
