import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from scaling.config.compose import BEHAVIOUR, groups, plain_config
from scaling.config.from_dict import build
from scaling.config.model import ModelConfig
from scaling.config.run import build_run
from scaling.sweep import load
from tests.conftest import slow

REPOSITORY = Path(__file__).parents[3]
GROUPS = ("model", "data", "precision", "optimizer", "schedule", "ptq", "tracking", "runtime")
NEEDED = {"text": ["data.corpus.paths=[book.txt]"], "hf": ["data.corpus.path=some/dataset"]}


def composed(*overrides):
    with initialize_config_dir(str(REPOSITORY / "configs"), **BEHAVIOUR):
        return build_run(plain_config(compose("train", list(overrides))))


def choices(group):
    return groups("train")[group]


def shape(name):
    return build(ModelConfig, yaml.safe_load((REPOSITORY / "configs/model" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_builds_a_run(group):
    names = choices(group)
    runs = [composed(f"{group}={name}", *NEEDED.get(name, [])) for name in names]
    assert len({getattr(run, group) for run in runs}) == len(names) > 0


def test_every_group_is_covered():
    folders = {p.name for p in (REPOSITORY / "configs").iterdir() if p.is_dir()}
    assert folders == {*GROUPS, "pretrained", "sweeps", "hydra"}


@pytest.mark.parametrize("name", choices("model"))
def test_model_files_say_their_size(name):
    n = shape(name).n_nonembedding()
    header = (REPOSITORY / "configs/model" / f"{name}.yaml").read_text().splitlines()[0]
    assert header.startswith(f"# N = {n:,}:")
    number, unit = re.fullmatch(r"([\d.]+)([kM])", name).groups()
    assert float(number) * {"k": 1e3, "M": 1e6}[unit] == pytest.approx(n, rel=0.12)


@pytest.mark.parametrize("name, layers", [("24k", 2), ("83k", 3), ("201k", 4), ("378k", 5), ("664k", 6), ("12.6M", 16)])
def test_the_ladder_has_one_aspect(name, layers):
    model = shape(name)
    assert (model.n_layers, model.d_model, model.head_dim) == (layers, 16 * layers, 16)
    assert model.width_ff % 16 == 0 and abs(model.width_ff - 8 * model.d_model / 3) <= 8
    assert model.tied_head


LARGE = ("activations", "gpu_overtraining", "learning_rate", "overtraining", "paper", "schedule")


@pytest.mark.parametrize("name", [*(name for name in choices("sweeps") if name not in LARGE), *slow(*LARGE)])
def test_every_study_expands(name):
    runs = load(name, []).runs
    assert {run.study for run in runs} == {name}
    assert len({run.run_id for run in runs}) == len(runs) > 1


def test_studies_state_question_command_cost_and_expectation():
    for path in (REPOSITORY / "sweeps").glob("*.yaml"):
        header = path.read_text()
        for word in ("# Question", "# Command", "# Cost", "# Expected"):
            assert word in header, path
