import pytest
import yaml

from scaling.errors import InputError
from scaling.study.grid import axes, study_runs
from scaling.sweep import load


def of_each(runs, *names):
    def value(run, name):
        for part in name.split("."):
            run = getattr(run, part)
        return run

    return [tuple(value(run, name) for name in names) for run in runs]


TWO_GRIDS = """
hydra:
  sweeper:
    params: {seed: "0,1", precision.weights: "int3,int4"}
    grids:
      - {model: 24k, data.tokens: "1e6,2e6"}
      - {model: 83k, data.tokens: 2e6, precision.weights: bf16}
      - {model: 24k, data.tokens: 2e6}
"""


def test_a_study_is_the_union_of_its_grids(study_file):
    study_file("union", TWO_GRIDS)
    found = of_each(load("union", []).runs, "N", "data.tokens", "precision.weights", "seed_init")
    small = [(23552, d, p, s) for p in ("int3", "int4") for s in (0, 1) for d in (1000000, 2000000)]
    assert sorted(found) == sorted([*small, (82944, 2000000, "bf16", 0), (82944, 2000000, "bf16", 1)])


def test_the_command_line_replaces_a_setting_in_every_grid(study_file):
    study_file("union", TWO_GRIDS)
    found = of_each(
        load("union", ["data.tokens=3e6", "seed=7"]).runs, "N", "data.tokens", "precision.weights", "seed_data"
    )
    assert sorted(found) == [(23552, 3000000, "int3", 7), (23552, 3000000, "int4", 7), (82944, 3000000, "bf16", 7)]


def test_large_models_can_wait(study_file):
    study_file("union", TWO_GRIDS)
    assert {run.N for run in load("union", ["hydra.sweeper.largest_N=5e4"]).runs} == {23552}
    assert {run.N for run in load("union", ["hydra.sweeper.largest_N=50k"]).runs} == {23552}
    assert len(load("union", ["hydra.sweeper.largest_N=82944"]).runs) == len(load("union", []).runs)


@pytest.mark.parametrize(
    "value, said",
    [
        ("2e4", "20000: no run is that small; the smallest has N = 23,552"),
        ("small", "small: expected a number of parameters"),
    ],
)
def test_a_limit_that_leaves_nothing_or_means_nothing_is_refused(study_file, value, said):
    study_file("union", TWO_GRIDS)
    with pytest.raises(InputError, match=said):
        load("union", [f"hydra.sweeper.largest_N={value}"])


def test_values_set_on_copies_are_what_hydra_composes(study_file, tiny):
    """Against a composition of every single point, which is what Hydra's own sweeper does."""
    from hydra import compose, initialize_config_dir

    from scaling.config.compose import BEHAVIOUR, CONFIGS, plain_config
    from scaling.config.run import build_run

    study_file("plain", "hydra: {sweeper: {params: {model: '2k,24k', snapshots: 'choice([1280],[1280,2560])'}}}")
    runs = load("plain", [*tiny[1:], "schedule=cosine,linear"]).runs
    points = [
        [f"model={m}", f"snapshots={p}", f"schedule={c}"]
        for m in ("2k", "24k")
        for p in ("[1280]", "[1280,2560]")
        for c in ("cosine", "linear")
    ]
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        expected = [build_run(plain_config(compose("train", [*tiny[1:], "study=plain", *point]))) for point in points]
    assert sorted(runs, key=lambda r: r.run_id) == sorted(expected, key=lambda r: r.run_id)


def test_equal_points_are_one_run(tiny):
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from scaling.config.compose import BEHAVIOUR, CONFIGS

    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        loader = GlobalHydra.instance().config_loader()
        assert len(study_runs({}, [], [*tiny, "precision=bf16,w4", "precision.weights=int4"], loader)) == 1
        assert len(study_runs({}, [], tiny, loader)) == 1
        assert [v.value for v in axes(["seed=0,1", "model=24k", "seed=3"], loader)["seed"]] == [3]


def test_a_parent_may_branch_itself(study_file, make_run, tiny):
    """A trunk, a decay from it, and a run that goes on from the end of the decay."""
    trunk = {"schedule": "constant", "snapshots": "[1280]"}
    decay = {"schedule": "wsd", "schedule.decay_tokens": 1280, "data.tokens": 2560, "snapshots": "[2560]"}
    words = [f"{key}={value}" for key, value in decay.items()]
    nested = {**decay, "branch.tokens": 1280, "parent": {**trunk, "schedule.decay_tokens": "null", "data.tokens": 5120}}
    grids = [
        {**trunk, "data.tokens": 5120},
        nested,
        {"schedule": "constant", "branch.tokens": 2560, "data.tokens": 5120, "parent": nested},
    ]
    study_file("tree", yaml.safe_dump({"hydra": {"mode": "MULTIRUN", "sweeper": {"grids": grids}}}))
    oldest, middle, youngest = load("tree", [word for word in tiny if not word.startswith("data.tokens")]).runs
    assert oldest.run_id == make_run("schedule=constant", "snapshots=[1280]", "data.tokens=5120").run_id
    assert middle.branch.parent == oldest.run_id
    branch = (f"branch.parent={oldest.run_id}", "branch.tokens=1280")
    assert middle.run_id == make_run(*words, *branch).run_id == youngest.branch.parent


def test_a_list_is_several_values_but_of_a_setting_that_is_a_list_one(study_file):
    study_file(
        "texts",
        """
hydra:
  sweeper:
    params: {model: "24k,83k", seed: "0,1", data.tokens: 2e6, snapshots: "[1e6,2e6]"}
""",
    )
    study_file(
        "lists",
        """
hydra:
  sweeper:
    params: {model: [24k, 83k], seed: [0, 1], data.tokens: [2M], snapshots: [1e6, 2e6]}
""",
    )
    texts, lists = ([run.run_id for run in load(name, []).runs] for name in ("texts", "lists"))
    assert texts == lists and len(lists) == 4
