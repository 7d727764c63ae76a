"""The package as pip installs it: from a wheel, or editable in the strict sense, it works from an empty folder."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TINY = (
    *("data=synthetic", "data.tokens=2560", "data.batch_tokens=256", "data.sequence_length=64", "data.eval_windows=16"),
    *("schedule.warmup_tokens=256", "data.validation_documents=8", "ptq.formats=[int4]", "tracking=off"),
    *("data.corpus.documents=400", "data.corpus.document_tokens=128", "hydra.launcher.n_jobs=1"),
)
GRID = "hydra.sweeper.grids=[{model: '24k,83k', precision.weights: 'bf16,int4'}]"


@pytest.fixture(scope="module", params=["wheel", "strict editable"])
def commands(request, tmp_path_factory) -> Path:
    """Folder of the commands of a new environment, which has this one's dependencies and the project from pip."""
    place = tmp_path_factory.mktemp("package")
    source = place / "source"
    skip = shutil.ignore_patterns(".venv", ".git", "results", "outputs", "cache", "build", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=skip)
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    packages = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # The editable install of this environment does not come along: `.pth` files are read in `packages` alone.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation"]
    kinds = {"wheel": [source], "strict editable": ["--config-settings", "editable_mode=strict", "-e", source]}
    subprocess.run([*pip, "--ignore-installed", *kinds[request.param]], check=True, capture_output=True)
    if request.param == "wheel":
        shutil.rmtree(source)
    return python.parent


def _run(commands: Path, folder: Path, command: str, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [commands / command, *arguments], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_study_from_an_empty_folder(commands, tmp_path):
    where = _run(commands, tmp_path, "python", "-c", "import scaling; print(scaling.__file__)").strip()
    assert Path(where).is_relative_to(commands.parents[1]), "another installation would be tested"
    _run(commands, tmp_path, "scaling-train", "--multirun", "sweeps=demo", GRID, *TINY)
    assert len(list(tmp_path.glob("outputs/demo/*/result.json"))) == 4
    _run(commands, tmp_path, "scaling-ptq", "study=demo", "ptq=rtn", "ptq.formats=[nf4]", "tracking=off")
    _run(commands, tmp_path, "scaling-sweep", "collect", "demo")
    table = (tmp_path / "results" / "demo" / "runs.csv").read_text().splitlines()
    assert len(table) == 1 + 4 * 3  # plain, int4 and nf4
    assert "kumar_ptq" in _run(commands, tmp_path, "scaling-analysis", "laws")
    assert "scaling-train" in _run(commands, tmp_path, "python", "-m", "scaling")
