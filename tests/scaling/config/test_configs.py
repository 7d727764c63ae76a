import copy
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


def choices(group):
    return groups("train")[group]


def shape(name):
    return build(ModelConfig, yaml.safe_load((REPOSITORY / "configs/model" / f"{name}.yaml").read_text()))


@pytest.fixture(scope="module")
def runs():
    """Group -> the runs that differ from the default one in the choice of that group alone.

    Hydra composes the first choices of all groups at once, then the second ones, and so on; each group is taken from
    there into the default settings before anything is resolved."""
    names, found = {group: choices(group) for group in GROUPS}, {group: [] for group in GROUPS}
    with initialize_config_dir(str(REPOSITORY / "configs"), **BEHAVIOUR):
        default = compose("train")
        for i in range(max(map(len, names.values()))):
            chosen = {group: of[i] for group, of in names.items() if i < len(of)}
            needed = [override for name in chosen.values() for override in NEEDED.get(name, [])]
            config = compose("train", [*(f"{group}={name}" for group, name in chosen.items()), *needed])
            for group in chosen:
                settings = copy.deepcopy(default)
                settings[group] = config[group]
                found[group].append(build_run(plain_config(settings)))
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_builds_a_run(runs, group):
    assert len({getattr(run, group) for run in runs[group]}) == len(choices(group)) > 0


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
