import json
import shutil

import pytest
import yaml
from omegaconf import OmegaConf

from scaling.errors import InputError
from scaling.records.run_folder import RunFolder
from scaling.study.grid import axes, study_runs
from scaling.study.launcher import cores, threads_per_job, workers
from scaling.study.sweeper import quoted
from scaling.sweep import load


def results(tmp_path):
    return sorted(path.parent.name for path in (tmp_path / "outputs").glob("*/*/result.json"))


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

    from scaling.config.compose import CONFIGS, plain_config
    from scaling.config.run import build_run

    study_file("plain", "hydra: {sweeper: {params: {model: '2k,24k', snapshots: 'choice([1280],[1280,2560])'}}}")
    runs = load("plain", [*tiny[1:], "schedule=cosine,linear"]).runs
    points = [
        [f"model={m}", f"snapshots={p}", f"schedule={c}"]
        for m in ("2k", "24k")
        for p in ("[1280]", "[1280,2560]")
        for c in ("cosine", "linear")
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        expected = [build_run(plain_config(compose("train", [*tiny[1:], "study=plain", *point]))) for point in points]
    assert sorted(runs, key=lambda r: r.run_id) == sorted(expected, key=lambda r: r.run_id)


def test_equal_points_are_one_run(tiny):
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from scaling.config.compose import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert len(study_runs({}, [], [*tiny, "precision=bf16,w4", "precision.weights=int4"], loader)) == 1
        assert len(study_runs({}, [], tiny, loader)) == 1
        assert [v.value for v in axes(["seed=0,1", "model=24k", "seed=3"], loader)["seed"]] == [3]


def test_a_multirun_trains_each_point_and_a_second_one_nothing(train, tmp_path):
    status, _, err = train("--multirun", "study=grid", "seed=0,1", "precision.weights=bf16,int3")
    assert status == 0 and "grid: all 4 runs are done, 4 of them now" in err
    assert len(results(tmp_path)) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*") if path.is_file()}
    status, _, err = train("--multirun", "study=grid", "seed=0,1", "precision.weights=bf16,int3")
    assert status == 0 and "4 of them done, 0 to train" in err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "outputs").rglob("*.json"))) == 5


def test_stacked_runs_are_those_that_were_trained_alone(train, tmp_path):
    train("--multirun", "study=stacked", "seed=0,1", "precision.weights=bf16,int3")
    train("study=alone", "seed=1", "precision.weights=int3")
    [alone] = (tmp_path / "outputs/alone").glob("*/result.json")
    stacked = tmp_path / "outputs/stacked" / alone.parent.name / "result.json"
    first, second = (json.loads(path.read_text())["evaluations"] for path in (alone, stacked))
    assert first == second


def test_horizons_of_a_study_share_their_trunk(train, tmp_path):
    wsd = ("schedule=wsd", "schedule.decay_tokens=512", "ptq=none")
    status, _, err = train("--multirun", "study=horizons", *wsd, "data.tokens=2560,3840,5120")
    assert status == 0, err
    assert len(list((tmp_path / "outputs/horizons/stacks").glob("*.json"))) == 1
    train("study=alone", *wsd, "data.tokens=2560")
    [alone] = (tmp_path / "outputs/alone").glob("*/result.json")
    found = [json.loads(path.read_text()) for path in (tmp_path / "outputs/horizons").glob("*/result.json")]
    assert sorted(result["shared_steps"] for result in found) == [17, 27, 27]
    [short] = [result for result in found if result["D"] == 2560]
    assert short["evaluations"] == json.loads(alone.read_text())["evaluations"]


def test_one_stack_file_is_a_job_that_can_be_run_by_hand(train, tmp_path):
    train("--multirun", "study=grid", "seed=0,1")
    [stack] = (tmp_path / "outputs/grid/stacks").glob("*.json")
    done = results(tmp_path)
    for run_id in done:
        shutil.rmtree(tmp_path / "outputs/grid" / run_id)
    assert train(f"+stack={stack}")[0] == 0
    assert results(tmp_path) == done


def test_a_run_that_cannot_go_on_does_not_stop_the_others(train, make_run, tmp_path):
    broken = make_run("study=grid", "seed=1")
    folder = RunFolder(broken)
    train("study=grid", "seed=1")
    (folder.path / "result.json").unlink()
    folder.checkpoint_path.write_bytes(b"cut")
    status, _, err = train("--multirun", "study=grid", "seed=0,1,2")
    assert status == 1
    assert err.splitlines()[-1] == f"scaling.train: 1 of 3 runs not done: {broken.run_id}; run again to go on"
    assert len(results(tmp_path)) == 2
    reason = f"{folder.checkpoint_path}: missing, truncated or damaged; delete the file"
    assert reason in err and folder.has_error() and reason in (folder.path / "error.txt").read_text()
    folder.checkpoint_path.unlink()
    assert train("--multirun", "study=grid", "seed=0,1,2")[0] == 0
    assert not folder.has_error()


