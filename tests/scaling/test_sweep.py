import re

import pandas as pd
import pytest

from scaling.runs import RunFolder
from scaling.sweep import load, main

GRID = 'hydra: {mode: MULTIRUN, sweeper: {params: {seed: "0,1", data.tokens: "2560,5120"}}}'


@pytest.fixture
def tiny_grid(tiny):
    """The settings of `tiny` but for the tokens, which the study varies."""
    return [o for o in tiny if not o.startswith("data.tokens")]


@pytest.fixture
def sweep(capfd, tiny_grid, study_file):
    """sweep("status", ...) -> (exit status, stdout, stderr) of `python -m scaling.sweep` on a study of four runs."""
    study_file("four", GRID)

    def run(command, *arguments, study="four", options=()):
        capfd.readouterr()
        status = 0
        try:
            main([command, study, *options, *tiny_grid, *arguments])
        except SystemExit as end:
            status = 1
            print(end.code)
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_plan_counts_cells_and_runs_before_anything_is_spent(sweep, tmp_path):
    status, out, _ = sweep("plan", "precision.weights=bf16,int4,int3", options=["--ids"])
    assert status == 0
    rows = [re.sub(r"[│\s]+", " ", line).split() for line in out.splitlines() if "1,792" in line and "│" in line]
    flops = [f"{6 * 1792 * d * 6:.1e}" for d in (2560, 5120)]
    assert rows == [
        ["1,792", "2,560", "1", "3", "2", "6", "6", flops[0]],
        ["1,792", "5,120", "3", "3", "2", "6", "6", flops[1]],
    ]
    assert f"to train: 12 runs, {6 * 1792 * 7680 * 6:.2e} FLOPs" in out
    assert "jobs: 1 stacks of 12 models, 1 at once" in out
    assert "at the speed of a second of training here" in out
    assert len(re.findall(r"^n1\.8k-d", out, re.M)) == 12
    assert not (tmp_path / "outputs").exists()


def test_plan_and_status_know_what_is_done(sweep, train):
    assert train("study=four", "data.tokens=2560", "seed=0,1", "--multirun")[0] == 0
    _, out, _ = sweep("plan")
    assert "to train: 2 runs" in out and "at the speed of the 2 finished runs" in out
    _, out, _ = sweep("status")
    assert out.splitlines()[-1] == "4 runs: 2 done, 2 new"
    assert train("study=four", "data.tokens=5120", "seed=0,1", "--multirun")[0] == 0
    _, out, _ = sweep("plan")
    assert "nothing to train" in out
    assert sweep("status")[1].splitlines()[-1] == "4 runs: 4 done"


def test_status_says_why_a_run_failed_and_how_far_it_is(sweep, train, make_run):
    train("study=four", "data.tokens=2560", "seed=0,1", "--multirun")
    partial, failed = (RunFolder(make_run("study=four", "data.tokens=2560", f"seed={seed}")) for seed in (0, 1))
    for folder in (partial, failed):
        (folder.path / "result.json").unlink()
    failed.write_error("Traceback:\n  somewhere\nRuntimeError: out of luck\n")
    refused = RunFolder(make_run("study=four", "seed=0"))
    refused.path.mkdir()
    (refused.path / "config.yaml").write_text("run: {}")
    _, out, _ = sweep("status")
    assert out.splitlines()[-1] == "4 runs: 1 failed, 1 partial, 1 refused, 1 new"
    assert f"partial {partial.run.run_id}  2.56k of 2.56k tokens" in out
    assert f"failed  {failed.run.run_id}  2.56k of 2.56k tokens; RuntimeError: out of luck" in out
    assert re.search(rf"refused {refused.run.run_id}  .*not the config of a run", out)


def test_collect_writes_the_table_and_says_what_it_lacks(sweep, train, tmp_path):
    out_file = tmp_path / "table" / "runs.csv"
    train("study=four", "data.tokens=2560", "seed=0,1", "--multirun")
    status, out, err = sweep("collect", options=["--out", str(out_file)])
    assert status == 0 and err == "2 of the 4 runs of four are not done, and not in the table\n"
    table = pd.read_csv(out_file)
    assert out == f"{out_file}: {len(table)} rows\n"
    # Two runs, each as trained and in two formats.
    assert len(table) == 6 and table.run_id.nunique() == 2 and set(table.D) == {2560}


def test_runs_without_a_study_file_are_collected_too(sweep, train, tmp_path):
    train("study=loose")
    status, _, _ = sweep("collect", study="loose", options=["--out", str(tmp_path / "runs.csv")])
    assert status == 0 and len(pd.read_csv(tmp_path / "runs.csv")) == 3


@pytest.mark.parametrize(
    "command, study, arguments, line",
    [
        ("plan", "fuor", [], "scaling.sweep: sweeps=fuor: no such choice; use one of four"),
        (
            "plan",
            "four",
            ["precision.weights=int44"],
            "scaling.sweep: precision.weights=int44: 44 bits are out of range",
        ),
        ("status", "four", ["hydra/launcher=nope"], "scaling.sweep: hydra/launcher=nope: no such choice; use one of "),
        ("plan", "four", ["what"], "scaling.sweep: what: expected setting=value"),
        ("collect", "nothing", [], "scaling.sweep: "),
    ],
)
def test_bad_input_is_one_line(sweep, command, study, arguments, line):
    status, out, err = sweep(command, *arguments, study=study)
    assert status == 1 and out.startswith(line) and out.count("\n") == 1 and err == ""


def test_the_launcher_can_be_changed_from_the_command_line(study_file, tiny_grid):
    study_file("four", GRID)
    assert load("four", tiny_grid).launcher._target_.endswith("BasicLauncher")
    found = load("four", [*tiny_grid, "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"])
    assert found.launcher.n_jobs == 3 and len(found.runs) == 4
