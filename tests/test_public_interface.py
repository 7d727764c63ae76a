"""What each package offers at its top: the names are there, are what they are inside, and cost nothing until used."""

import subprocess
import sys
from pathlib import Path

import pytest

import scaling
from scaling.errors import InputError
from tests.conftest import REPOSITORY

STORED = REPOSITORY / "tests" / "scaling" / "fixtures" / "stored"


def test_importing_a_package_loads_nothing_heavy():
    code = (
        "import sys, scaling, analysis; heavy = {'torch', 'scipy', 'pandas', 'hydra', 'matplotlib'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "from scaling import awq, fake_quantize, gptq, load_run, parse_format, rtn;"
        "from analysis import compare, fit, laws, predict, read_table;"
        "print(parse_format('int4').max_value, 'kumar_ptq' in laws.LAWS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.stdout.split() == ["7.0", "True"], done.stderr


def test_names_stay_what_they_are_once_the_folders_are_loaded():
    import analysis.laws.registry
    import scaling.ptq.rtn

    assert analysis.laws.LAWS is analysis.laws.registry.LAWS and callable(analysis.fit)
    assert scaling.rtn is scaling.ptq.rtn.rtn
    assert set(scaling.__all__) <= set(dir(scaling)) and set(analysis.__all__) <= set(dir(analysis))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = scaling.nope


def test_a_stored_run_is_loaded():
    (folder,) = [path.parent for path in STORED.rglob("result.json")]
    loaded = scaling.load_run(folder)
    last = loaded.result["evaluations"][-1]
    assert loaded.run.run_id == folder.name
    assert loaded.windows[str(last["tokens_seen"])].mean() == pytest.approx(last["loss"])
    assert {name: tuple(w.shape) for name, w in loaded.weights.items()} == loaded.run.model.shapes(
        loaded.result["vocab_size"]
    )
    assert all(
        row["loss"] - row["gap"] == pytest.approx(last["loss"])
        for row in loaded.rows
        if row["tokens_seen"] == last["tokens_seen"]
    )


def test_a_folder_that_is_no_finished_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not the config of a run"):
        scaling.load_run(Path(tmp_path))


def test_users_folders_are_found_beside_the_shipped_ones(tmp_path):
    """From any folder: shipped studies and models, and one's own below ./sweeps and ./configs."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\nstudy: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {model: 'own,24k'}}}\n"
    )
    shipped = (REPOSITORY / "configs" / "model" / "24k.yaml").read_text()
    (tmp_path / "configs" / "model" / "own.yaml").write_text(shipped.replace("d_model: 32", "d_model: 16"))

    def ids(study):
        command = [sys.executable, "-m", "scaling.sweep", "plan", study, "--ids", "--out", "cells.csv"]
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        return [line for line in done.stdout.splitlines() if line.startswith("n")], done.stderr

    own, fault = ids("mine")
    assert [name.partition("-")[0] for name in own[:2]] == ["n6.7k", "n24k"], fault  # 2 (4 16^2 + 3 16 48) = 6,656
    assert len(ids("batch")[0]) >= 9
