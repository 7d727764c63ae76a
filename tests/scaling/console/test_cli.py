import os
import subprocess
import sys

import pytest

from scaling.__main__ import COMMANDS
from scaling.console.cli import guarded


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["foo=1"], "foo: no such setting; use one of branch, data, "),
        (["+foo=1"], "foo: no such setting; use one of branch, data, "),
        (["modle=24k"], "modle: no such setting; did you mean model?"),
        (["precision.weihgts=int4"], "precision.weihgts: no such setting; did you mean weights?"),
        (["hydra.run.dir=here"], "hydra.run.dir=here: not used; runs go to runtime.out=FOLDER"),
        (["model=9k"], "model=9k: no such choice; use one of 2k, 24k, 83k, "),
        (["hydra/launcher=nope"], "hydra/launcher=nope: no such choice; use one of basic, "),
        (["seed=0,1"], "seed=0,1: several values; add --multirun"),
        (["model={"], "model={: cannot be read; write setting=value"),
        (["data.tokens=${seeed}"], "data.tokens: Interpolation key 'seeed' not found"),
        (["data.tokens=1e9"], "data.tokens=1000000000: "),
        (["branch.parent=x", "branch.tokens=1280"], "branch.parent=x: "),
        (["+stack=nowhere.json"], "stack=nowhere.json: cannot be read"),
        (["+stack=[1]"], "stack=[1]: expected the path of a file"),
        (["--cfg", "job", "--multirun"], "Only one of --run, --multirun, --cfg, "),
        (
            ["--multirun", "seed=0,1", "precision.weights=int3,int44"],
            "precision.weights=int44: 44 bits are out of range",
        ),
        (["--multirun", "model=2k,9k"], "model=9k: no such choice; use one of "),
        (["--multirun", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): has no list of values; use "),
        (["--multirun", "sweeps=demo,demo"], "sweeps=demo,demo: one study at a time"),
        (["--multirun", "data.tokens=5120,1e9"], "data.tokens=1000000000: "),
    ],
)
def test_bad_input_is_one_line_and_trains_nothing(train, tmp_path, arguments, line):
    status, out, err = train(*arguments)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"scaling.train: {line}")
    assert "Traceback" not in err and "Error executing job" not in err
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("checkpoint.safetensors"))


def test_flags_may_stand_among_settings(train):
    status, _, err = train("seed=0", "--multirun", "precision.weights=int44")
    assert status == 1 and err.startswith("scaling.train: precision.weights=int44")


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_real_command_fails_in_one_line_with_nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = command("scaling.train", "precision.weights=int44")
    assert found.returncode == 1 and found.stdout == ""
    expected = (
        "scaling.train: precision.weights=int44: 44 bits are out of range; integers have 2 to 16 bits; nearest: int4"
    )
    assert found.stderr.startswith(expected) and found.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_traceback_can_be_asked_for():
    found = command("scaling.train", "modle=24k", HYDRA_FULL_ERROR="1")
    assert found.returncode == 1 and "Traceback" in found.stderr and "modle" in found.stderr


def test_help_lists_groups_and_studies_without_loading_torch():
    script = "import sys; sys.argv = ['train.py', '--help']\nfrom scaling.train import main\n"
    script += "try: main()\nfinally: print('torch loaded:', 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "torch loaded: False" in found.stdout
    assert "precision: a4, bf16, " in found.stdout and "sweeps: " in found.stdout and " demo, " in found.stdout
    assert "model: 2k, 24k, 83k, " in found.stdout and "pretrained" not in found.stdout


def test_help_lists_what_the_command_takes_and_what_one_more_folder_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "ptq").mkdir(parents=True)
    (tmp_path / "mine" / "ptq" / "own.yaml").write_text("methods: [rtn]\n")
    found = command("scaling.ptq", "-cd", "mine", "--help")
    groups, _, settings = found.stdout.partition("== Groups (group=choice) ==")[2].partition("==")
    assert [line.partition(": ")[0] for line in groups.split("\n") if line] == ["ptq", "runtime", "tracking"]
    assert "ptq: all, awq, gptq, none, own, paper, rtn, w4a8kv8" in groups and "study: ???" in settings


@pytest.mark.parametrize("name", ["scaling.train", "scaling.ptq", "scaling.pretrained"])
def test_a_folder_of_settings_that_is_not_there_is_one_line(name):
    found = command(name, "--config-dir=nowhere")
    assert (found.returncode, found.stderr) == (1, f"{name}: --config-dir nowhere: no such folder\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", [module for module, _ in COMMANDS.values()])
def test_a_reader_that_leaves_ends_nothing_in_noise(name):
    line = f"{sys.executable} -m {name} --help | true; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_ctrl_c_says_how_to_go_on(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        guarded(interrupted, "scaling.train")
    assert end.value.code == 130
    assert capsys.readouterr().err == "scaling.train: interrupted; run again to go on\n"


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0, "scaling.train")
    with pytest.raises(ValueError):
        guarded(lambda: int("x"), "scaling.train")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, line, choices",
    [
        ("scaling.train", "scaling-train schedule=w", "schedule=wsd"),
        ("scaling.ptq", "scaling-ptq ptq=g", "ptq=gptq"),
        ("scaling.pretrained", "scaling-pretrained pretrained=pythia-14", "pretrained=pythia-14m"),
    ],
)
def test_the_shell_is_told_how_a_line_can_go_on(name, line, choices):
    found = command(name, "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert (found.returncode, found.stdout.split()) == (0, [choices]), found.stderr
