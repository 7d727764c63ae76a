"""Studies on a SLURM that is started for the tests of this folder, in a scratch folder, and stopped behind them:
`make test-slurm`. What a run comes out with is compared, bit for bit, with the same run that nothing disturbed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.config.run import Run
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder
from scaling.study.jobs import read_stack
from scaling.training.loop import train_stack
from tests.conftest import REPOSITORY, TINY
from tests.scaling.training.test_loop import assert_same
from tests.slurm.cluster import Cluster, missing

PATIENCE = 240.0
"""Seconds until something that has to happen counts as missing."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if lacking := missing():
        pytest.skip(f"no SLURM here ({', '.join(lacking)}); apt-get install --no-install-recommends slurm-wlm munge")
    cluster = Cluster(tmp_path_factory.mktemp("slurm")).start()
    yield cluster
    cluster.stop()


@pytest.fixture(autouse=True)
def on_cluster(cluster, monkeypatch):
    """Commands of this process ask the tests' SLURM too. Each test leaves it empty."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    yield
    cluster.empty()


def eventually(is_so, seconds: float = PATIENCE):
    """What `is_so()` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.2)
    return found


class Study:
    """A study of tiny runs that take some seconds each, sent to the tests' SLURM."""

    def __init__(self, cluster: Cluster, folder: Path, cache: Path, *settings: str):
        self.cluster, self.folder = cluster, folder
        place = (f"runtime.out={folder / 'outputs'}", f"runtime.cache={cache}", "study=mine")
        self.settings = (*TINY, *place, "data.tokens=128000", "data.repeat=true", *settings)
        self.launcher = (
            "hydra/launcher=submitit_slurm",
            *(f"hydra.launcher.{setting}" for setting in ("partition=low", "timeout_min=30", "poll_s=1")),
        )

    def start(self, *more: str, command: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
        """The sweep. `command` goes in front of it, such as one of SLURM."""
        return subprocess.Popen(
            [*command, sys.executable, "-m", "scaling.train", "--multirun", *self.settings, *self.launcher, *more],
            cwd=REPOSITORY,
            env={**self.cluster.environment, "PYTHONPATH": str(REPOSITORY), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, *more: str, **environment: str) -> tuple[int, str]:
        return ended(self.start(*more, **environment))

    def status(self) -> str:
        """What `scaling.sweep status` prints, which asks the folders and the queue."""
        (self.folder / "sweeps").mkdir(exist_ok=True)
        settings = [setting for setting in self.settings if not setting.startswith("study=")]
        grid = [setting for setting in settings if "," in setting and "[" not in setting]
        params = {name: value for name, _, value in (setting.partition("=") for setting in grid)}
        text = {"study": "mine", "hydra": {"mode": "MULTIRUN", "sweeper": {"params": params}}}
        (self.folder / "sweeps" / "mine.yaml").write_text(f"# @package _global_\n{json.dumps(text)}\n")
        done = subprocess.run(
            [sys.executable, "-m", "scaling.sweep", "status", "mine", "--ids"]
            + [setting for setting in settings if setting not in grid],
            cwd=self.folder,
            env={**self.cluster.environment, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def runs(self) -> list[Run]:
        """Of all stacks that were sent."""
        files = sorted((self.folder / "outputs/mine/stacks").glob("*.json"))
        found = [run for path in files for run in read_stack(path)]
        return list({run.run_id: run for run in found}.values())

    def folders(self) -> list[RunFolder]:
        return [RunFolder(run) for run in self.runs()]

    def log(self) -> str:
        """What the jobs have said."""
        paths = sorted((self.folder / "outputs/mine/slurm").glob("*/*.err"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def is_training(self, since: list[int] | None = None) -> bool:
        """Whether every run has taken some steps, behind those of these checkpoints where they are given."""
        folders = self.folders()
        reached = [_reached(folder) for folder in folders]
        return bool(folders) and all(
            now > 5 + then for now, then in zip(reached, since or [0] * len(folders), strict=True)
        )

    def saved_at(self) -> list[int]:
        """The step of each run's checkpoint."""
        return [Checkpoint.load(folder.checkpoint_path).step for folder in self.folders()]

    def check(self) -> None:
        """All runs are done, and are those that nothing disturbed."""
        reference = self.folder / "undisturbed"
        if not reference.exists():
            settings = [*self.settings, f"runtime.out={reference}"]
            command = [sys.executable, "-m", "scaling.train", "--multirun", *settings]
            subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True)
        folders = self.folders()
        assert folders and all(folder.state() == "done" for folder in folders)
        for folder in folders:
            assert_same(folder, RunFolder(folder.run, reference / "mine" / folder.run.run_id))


def _reached(folder: RunFolder) -> int:
    """The step of the last whole point of a run's curve."""
    path = folder.path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1])["tokens"] // folder.run.data.batch_tokens if whole else 0


def ended(process: subprocess.Popen, seconds: float = 2 * PATIENCE) -> tuple[int, str]:
    """The exit status of a process and what it said."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end in {seconds:.0f} s:\n{out}{err}") from None
    assert "Traceback" not in err
    return process.returncode, err


@pytest.fixture
def steps_in(make_run):
    """steps_in(60): about how many steps this machine takes in so many seconds, busy as it is."""

    def count(seconds: float) -> int:
        (run,) = [make_run("study=speed", "data.tokens=12800", "data.repeat=true", "ptq=none")]
        train_stack([run])
        return int(seconds * run.steps / RunFolder(run).result()["seconds"])

    return count


@pytest.fixture
def study(cluster, tmp_path, corpus_cache):
    """study("seed=0,1", ...): a study of tiny runs in a folder of its own."""
    return lambda *settings: Study(cluster, tmp_path, corpus_cache, *settings)
