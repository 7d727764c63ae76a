import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.unchanged.compare import GROUPS, compared

RUN = "outputs/unchanged/n2k-a"
ID = "n2k-d5.1k-cosine-w16a16kv16-s0-0123456789"


@pytest.fixture
def sides(tmp_path):
    """Two equal output folders with a file of each kind."""
    before, after = tmp_path / "before", tmp_path / "after"
    write(before, "results/demo/runs.csv", "N,D\n1,2\n")
    write(before, "plans/demo.txt", f"demo: 1 runs\n{ID}\ntime: about 3 s\n")
    write(before, f"{RUN}/metrics.jsonl", '{"tokens": 1, "loss_train": 0.1}\n{"tokens": 2, "loss_train": 0.3}\n')
    write(
        before,
        f"{RUN}/result.json",
        json.dumps({"N": 1, "commit": "a", "seconds": 1.0, "corpus": "text-0123456789abcdef"}),
    )
    write(before, f"{RUN}/ptq.jsonl", '{"setting": "rtn", "gap": 0.25}\n')
    tensors(before, f"{RUN}/windows.safetensors", 1.0)
    tensors(before, f"{RUN}/checkpoint.safetensors", 1.0)
    write(before, "table/runs.csv", "N,loss,seconds\n1,2.5,7\n")
    write(before, "results/demo/fits.json", "{}\n")
    write(before, "results/demo/slopes.csv", "D\n1\n")
    write(before, "results/demo/figures/a.csv", "x,y\n1,2\n3,4\n")
    write(before, "results/demo/figures/a.png", "png")
    write(before, "results/report.md", "# Report\n")
    write(before, "printed/laws.txt", "kumar\n")
    shutil.copytree(before, after)
    return before, after


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tensors(folder, name, value, **metadata):
    save_file({"w": np.array([value, 2.0], np.float32)}, folder / name, metadata=metadata or None)


def differences(sides, **renamed):
    """Group -> [(file, line)] of the groups that differ."""
    found = {outcome.group: outcome.differences for outcome in compared(*sides, **renamed)}
    return {group: [(each.file, each.line) for each in listed] for group, listed in found.items() if listed}


def test_equal_folders_are_the_same(sides):
    outcomes = list(compared(*sides))
    assert [outcome.group for outcome in outcomes] == [group.name for group in GROUPS]
    assert not differences(sides)
    assert all(outcome.files >= 1 and outcome.lines >= 1 for outcome in outcomes)


def test_what_a_second_run_changes_does_not_count(sides):
    _, after = sides
    write(after, "plans/demo.txt", f"demo: 1 runs\n{ID}\ntime: about 5 s\n")
    write(
        after,
        f"{RUN}/result.json",
        json.dumps({"N": 1, "commit": "b", "seconds": 2.0, "corpus": "text-fedcba9876543210"}),
    )
    write(after, "table/runs.csv", "N,loss,seconds\n1,2.5,8\n")
    tensors(after, f"{RUN}/checkpoint.safetensors", 1.0, seconds="2.0")
    assert not differences(sides)


@pytest.mark.parametrize(
    "name, old, new, group, line",
    [
        ("results/demo/runs.csv", "1,2", "1,3", "tables to start from", 2),
        ("plans/demo.txt", "456789", "456788", "run ids", 1),
        ("plans/demo.txt", "1 runs", "2 runs", "plans", 1),
        (f"{RUN}/metrics.jsonl", "0.3", "0.30000000000000004", "training curves", 2),
        (f"{RUN}/result.json", '"N": 1', '"N": 2', "results of runs", 1),
        (f"{RUN}/ptq.jsonl", "0.25", "0.25000000000000006", "quantizations", 1),
        ("table/runs.csv", "2.5", "2.50", "collected table", 2),
        ("results/demo/fits.json", "{}", "{ }", "fits.json", 1),
        ("results/demo/slopes.csv", "1", "2", "slopes.csv", 2),
        ("results/demo/figures/a.csv", "1,2\n3,4", "3,4\n1,2", "numbers of figures", 2),
        ("results/demo/figures/a.csv", "3,4\n", "", "numbers of figures", 3),
        ("results/demo/figures/a.png", "png", "gnp", "figures", 1),
        ("results/report.md", "Report", "report", "report", 1),
    ],
)
def test_a_planted_change_is_named(sides, name, old, new, group, line):
    _, after = sides
    text = (after / name).read_text()
    assert old in text
    write(after, name, text.replace(old, new))
    assert differences(sides) == {group: [(name, line)]}


@pytest.mark.parametrize("name, group", [("windows", "losses by window"), ("checkpoint", "checkpoints")])
def test_one_bit_of_a_tensor_is_enough(sides, name, group):
    tensors(sides[1], f"{RUN}/{name}.safetensors", np.nextafter(np.float32(1), np.float32(2)))
    assert differences(sides) == {group: [(f"{RUN}/{name}.safetensors", 1)]}


def test_a_missing_file_and_an_empty_group_differ(sides):
    (sides[1] / "results/demo/fits.json").unlink()
    for side in sides:
        (side / "printed/laws.txt").unlink()
    found = differences(sides)
    assert found == {"fits.json": [("results/demo/fits.json", None)], "printed by analysis": [("printed/*.txt", None)]}
    write(sides[1], "results/new/fits.json", "{}")
    assert ("results/new/fits.json", None) in differences(sides)["fits.json"]


def test_renamed_files_and_columns_can_be_declared(sides):
    _, after = sides
    (after / "results/demo").rename(after / "results/first")
    write(after, "table/runs.csv", "N,nats,seconds\n1,2.5,7\n")
    write(after, f"{RUN}/ptq.jsonl", '{"word": "rtn", "gap": 0.25}\n')
    assert {"collected table", "quantizations", "fits.json"} <= differences(sides).keys()
    assert not differences(sides, files={"demo": "first"}, columns={"loss": "nats", "setting": "word"})
    write(sides[0], "results/demo/old.csv", "1\n")  # a name that the patterns of its group had before
    write(after, "results/first/predictions.csv", "1\n")
    names = {"demo": "first", "old.csv": "predictions.csv"}
    assert not differences(sides, files=names, columns={"loss": "nats", "setting": "word"})


def test_a_difference_shows_both_sides_around_it(sides):
    _, after = sides
    write(sides[0], "results/report.md", "a" * 1000 + "x\n")
    write(after, "results/report.md", "a" * 1000 + "y\n")
    (outcome,) = [o for o in compared(*sides) if o.differences]
    shown = str(outcome.differences[0])
    assert shown.startswith("results/report.md:1\n") and "ax\n" in shown and shown.endswith("ay")
    assert len(shown) < 400
