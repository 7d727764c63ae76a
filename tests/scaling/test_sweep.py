import json
import os
import re
import shutil
import socket
import subprocess
import time

import pandas as pd
import pytest

from scaling.records.run_folder import RunFolder
from scaling.records.writer import Writer
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
    flops = [f"{6 * 1792 * d * 6:.1e}" for d in (2560, 5120)]
    assert rows_of(out, "1,792")[:2] == [
        ["1,792", "2,560", "1", "3", "2", "6", "6", flops[0]],
        ["1,792", "5,120", "3", "3", "2", "6", "6", flops[1]],
    ]
    assert f"to train: 12 runs, 46.1k tokens, {6 * 1792 * 7680 * 6:.2e} FLOPs (6ND)" in out
    assert "jobs: 1 stacks of 12 runs, 1 at once" in out
    assert "at the speed of a second of training here" in out
    assert len(re.findall(r"^n1\.8k-d", out, re.M)) == 12
    assert not (tmp_path / "outputs").exists()


def test_plan_writes_what_can_be_predicted(sweep, tmp_path):
    status, out, _ = sweep("plan", "precision.weights=bf16,int4", options=["--out", str(tmp_path / "cells.csv")])
    assert status == 0 and "cells.csv: 4 rows" in out
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert cells[["N", "D", "P_w", "P_a"]].to_numpy().tolist() == [
        [1792, d, p, 16] for d in (2560, 5120) for p in (4, 16)
    ]


def rows_of(out, n):
    """The cells of the rows of a printed table that begin with N."""
    rows = [[cell.strip() for cell in line.strip("│ \n").split("│")] for line in out.splitlines() if "│" in line]
    return [row for row in rows if row[0] == n]


def test_plan_says_what_a_study_takes_and_what_it_would_cost(sweep):
    """By hand: two FLOPs a weight, those of the head included, and four a position, layer and channel; three passes."""
    _, out, _ = sweep("plan", options=["--mfu", "0.2", "--device", "a100", "--price-per-hour", "1e9"])
    forward = 2 * (1792 + 9 * 16) + 4 * 32 * 16
    training, evaluation = 3 * forward * 2 * 7680, forward * 4 * 3 * 64 * 32
    assert f"FLOPs: {training:.2e} with head and attention, {evaluation:.2e} more for evaluations" in out
    hours = (training + evaluation) / (0.2 * 312e12) / 3600
    assert (
        f"A100: about {hours:.2g} hours, ${1e9 * hours:.2f} at $1e+09 an hour; assumed: 20% of its 312 TFLOP/s" in out
    )


def test_plan_counts_what_runs_share_once(sweep):
    _, out, _ = sweep("plan", "schedule=wsd", "schedule.decay_tokens=512")
    # 40 updates, and of the run of 20 its decay of four, the first of which is still at the peak.
    assert f"to train: 4 runs, {2 * 43 * 128 / 1e3:.1f}k tokens, {6 * 1792 * 2 * 43 * 128:.2e} FLOPs (6ND)" in out


def test_plan_shows_the_memory_of_jobs_and_splits_those_that_would_not_fit(sweep, monkeypatch):
    """Four runs of one shape: together, in pairs, alone where not even one fits."""
    monkeypatch.setattr("scaling.study.cost.measured_rates", lambda runs, threads: {runs[0].N: 1e10})
    options = ("model=800k", "data.batch_tokens=1280", "schedule.warmup_tokens=0", "runtime.max_members=4")
    _, out, _ = sweep("plan", *options)
    assert rows_of(out, "778,240")[-1][1:4] == ["1", "4", "4"]
    at, take = re.search(
        r"memory: about (\d+)MB for a job \((\d) x N=778,240\) of the .*GB that it may take", out
    ).groups()
    assert take == "4" and 400 < int(at) < 800
    _, out, _ = sweep("plan", *options, "runtime.memory_gb=0.55")
    assert rows_of(out, "778,240")[-1][1:4] == ["2", "2", "2"] and "of the 495MB that it may take" in out
    _, out, _ = sweep("plan", *options, "runtime.memory_gb=0.1")
    assert rows_of(out, "778,240")[-1][1:4] == ["4", "1", "1"]
    assert "too large: N=778,240 does not fit, not even one model; try a lower runtime.micro_batch_tokens" in out


