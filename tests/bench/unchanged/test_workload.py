import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.unchanged.sides import FailedError, Side, base, run
from bench.unchanged.workload import STUDIES, Task, prepare, tasks

REPOSITORY = Path(__file__).parents[3]
STUDY = STUDIES / "sweeps" / "unchanged.yaml"


@pytest.mark.parametrize("group", ["precision", "schedule"])
def test_every_choice_is_trained(group):
    named = set(re.findall(r"[\w.]+", STUDY.read_text()))
    assert {path.stem for path in (REPOSITORY / "configs" / group).glob("*.yaml")} <= named


def test_every_study_is_planned_and_every_table_fitted(tmp_path):
    prepare(REPOSITORY, tmp_path)
    names = {task.name for task in tasks(REPOSITORY, tmp_path)}
    assert {f"plan {path.stem}" for path in (REPOSITORY / "sweeps").glob("*.yaml")} <= names
    assert {f"figures {path.parent.name}" for path in (REPOSITORY / "results").glob("*/runs.csv")} <= names


def test_it_starts_from_tables_without_what_is_made_from_them(tmp_path):
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    prepare(REPOSITORY, out)
    found = {path.name for path in out.rglob("*") if path.is_file()}
    assert found == {"runs.csv", "predictions.csv", "squares.txt"}
    assert not (out / "old").exists()


@pytest.fixture
def planted(tmp_path):
    """A repository of two packages and no studies."""
    code = tmp_path / "code"
    for name in ("scaling", "analysis"):
        (code / name).mkdir(parents=True)
        (code / name / "__init__.py").write_text("CONSTANT = 1\n")
    (code / "scaling" / "say.py").write_text("import scaling\nprint(scaling.CONSTANT)\n")
    (code / ".gitignore").write_text("cache/\n")
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "-m", "first"),
    ):
        subprocess.run(["git", "-C", code, *words], check=True)
    return code


def test_each_side_runs_its_own_code(planted, tmp_path):
    before, done = base(planted, "HEAD")
    after = Side(name="tree", code=planted, out=tmp_path / "out")
    (planted / "scaling" / "__init__.py").write_text("CONSTANT = 2\n")
    assert not done.exists()
    said = {}
    for side in (before, after):
        side.out.mkdir(parents=True)
        side.check()
        side.run(Task(name="say", commands=(("scaling.say",),), printed="printed/say.txt"))
        said[side.name] = (side.out / "printed/say.txt").read_text()
    assert list(said.values()) == ["1\n", "2\n"]


def test_code_from_elsewhere_is_refused(planted, tmp_path):
    (planted / "analysis" / "__init__.py").unlink()
    (planted / "analysis").rmdir()
    with pytest.raises(FailedError, match="would run in place of"):
        Side(name="tree", code=planted, out=tmp_path).check()


def test_a_command_that_fails_says_which_and_why(planted, tmp_path):
    side = Side(name="tree", code=planted, out=tmp_path / "out")
    side.out.mkdir()
    with pytest.raises(FailedError, match=r"tree: python -m scaling\.nothing x: status 1: .*No module named"):
        side.run(Task(name="nothing", commands=(("scaling.nothing", "x"),)))


def test_an_unknown_commit_is_one_line(planted):
    with pytest.raises(FailedError, match="BASE=nowhere: no such commit"):
        base(planted, "nowhere")


def test_tasks_wait_for_what_they_read(planted, tmp_path, monkeypatch):
    chain = [
        Task(name="last", commands=(("scaling.say",),), after=("first",)),
        Task(name="first", commands=(("scaling.say",),)),
    ]
    monkeypatch.setattr("bench.unchanged.sides.tasks", lambda code, out: chain)
    said = []
    run([Side(name=name, code=planted, out=tmp_path / name) for name in ("a", "b")], 2, said.append)
    order = [re.search(r": (\w: \w+),", line)[1] for line in said]
    assert sorted(order) == ["a: first", "a: last", "b: first", "b: last"]
    assert all(order.index(f"{side}: first") < order.index(f"{side}: last") for side in "ab")


def test_the_interpreter_is_this_one(planted, tmp_path):
    (planted / "scaling" / "which.py").write_text("import sys\nprint(sys.executable)\n")
    side = Side(name="tree", code=planted, out=tmp_path)
    side.run(Task(name="which", commands=(("scaling.which",),), printed="which/which.txt"))
    assert (tmp_path / "which/which.txt").read_text().strip() == sys.executable
