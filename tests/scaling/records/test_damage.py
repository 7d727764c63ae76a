"""Damaged, swapped, missing and copied files of run folders: the same table, or one line that names the file; never a
traceback, and never other numbers."""

import random
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from scaling.console.cli import UnfinishedError
from scaling.errors import InputError
from scaling.ptq.settings import settings_of
from scaling.records.checkpoint import Checkpoint
from scaling.records.loaded_run import load_run
from scaling.records.merge import as_written, with_rows_of
from scaling.records.run_folder import RunFolder
from scaling.records.table import collect
from scaling.study.jobs import read_stack, write_stack
from scaling.study.status import standing
from scaling.training.loop import train_stack

SUMMED = ("config.yaml", "result.json", "ptq.jsonl", "windows.safetensors")
TENSORS = ("checkpoint.safetensors", "snapshots/1280.safetensors", "snapshots/2560.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the first test leaves its runs for the others to copy."""
    return tmp_path_factory.mktemp("trained") / "study"


@pytest.fixture
def study(make_run, trained):
    """Two finished runs, the second compared with the first."""
    folders = [RunFolder(make_run("snapshots=[1280,2560]", f"precision.weights={w}")) for w in ("bf16", "int3")]
    place = folders[0].path.parent
    if trained.exists():
        shutil.copytree(trained, place)
    else:
        assert train_stack([folder.run for folder in folders]) == {}
        shutil.copytree(place, trained)
    return folders


def table(study, out) -> tuple[bytes, str]:
    """The table of a study, and what stopped it from being whole."""
    out.unlink(missing_ok=True)
    try:
        collect(study[0].path.parent, out, (), lambda run: [setting.key for setting in settings_of(run)])
    except (InputError, UnfinishedError) as fault:
        assert "\n" not in str(fault)
        return (out.read_bytes() if out.exists() else b""), str(fault)
    return out.read_bytes(), ""


def damaged(content: bytes, chance: random.Random, flips: int) -> list[bytes]:
    places = [0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(6))]
    places += [place + 1 for place, byte in enumerate(content[:-1]) if byte == ord("\n")][-3:]
    half = len(content) // 2
    found = [content[:place] for place in places]
    found += [bytes(len(content)), content[:half] + bytes(len(content) - half), bytes(half) + content[half:], b"\xff"]
    for _ in range(flips):
        bit = bytearray(content)
        bit[chance.randrange(len(bit))] ^= 1 << chance.randrange(8)
        found.append(bytes(bit))
    return found


@pytest.mark.parametrize("name", SUMMED)
def test_damage_is_named_or_changes_nothing(study, tmp_path, capfd, name):
    out, path = tmp_path / "runs.csv", study[0].path / name
    whole, content = table(study, out)[0], path.read_bytes()
    assert len(pd.read_csv(out)) == 2 * 3 * (1 + len(settings_of(study[0].run)))
    for changed in damaged(content, random.Random(name), flips=6):
        path.write_bytes(changed)
        capfd.readouterr()
        found, fault = table(study, out)
        said = capfd.readouterr().err
        assert "\n" not in standing(study[0].run).detail
        assert (found == whole and not fault) or (fault and str(path) in said), changed
        # What the damaged run does not touch is there.
        others = [line for line in whole.splitlines() if line.startswith(study[1].run.run_id.encode())]
        assert len([line for line in found.splitlines() if line.split(b",")[0] == others[0].split(b",")[0]]) == len(
            others
        )
    path.write_bytes(content)
    assert table(study, out) == (whole, "")


@pytest.mark.parametrize("name", TENSORS)
def test_a_damaged_checkpoint_is_one_line(study, name):
    path = study[0].path / name
    content, whole = path.read_bytes(), Checkpoint.load(path)
    for changed in damaged(content, random.Random(name), flips=60):
        path.write_bytes(changed)
        try:
            found = Checkpoint.load(path)
        except InputError as fault:
            assert str(path) in str(fault) and "\n" not in str(fault)
        else:
            assert (found.step, found.seconds, found.skipped) == (whole.step, whole.seconds, whole.skipped)
            assert all((found.weights[n] == w).all() for n, w in whole.weights.items()), changed


@pytest.mark.parametrize("name", (*SUMMED, *TENSORS))
def test_another_runs_file_is_refused(study, tmp_path, capfd, name):
    shutil.copy(study[1].path / name, path := study[0].path / name)
    if name in SUMMED:
        _, fault = table(study, tmp_path / "runs.csv")
        assert fault and str(path) in capfd.readouterr().err
    else:
        with pytest.raises(InputError, match="another run"):
            Checkpoint.load(path)


def test_snapshots_of_one_run_are_told_apart(study):
    one, other = (study[0].path / name for name in TENSORS[1:])
    one.rename(tmp := one.with_name("third"))
    other.rename(one)
    tmp.rename(other)
    for path in (one, other):
        with pytest.raises(InputError, match=path.name):
            Checkpoint.load(path)