def test_plan_for_a_machine_that_is_not_here(sweep, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, out, _ = sweep("plan", "runtime.device=cuda")
    assert "memory: cuda is not here; with runtime.memory_gb=... jobs are made to fit" in out
    assert "time: unknown, cuda is not on this machine" in out
    _, out, _ = sweep("plan", "runtime.device=cuda", "runtime.memory_gb=80")
    assert "of the 72.0GB that it may take" in out


@pytest.fixture(scope="module")
def paper():
    """The whole study of sweeps/paper.yaml: some seconds."""
    return load("paper", [])


@pytest.mark.slow
def test_the_papers_grid_has_465_runs(capfd, tmp_path, monkeypatch, paper):
    """Planned without a GPU, a network or a corpus: nothing prepares one, nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scaling.sweep.load", lambda name, overrides: paper)
    monkeypatch.setattr("scaling.study.sweeper.prepare", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    main(["plan", "paper"])
    out, _ = capfd.readouterr()
    assert "paper: 465 runs" in out and "to train: 465 runs, 3.82T tokens, 1.89e+21 FLOPs (6ND)" in out
    assert re.search(r"^H100: about 2,\d\d\d hours; assumed: 40% of its 989 TFLOP/s", out, re.M)
    cells = {
        "28,237,824": [25, 30, 25, 25, 25],
        "59,105,280": [25, 30, 25, 25, 25],
        "113,246,208": [25, 30, 25, 25],
        "214,188,032": [25, 25, 25, 25],
    }
    for n, runs in cells.items():
        *by_horizon, jobs = rows_of(out, n)
        assert [int(row[5]) for row in by_horizon] == runs
        assert int(jobs[1]) * int(jobs[2]) == sum(runs)  # in jobs that fit into 80 GB
    assert "of the 72.0GB that it may take" in out and "too large" not in out
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_papers_runs_are_set_up_as_it_says(paper):
    runs = paper.runs
    assert len(runs) == len({run.run_id for run in runs}) == 465
    for run in runs:
        assert (run.data.sequence_length, run.batch_size, run.D) == (1024, 256, run.data.tokens)
        assert run.schedule.kind == "cosine" and run.schedule.warmup_tokens == run.D / 10
        assert (run.optimizer.beta1, run.optimizer.beta2, run.optimizer.epsilon) == (0.9, 0.95, 1e-15)
        assert run.optimizer.weight_decay == 0.1 and run.ptq.methods == ("gptq",)
        assert run.data.tokens <= run.data.corpus.max_tokens
    assert {run.lr_peak for run in runs if run.N == 28_237_824} == {6e-4}
    assert sorted({run.steps for run in runs}) == [6_250, 12_500, 25_000, 50_000, 100_000]
    parts = [tuple(run.precision.format(p).bits for p in ("weights", "activations", "kv")) for run in runs]
    one_at_a_time = [p for p in parts if sum(bits < 16 for bits in p) == 1]
    assert parts.count((16, 16, 16)) == 18 and len(one_at_a_time) == 18 * 3 * 8
    assert {bits for p in one_at_a_time for bits in p} == {3, 4, 5, 6, 7, 8, 10, 12, 16}


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


def test_status_tells_who_is_at_work_and_who_was_killed(sweep, make_run):
    alive, dead = (RunFolder(make_run("study=four", "data.tokens=2560", f"seed={seed}")) for seed in (0, 1))
    gone = subprocess.Popen(["true"])
    gone.wait()
    writers = [Writer.take(folder.path) for folder in (alive, dead)]
    (alive.path / "metrics.jsonl").write_text('{"tokens": 640}\n{"tokens": 1280}\n')
    sign = {"host": socket.gethostname(), "pid": gone.pid, "token": "x", "heartbeat": time.time()}
    writers[1].close()
    (dead.path / "writer.json").write_text(json.dumps(sign))
    _, out, _ = sweep("status")
    assert out.splitlines()[-1] == "4 runs: 1 running, 1 dead, 2 new"
    here = f"on {socket.gethostname()}"
    assert re.search(
        rf"^running {alive.run.run_id}  1\.28k of 2\.56k tokens; process {os.getpid()} {here} "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d$",
        out,
        re.MULTILINE,
    )
    assert f"dead    {dead.run.run_id}  process {gone.pid} {here} has ended without a word" in out
    assert out.splitlines()[-2].startswith("1 runs are with nobody, and not done: ")
    writers[0].close()


def test_status_reads_an_error_that_is_not_text(sweep, make_run):
    folder = RunFolder(make_run("study=four", "seed=0"))
    folder.path.mkdir(parents=True)
    for content, said in ((b"", "error.txt is empty"), (b"\xff\xfe\n", "\ufffd")):
        (folder.path / "error.txt").write_bytes(content)
        status, out, _ = sweep("status")
        assert status == 0 and "1 failed, 3 new" in out and said in out


@pytest.mark.parametrize("content", [b"# @package _global_\nstudy: [", b"# @package _global_\nstudy: \xff"])
def test_a_broken_study_is_one_line_and_stops_no_other(sweep, study_file, content):
    study_file("broken", "").write_bytes(content)
    status, out, _ = sweep("status", study="broken")
    assert status == 1 and len(out.splitlines()) == 1 and out.startswith("scaling.sweep: ")
    assert sweep("status")[0] == 0


def test_collect_writes_the_table_and_says_what_it_lacks(sweep, train, tmp_path):
    out_file = tmp_path / "table" / "runs.csv"
    train("study=four", "data.tokens=2560", "seed=0,1", "--multirun")
    status, out, err = sweep("collect", options=["--out", str(out_file)])
    assert status == 0 and err.startswith("2 of the 4 runs of four are not done in ") and err.endswith("/four\n")
    table = pd.read_csv(out_file)
    assert out == f"{out_file}: {len(table)} rows\n"
    # Two runs, each as trained and in two formats.
    assert len(table) == 6 and table.run_id.nunique() == 2 and set(table.D) == {2560}
    status, out, _ = sweep("collect", options=["--results", str(tmp_path / "apart")])
    assert status == 0 and out == f"{tmp_path / 'apart' / 'four' / 'runs.csv'}: 6 rows\n"
    assert (tmp_path / "apart" / "four" / "runs.csv").read_bytes() == out_file.read_bytes()


def test_collect_adds_the_runs_of_another_machine(sweep, train, tmp_path):
    both, theirs, out_file = (tmp_path / name for name in ("both.csv", "theirs.csv", "runs.csv"))
    train("study=four", "data.tokens=2560", "seed=0,1", "--multirun")
    sweep("collect", options=["--out", str(both)])
    # Here only one of the two is there, and the other machine found another loss for a run that both have.
    first, second = (path.parent for path in sorted((tmp_path / "outputs" / "four").glob("*/result.json")))
    whole = pd.read_csv(both, dtype=str, keep_default_na=False)
    loss = whole["loss"][whole["run_id"] == first.name].iloc[0]
    theirs.write_text(both.read_text().replace(loss, f"{float(loss) + 0.25:.8g}"))
    second.rename(tmp_path / "elsewhere")
    status, out, err = sweep("collect", options=["--out", str(out_file), "--add", str(theirs)])
    assert status == 0 and out == f"{out_file}: 6 rows\n"
    assert f"{theirs}: 1 runs added; 1 runs are here too, with losses at most 0.25 nats apart" in err
    assert out_file.read_bytes() == both.read_bytes()
    for text, said in (("N,D\n1,2\n", "not a table with the columns of this version"), ("", "not a table of runs (")):
        theirs.write_text(text)
        status, out, _ = sweep("collect", options=["--out", str(out_file), "--add", str(theirs)])
        assert status == 1 and out.startswith(f"scaling.sweep: {theirs}: {said}")
        assert out_file.read_bytes() == both.read_bytes()


def test_collect_says_which_runs_the_study_does_not_name(sweep, train, tmp_path):
    assert train("--multirun", "sweeps=four", "data.tokens=2560,5120")[0] == 0
    out_file = tmp_path / "runs.csv"
    status, _, err = sweep("collect", "data.tokens=2560", options=["--out", str(out_file)])
    assert status == 0 and pd.read_csv(out_file)["run_id"].nunique() == 4
    assert re.search(r"2 runs \(\d+ rows\) are none that the study names; --prune leaves them out", err)
    status, _, err = sweep("collect", "data.tokens=2560", options=["--out", str(out_file), "--prune"])
    left = pd.read_csv(out_file)
    assert status == 0 and left["run_id"].nunique() == 2 and set(left["D"]) == {2560}
    assert "and are left out of the table" in err
    status, out, _ = sweep("collect", "data.tokens=1280", options=["--out", str(out_file), "--prune"])
    assert status == 1 and "there are no others; nothing was written" in out
    pd.testing.assert_frame_equal(pd.read_csv(out_file), left)
    status, out, _ = sweep("collect", study="loose", options=["--prune"])
    assert status == 1 and out.startswith("scaling.sweep: --prune: loose has no file in sweeps/")


def test_runs_without_a_study_file_are_collected_too(sweep, train, tmp_path):
    _, _, err = train("study=loose")
    assert "corpora in " in err
    status, out, _ = sweep("status", study="loose")
    assert status == 0 and out.endswith("1 runs: 1 done\n")
    (tmp_path / "outputs/loose/n1").mkdir()
    (tmp_path / "outputs/loose/n1/config.yaml").write_text("run: {}")
    status, out, err = sweep("status", study="loose")
    assert status == 0 and out.endswith("1 runs: 1 done\n") and re.match("refused n1  .*: not the config of a run", err)
    shutil.rmtree(tmp_path / "outputs/loose/n1")
    status, out, _ = sweep("status", study="lose")
    place = tmp_path / "outputs/lose"
    assert (status, out) == (1, f"scaling.sweep: lose: has no file in sweeps/, and no run in {place}; nearest: loose\n")
    status, _, _ = sweep("collect", study="loose", options=["--out", str(tmp_path / "runs.csv")])
    assert status == 0 and len(pd.read_csv(tmp_path / "runs.csv")) == 3


@pytest.mark.parametrize(
    "command, study, arguments, line",
    [
        ("plan", "fuor", [], "scaling.sweep: sweeps=fuor: no such choice; use one of four; nearest: four"),
        (
            "plan",
            "four",
            ["precision.weights=int44"],
            "scaling.sweep: precision.weights=int44: 44 bits are out of range",
        ),
        ("status", "four", ["hydra/launcher=nope"], "scaling.sweep: hydra/launcher=nope: no such choice; use one of "),
        ("plan", "four", ["what"], "scaling.sweep: what: expected setting=value"),
        ("plan", "four", ["--mfu", "1.5"], "scaling.sweep: --mfu 1.5: must be above 0 and at most 1"),
        ("plan", "four", ["--mfu", "half"], "scaling.sweep: --mfu half: expected a number"),
        ("plan", "four", ["--device", "h1000"], "scaling.sweep: --device h1000: no such device; use one of a100"),
        ("plan", "four", ["--price-per-hour", "free"], "scaling.sweep: --price-per-hour free: expected a number"),
        ("plan", "four", ["runtime.memory_gb=0"], "scaling.sweep: runtime.memory_gb=0.0: must be above 0"),
        ("collect", "nothing", [], "scaling.sweep: "),
    ],
)
def test_bad_input_is_one_line(sweep, command, study, arguments, line):
    status, out, err = sweep(command, *arguments, study=study)
    assert status == 1 and out.startswith(line) and out.count("\n") == 1 and err == ""


ORDINARY = '# @package _global_\nstudy: four\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: "0,1"}}}\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ORDINARY.replace("# @package _global_\n", ""), "add the line `# @package _global_` at its head"),
        (f"study: four\n{ORDINARY}", "add the line `# @package _global_` at its head"),
        (ORDINARY.replace("_global_", "_group_"), "add the line `# @package _global_` at its head"),
        (ORDINARY.replace("study: four\n", ""), "add a line such as `study: four`"),
        (ORDINARY.replace("study: four", "study: [4]"), "add a line such as `study: four`"),
        (ORDINARY.replace("study: four", "study: ../x"), "study=../x: must be a folder name"),
        (f"{ORDINARY}x: [", "cannot be read as YAML"),
        (ORDINARY.replace("four", "\x00"), "cannot be read as YAML"),
        ("# @package _global_\n", "has no settings"),
        ("# @package _global_\n- study", "has no settings"),
        (
            ORDINARY.replace("{mode", "{callbacks: {x: {_target_: os.system}}, mode"),
            "hydra.callbacks: a study sets only",
        ),
        (ORDINARY.replace("{params", "{_target_: os.system, params"), "hydra.sweeper._target_: a study names no"),
        ("# @package _global_\nstudy: four\nhydra: 3\n", "hydra=3: expected a group"),
    ],
)
def test_a_file_that_is_no_study_is_refused(sweep, train, study_file, tmp_path, text, line):
    study_file("four", "").write_text(text)
    for status, out, err in (sweep("plan"), train("--multirun", "sweeps=four"), train("sweeps=four")):
        said = (out + err).strip()
        assert status == 1 and line in said and said.count("\n") == 0
    assert not (tmp_path / "outputs").exists()


def test_the_head_of_a_study_may_say_more(sweep, study_file):
    study_file("four", "").write_text(f"# A question.\n\n#   @package   _global_  \n{ORDINARY.partition(chr(10))[2]}")
    assert sweep("plan", "data.tokens=2560")[0] == 0


def test_the_launcher_can_be_changed_from_the_command_line(study_file, tiny_grid):
    study_file("four", GRID)
    assert load("four", tiny_grid).launcher._target_.endswith("BasicLauncher")
    found = load("four", [*tiny_grid, "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"])
    assert found.launcher.n_jobs == 3 and len(found.runs) == 4
