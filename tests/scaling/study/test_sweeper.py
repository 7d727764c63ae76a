import json
import shutil

import pytest

from scaling.errors import InputError
from scaling.records.run_folder import RunFolder
from scaling.study.sweeper import quoted
from scaling.sweep import load


def results(tmp_path):
    return sorted(path.parent.name for path in (tmp_path / "outputs").glob("*/*/result.json"))


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
    assert status == 1 and f"{config}: not the config of a run (its checksum is another" in err
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
    assert err.endswith("more with pip install 'precision-scaling[slurm]'\n") and err.count("\n") == 1


@pytest.mark.parametrize("text", ["plain", "with space", "a,b=[c]", "it's", "/x/y-1.json", "${not} {a}"])
def test_paths_survive_hydras_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    [override] = OverridesParser.create().parse_overrides([f"+stack={quoted(text)}"])
    assert override.value() == text and not override.is_sweep_override()