def test_an_unexpected_error_is_kept_and_other_stacks_go_on(train, make_run, tmp_path):
    broken = make_run("study=grid", "model.d_ff=32", "seed=1")
    # A folder in the place of a file is no input that anyone checks for.
    obstacle = RunFolder(broken).path / "metrics.jsonl"
    obstacle.mkdir(parents=True)
    command = ("--multirun", "study=grid", "model.d_ff=16,32", "seed=0,1")
    status, _, err = train(*command)
    assert status == 1 and "2 of 4 runs not done" in err.splitlines()[-1]
    assert len(results(tmp_path)) == 2
    assert "Traceback" in (RunFolder(broken).path / "error.txt").read_text() and "Traceback" not in err
    obstacle.rmdir()
    assert train(*command)[0] == 0


def test_a_folder_with_another_config_is_refused_and_the_rest_is_trained(train, make_run, tmp_path):
    train("--multirun", "study=grid", "seed=0,1")
    config = RunFolder(make_run("study=grid", "seed=1")).path / "config.yaml"
    config.write_text(config.read_text().replace("seed_data: 1", "seed_data: 8"))
    before = config.read_text()
    status, _, err = train("--multirun", "study=grid", "seed=0,1,2")
    assert status == 1 and f"{config.parent}: holds a run with another seed_data" in err
    assert len(results(tmp_path)) == 3 and config.read_text() == before


TREE = """
hydra:
  mode: MULTIRUN
  sweeper:
    params: {seed: "0,1"}
    grids:
      - {schedule: linear, branch.tokens: "1280,2560", parent: {schedule: constant, snapshots: "[1280,2560]"}}
      - {schedule: constant, snapshots: "[1280,2560]"}
"""


def test_branches_are_trained_from_the_parent_that_their_grid_describes(train, make_run, study_file, tmp_path):
    study_file("tree", TREE)
    assert train("sweeps=tree", "ptq=none")[0] == 0
    found = [json.loads(path.read_text()) for path in (tmp_path / "outputs/tree").glob("*/result.json")]
    trunks = [make_run("schedule=constant", "snapshots=[1280,2560]", f"seed={seed}").run_id for seed in (0, 1)]
    parents = sorted((result["parent_id"] or "") for result in found)
    assert parents == ["", "", *sorted([*trunks, *trunks])]
    assert {result["trunk_id"] for result in found} == set(trunks)


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


def test_a_parent_has_one_value_a_setting(study_file):
    study_file("tree", TREE.replace("parent: {schedule: constant", "parent: {schedule: 'constant,wsd'"))
    with pytest.raises(InputError, match=r"^parent\.schedule=constant,wsd: a point has one parent"):
        load("tree", [])


def test_workers_share_the_work_and_give_the_same_numbers(train, study_file, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    text = """
defaults: [{override /hydra/launcher: joblib}]
hydra: {mode: MULTIRUN, launcher: {n_jobs: 1}, sweeper: {params: {seed: "0,1", precision.weights: "bf16,int3"}}}
"""
    study_file("shared", text)
    status, _, err = train("sweeps=shared", "hydra.launcher.n_jobs=2")
    assert status == 0, err
    assert len(list((tmp_path / "outputs/shared/stacks").glob("*.json"))) == 2
    train("--multirun", "study=alone", "seed=0,1", "precision.weights=bf16,int3")
    for path in (tmp_path / "outputs/shared").glob("*/result.json"):
        other = tmp_path / "outputs/alone" / path.parent.name / "result.json"
        assert json.loads(path.read_text())["evaluations"] == json.loads(other.read_text())["evaluations"]


def test_a_launcher_that_is_not_installed_is_one_line(train, study_file):
    study_file("far", "defaults: [{override /hydra/launcher: elsewhere}]\nhydra: {mode: MULTIRUN}")
    status, _, err = train("sweeps=far")
    assert status == 1
    assert err.startswith("scaling.train: hydra/launcher=elsewhere: no such choice; use one of basic")
    assert err.endswith("more with pip install -e '.[launchers]'\n") and err.count("\n") == 1


def test_cores_are_shared_out():
    basic = OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    joblib = OmegaConf.create({"_target_": "x.JoblibLauncher", "n_jobs": 3})
    everything = OmegaConf.create({"_target_": "x.JoblibLauncher", "n_jobs": -1})
    local = OmegaConf.create({"_target_": "x.LocalLauncher"})
    slurm = OmegaConf.create({"_target_": "x.SlurmLauncher", "cpus_per_task": 6})
    assert [workers(kind) for kind in (basic, joblib, everything, local, slurm)] == [1, 3, cores(), None, None]
    third = max(1, cores() // 3)
    assert [threads_per_job(kind, 9) for kind in (basic, joblib, everything, slurm)] == [cores(), third, 1, 6]
    assert threads_per_job(joblib, 1) == cores() and threads_per_job(local, 3) == third


@pytest.mark.parametrize("text", ["plain", "with space", "a,b=[c]", "it's", "/x/y-1.json", "${not} {a}"])
def test_paths_survive_hydras_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    [override] = OverridesParser.create().parse_overrides([f"+stack={quoted(text)}"])
    assert override.value() == text and not override.is_sweep_override()