@pytest.mark.parametrize("name", ["config.yaml", "ptq.jsonl", "windows.safetensors"])
def test_a_missing_file_is_named(study, tmp_path, capfd, name):
    (study[0].path / name).unlink()
    _, fault = table(study, tmp_path / "runs.csv")
    assert "rows" in fault and str(study[0].path / name) in capfd.readouterr().err


def test_a_copied_folder_is_not_counted_twice(study, tmp_path, capfd):
    whole, _ = table(study, tmp_path / "runs.csv")
    copy = shutil.copytree(study[0].path, study[0].path.with_name(study[0].path.name + "-old"))
    found, fault = table(study, tmp_path / "runs.csv")
    assert found == whole and fault and f"{copy / 'config.yaml'}: is of the run" in capfd.readouterr().err
    with pytest.raises(InputError, match="is of the run"):
        load_run(copy)


def test_a_table_that_was_damaged_since_is_not_added(study, tmp_path):
    out, copy = tmp_path / "runs.csv", tmp_path / "there" / "runs.csv"
    table(study, out)
    copy.parent.mkdir()
    for name in ("runs.csv", "runs.csv.sha256"):
        shutil.copy(tmp_path / name, copy.parent)
    frame = as_written(pd.read_csv(out, dtype=str, keep_default_na=False))
    assert len(with_rows_of(copy, frame)) == len(frame)
    assert (
        subprocess.run(
            ["sha256sum", "--check", "runs.csv.sha256"], cwd=copy.parent, stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )
    for path in (copy, copy.with_name("runs.csv.sha256")):
        content = path.read_bytes()
        for changed in damaged(content, random.Random(path.name), flips=20):
            path.write_bytes(changed)
            try:
                assert with_rows_of(copy, frame).equals(frame) and copy.read_bytes() == out.read_bytes()
            except InputError as fault:
                assert f"{copy}: damaged, or edited" in str(fault) and "\n" not in str(fault)
        path.write_bytes(content)
    copy.with_name("runs.csv.sha256").unlink()  # on purpose, or of an earlier version
    copy.write_text(out.read_text().replace(study[0].run.run_id, "other"))
    assert len(with_rows_of(copy, frame)) > len(frame)


def test_a_damaged_stack_file_trains_nothing_else(study, tmp_path):
    runs = [folder.run for folder in study]
    path = write_stack(runs)
    content = path.read_bytes()
    for changed in damaged(content, random.Random(0), flips=60):
        path.write_bytes(changed)
        try:
            assert read_stack(path) == runs
        except InputError as fault:
            assert f"stack={path}: " in str(fault) and "\n" not in str(fault), changed


def test_damaged_lines_of_a_curve_are_dropped(study, capfd):
    path = study[0].path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"tokens": "\xff\n' + b"[]\n" + b'{"tokens": null}\n' + b"".join(lines[1:]))
    study[0].forget_metrics_after(study[0].run.D)
    assert path.read_bytes() == b"".join(lines)
    assert "metrics.jsonl: line 2 is not a point of the curve; 3 such lines were dropped" in capfd.readouterr().err


def test_a_folder_of_an_earlier_version_lacks_what_it_lost(tmp_path, capfd):
    stored = Path(__file__).parents[1] / "fixtures" / "stored"
    study = [RunFolder.at(p) for p in shutil.copytree(stored, tmp_path / "stored").glob("n*")]
    whole, fault = table(study, tmp_path / "runs.csv")
    assert whole and not fault
    path = study[0].path / "ptq.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    found, fault = table(study, tmp_path / "runs.csv")
    assert len(found.splitlines()) == len(whole.splitlines()) - 2
    assert "2 rows" not in fault and f"{path}: 2 of " in capfd.readouterr().err


def test_a_table_with_a_run_that_diverged_is_added_to_its_like(make_run, tmp_path, capfd):
    wild = make_run("optimizer.lr=1e30", "optimizer.clip=1e30", "data.tokens=25600")
    train_stack([wild, make_run()])
    folder, out = RunFolder(wild).path.parent, tmp_path / "runs.csv"
    rows = collect(folder, out)
    whole = out.read_bytes()
    shutil.move(out, tmp_path / "other.csv")
    assert collect(folder, out, [tmp_path / "other.csv"]) == rows and out.read_bytes() == whole
    assert "2 runs are here too, with losses at most 0 nats apart" in capfd.readouterr().err
    text = (tmp_path / "other.csv").read_text().replace(wild.run_id, "other").replace("25600", "many")
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(InputError, match=r"other\.csv: .*not a number"):
        with_rows_of(tmp_path / "other.csv", as_written(pd.read_csv(out, dtype=str, keep_default_na=False)))


def test_what_is_said_of_a_damaged_checkpoint_helps(tmp_path):
    """A run counts as done by its result: without its checkpoint alone it would not be trained again."""
    unfinished, finished = tmp_path / "unfinished", tmp_path / "finished"
    for folder in (unfinished, finished):
        folder.mkdir()
        (folder / "checkpoint.safetensors").write_bytes(b"damaged")
    (finished / "result.json").touch()
    for folder, what in ((unfinished, "the file"), (finished, str(finished))):
        with pytest.raises(InputError, match=f"delete {what} to train the run from its start$"):
            Checkpoint.load(folder / "checkpoint.safetensors")
