"""What each package offers at its top: the names are there, are what they are inside, and cost nothing until used."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    at_the_end, name = loaded.rows["tokens_seen"] == last["tokens_seen"], str(last["tokens_seen"])
    assert loaded.config.run_id == folder.name == repr(loaded).partition(":")[0]
    assert loaded.settings["data"]["tokens"] == loaded.config.data.tokens
    assert loaded.windows[name].mean() == pytest.approx(last["loss"])
    assert (loaded.rows["loss"] - loaded.rows["gap"])[at_the_end].to_numpy() == pytest.approx(last["loss"])
    assert loaded.curve["tokens"].is_monotonic_increasing and loaded.curve["tokens"].iloc[-1] == loaded.config.D
    assert "<table" in loaded._repr_html_() and folder.name in loaded._repr_html_()


def test_the_model_of_a_stored_run_is_a_module_with_the_loss_of_the_record(tmp_path):
    """Its activations are quantized with one scale for all tokens of a batch: the loss is that of the record only if
    windows are taken as many at once as they were then."""
    (folder,) = [path.parent for path in STORED.rglob("result.json")]
    loaded = scaling.load_run(folder)
    model, tokens = loaded.model, loaded.held_out(tmp_path)
    assert isinstance(model, torch.nn.Module)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert shapes == loaded.config.model.shapes(loaded.result["vocab_size"])
    recorded = loaded.windows[str(loaded.config.D)].to_numpy()
    assert model.losses(tokens).detach().numpy() == pytest.approx(recorded, abs=1e-5)  # another processor may round
    model.sequences = 1
    assert abs(model.losses(tokens).detach().numpy() - recorded).max() > 1e-4

    chunk = tokens[:4]
    model.sequences = 4
    logits = model(chunk[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten())
    assert loss.item() == pytest.approx(model.losses(chunk).mean().item(), abs=1e-6)
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_a_folder_that_is_no_finished_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not the config of a run"):
        scaling.load_run(Path(tmp_path))


@pytest.mark.slow
def test_users_folders_are_found_beside_the_shipped_ones(tmp_path):
    """From any folder: shipped studies and models, and one's own below ./sweeps and ./configs."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\nstudy: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {model: 'own,24k'}}}\n"
    )
    (tmp_path / "configs" / "model" / "own.yaml").write_text("n_layers: 2\nd_model: 16\n")  # the rest has defaults

    def ids(*study, folder=tmp_path):
        command = [sys.executable, "-m", "scaling.sweep", "plan", *study, "--ids", "--out", "cells.csv"]
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
        return [line for line in done.stdout.splitlines() if line.startswith("n")], done.stderr

    own, fault = ids("mine")
    assert [name.partition("-")[0] for name in own[:2]] == ["n6.7k", "n24k"], fault  # 2 (4 16^2 + 3 16 48) = 6,656
    assert len(ids("batch")[0]) == 6
    (tmp_path / "configs" / "sweeps").symlink_to(tmp_path / "sweeps")
    (tmp_path / "elsewhere").mkdir()
    given = ids("mine", "-cd", "../configs", folder=tmp_path / "elsewhere")
    assert given[0] == own, given[1]


@pytest.mark.parametrize("command", ["scaling", "scaling.train", "scaling.ptq", "analysis"])
def test_without_its_packages_a_command_says_what_to_activate(command):
    bare = [sys.executable, "-S", "-m", command]  # without site-packages
    done = subprocess.run(bare, capture_output=True, text=True, cwd=REPOSITORY, env={}, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.endswith("activate the environment that has them: . .venv/bin/activate")
