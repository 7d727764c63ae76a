"""Names and files that are read lead nowhere else, and run nothing."""

import pandas as pd
import pytest

from scaling.config.from_dict import plain
from scaling.config.run import build_run
from scaling.errors import InputError
from scaling.ptq.__main__ import main as ptq
from scaling.records.columns import NAMES
from scaling.records.merge import write
from scaling.records.provenance import commit
from scaling.records.run_folder import stored_run
from scaling.study.jobs import read_stack, write_stack
from scaling.sweep import main as sweep

OUTSIDE = ("../x", "/tmp/x", "a/b", "..", ".x", "..\\x", "", "a\nb", "x" * 300)
FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-x", "@SUM(1)")
WANTED = "must be a folder name of at most 128 bytes that begins with none of . = + - @"


@pytest.mark.parametrize("name", [*OUTSIDE, *FORMULAS])
@pytest.mark.parametrize("setting", ["study", "branch.parent"])
def test_names_lead_nowhere_else(make_run, name, setting):
    good = plain(make_run("branch.parent=x", "branch.tokens=1280"))
    good |= {"study": name} if setting == "study" else {"branch": {"parent": name, "tokens": 1280}}
    with pytest.raises(InputError) as fault:
        build_run(good)
    assert str(fault.value).startswith(f"{setting}=") and WANTED in str(fault.value)
    assert str(fault.value).isprintable()


@pytest.mark.parametrize("name", ["../x", "=x"])
@pytest.mark.parametrize("command", ["ptq", "collect", "status", "plan"])
def test_commands_refuse_such_studies(monkeypatch, tmp_path, capsys, name, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["scaling.ptq", f"study='{name}'"])
    with pytest.raises(SystemExit) as end:
        ptq() if command == "ptq" else sweep([command, name])
    said = str(end.value.code)
    assert f"study={name}: {WANTED}" in said and "\n" not in said
    assert not list(tmp_path.iterdir())


def test_a_stack_file_trains_in_its_own_folder(make_run, tmp_path):
    own = write_stack([make_run()])
    assert len(read_stack(own)) == 1
    (tmp_path / "else" / "stacks").mkdir(parents=True)
    moved = own.rename(tmp_path / "else" / "stacks" / "000.json")
    with pytest.raises(InputError, match="expected the file in a folder of that of its runs"):
        read_stack(moved)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'[{"study": "../x"}]', b"[1]", b"[null]"])
def test_a_strange_stack_file_is_one_line(tmp_path, content):
    (tmp_path / "000.json").write_bytes(content)
    with pytest.raises(InputError) as fault:
        read_stack(tmp_path / "000.json")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "values",
    [{"study": "=cmd|x"}, {"device": "@x"}, {"commit": "+x"}, {"loss": "=1+1"}, {"D": "-cmd"}, {"diverged": "=TRUE()"}],
)
def test_no_formula_reaches_a_table(tmp_path, values):
    good = {name: "" for name in NAMES} | {"loss": "-1.5e-3", "diverged": "False", "gap": "inf", "study": "a-b=c"}
    write(pd.DataFrame([good]), tmp_path / "good.csv")
    [(name, text)] = values.items()
    with pytest.raises(InputError, match=f"^{name}=") as fault:
        write(pd.DataFrame([good, good | values]), tmp_path / "bad.csv")
    assert text in str(fault.value) and not (tmp_path / "bad.csv").exists()


def test_a_stated_commit_is_no_formula(monkeypatch):
    monkeypatch.setenv("SCALING_COMMIT", "=+abc+")
    commit.cache_clear()
    assert commit() == "abc+"
    commit.cache_clear()


def test_a_config_cannot_make_objects(make_run, tmp_path):
    (tmp_path / "config.yaml").write_text(f"run: !!python/object/apply:os.system ['touch {tmp_path / 'X'}']\n")
    with pytest.raises(InputError, match="not the config of a run"):
        stored_run(tmp_path)
    assert not (tmp_path / "X").exists()
