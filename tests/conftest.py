import contextlib
import copy
import functools
import io
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]

# Tests make thousands of small files and flush each to its disk. Read when the first folder is made.
if os.access(MEMORY := "/dev/shm", os.W_OK) and shutil.disk_usage(MEMORY).free > 2e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
# Before the first run: tests of two processes with two threads each would slow each other down.
os.environ.setdefault("WANDB_SILENT", "true")
torch.set_num_threads(1)


def slow(*values):
    """Cases of a parametrized test that `make test` leaves to `make test-slow`."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow) for value in values
    ]


TINY = (
    "model=2k",
    "data=synthetic",
    "data.corpus.alphabet=8",
    "data.corpus.documents=400",
    "data.corpus.document_tokens=256",
    "data.validation_documents=64",
    "data.eval_windows=64",
    "data.sequence_length=32",
    "data.batch_tokens=128",
    "data.tokens=5120",
    "schedule.warmup_tokens=512",
    "ptq.formats=[int3,int4]",
    "tracking=off",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.compile=off",
)


@pytest.fixture(scope="session")
def corpus_cache(tmp_path_factory):
    """Tokenized corpora, shared by all tests of a session."""
    return tmp_path_factory.mktemp("cache")


@functools.cache
def _loader():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from scaling.config.compose import BEHAVIOUR

    with initialize_config_dir(str(REPOSITORY / "configs"), **BEHAVIOUR):
        return GlobalHydra.instance().config_loader()


@functools.cache
def _parsed(override):
    """`setting=value` -> the setting, its value, and whether the choice of files depends on it."""
    from scaling.study.grid import axes

    ((key, (value,)),) = axes([override], _loader()).items()
    return key, value


@functools.cache
def _composed(command, choices):
    from hydra import compose, initialize_config_dir

    from scaling.config.compose import BEHAVIOUR

    with initialize_config_dir(str(REPOSITORY / "configs"), **BEHAVIOUR):
        return compose(command, list(choices))


def settings_of(command, *overrides):
    """The project's own settings of a command with these overrides, as plain values.

    Hydra composes once for each choice of groups, and values are set on copies, as in studies (scaling/study/grid.py,
    whose tests compare that with what Hydra composes): hundreds of tests make thousands of runs."""
    from omegaconf import OmegaConf

    from scaling.config.compose import plain_config

    values = dict(map(_parsed, overrides))
    config = copy.deepcopy(_composed(command, tuple(value.text for value in values.values() if value.composed)))
    for key, value in values.items():
        if not value.composed:
            OmegaConf.update(config, key, value.value)
    return plain_config(config)


@pytest.fixture
def make_run(tmp_path, corpus_cache):
    """make_run("precision.weights=int4", ...) -> Run: the project's own configs, with 40 steps of a tiny model."""
    from scaling.config.run import build_run

    place = (f"runtime.out={tmp_path / 'outputs'}", f"runtime.cache={corpus_cache}")
    return lambda *overrides: build_run(settings_of("train", *TINY, *place, *overrides))


@pytest.fixture
def full_above():
    """full_above(bytes): a context in which no file can be longer, which stands for a disk that is full. What is
    printed in it goes to no file."""

    @contextlib.contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
