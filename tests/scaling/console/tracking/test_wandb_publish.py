"""What is published is read back from the files that W&B wrote, and from what `wandb sync` uploads."""

import base64
import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.config.tracking import TrackingConfig
from scaling.console.tracking.publish import publish
from scaling.console.tracking.workspace import Axis, sections, workspace
from scaling.errors import InputError
from tests.conftest import REPOSITORY
from tests.scaling.console.tracking.wandb_server import WandbServer

WANDB = Path(sys.executable).with_name("wandb")
KEYS = ("rtn/int4/channel/absmax", "rtn/int3/channel/absmax", "rtn/int3/channel/absmax", "")


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SILENT"]:
        monkeypatch.delenv(name)


@pytest.fixture
def results(tmp_path) -> Path:
    """A study's folder: a table of four rows of two runs, fits and a figure; what is half written, and what lies
    elsewhere."""
    folder = tmp_path / "results" / "demo"
    (folder / "figures").mkdir(parents=True)
    with open(folder / "runs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run_id", "setting", "P_w", "lr_peak"])
        rows.writerows(zip("aabb", KEYS, [16, 16, 4, 4], [1, 1, 1, 1], strict=True))
    (folder / "fits.json").write_text("{}")
    (folder / "figures" / "gap.png").write_bytes(b"png")
    (folder / ".fits.json.analysis-tmp-1").write_text("half")
    (tmp_path / "secret").write_text("not of the study")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


def tracking(mode="offline", project=None, **more) -> TrackingConfig:
    return TrackingConfig(
        mode=mode, project=project, entity=None, points_per_doubling=50, init_timeout=1, finish_timeout=1, **more
    )


def written(out: Path) -> list[Path]:
    return sorted((out / "wandb").glob("offline-run-*"))


def inspected(folder: Path) -> list[dict]:
    leet = [WANDB, "leet", "inspect", "--json", folder]
    return [json.loads(line) for line in subprocess.check_output(leet, text=True).splitlines()]


def test_one_artifact_holds_table_fits_and_figures(results, tmp_path):
    done = publish("demo", results, tmp_path / "out", tracking(group="mine"))
    assert (done.artifact, done.files, done.new, done.mode, done.workspace) == ("demo", 3, True, "offline", None)
    [folder] = written(tmp_path / "out")
    records = inspected(folder)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["project"], run["run_group"], run["job_type"]) == ("precision-scaling", "mine", "publish")
    artifact = next(record["artifact"] for record in records if record["type"] == "artifact")
    assert (artifact["name"], artifact["type"], artifact["digest"]) == ("demo", "study", done.digest)
    assert json.loads(artifact["metadata"]) == {"study": "demo", "rows": 4, "runs": 2}
    found = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
    assert found.keys() == {"runs.csv", "fits.json", "figures/gap.png"}
    for name, entry in found.items():
        assert base64.b64decode(entry["digest"]) == hashlib.md5((results / name).read_bytes()).digest()
        staged = Path(entry["local_path"])
        assert staged.read_bytes() == (results / name).read_bytes() and tmp_path in staged.parents


def test_what_is_published_is_not_published_twice(results, tmp_path):
    first = publish("demo", results, tmp_path / "out", tracking())
    second = publish("demo", results, tmp_path / "out", tracking())
    assert (second.new, second.digest) == (False, first.digest) and len(written(tmp_path / "out")) == 1
    (results / "figures" / "gap.png").write_bytes(b"other")
    third = publish("demo", results, tmp_path / "out", tracking())
    assert third.new and third.digest != first.digest and len(written(tmp_path / "out")) == 2
    before = written(tmp_path / "out")
    assert publish("demo", results, tmp_path / "out", tracking(project="elsewhere")).new
    # One that was cut short was not published. Names have the second, in which two may be written.
    [last] = {*written(tmp_path / "out")} - {*before}
    [file] = last.glob("*.wandb")
    file.write_bytes(file.read_bytes()[:-20])
    assert publish("demo", results, tmp_path / "out", tracking(project="elsewhere")).new


def test_bad_input_is_a_line(results, tmp_path, capfd, monkeypatch):
    with pytest.raises(InputError, match=r"^tracking\.mode=off: publishing needs W&B"):
        publish("demo", results, tmp_path / "out", tracking("off"))
    with pytest.raises(InputError, match=r"runs\.csv: not there; make it with python -m scaling\.sweep collect demo"):
        publish("demo", results / "figures", tmp_path / "out", tracking())
    assert not (tmp_path / "out").exists()
    (results / "fits.json").unlink()
    publish("demo", results, tmp_path / "out", tracking())
    assert "published without fits.json (analysis fit)" in capfd.readouterr().err


def environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path / "home"), "WANDB_API_KEY": "a" * 40, **extra}


@pytest.mark.slow
def test_the_command_and_what_sync_uploads(results, tmp_path):
    command = [sys.executable, "-m", "scaling.sweep", "publish", "demo", "--results", str(results.parent)]
    place = [f"runtime.out={tmp_path / 'out'}", "tracking.init_timeout=1"]
    run = {"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 300}
    online = environment(tmp_path, WANDB_MODE="online", WANDB_BASE_URL="http://127.0.0.1:9")
    refused = subprocess.run([*command, *place], env=online, **run)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "WANDB_MODE=offline writes files for `wandb sync`" in refused.stderr.splitlines()[-1]
    done = subprocess.run([*command, *place], env=environment(tmp_path), **run)
    assert done.returncode == 0 and done.stdout.startswith("demo: 3 files, written for `wandb sync` ("), done.stderr
    digest = done.stdout.strip().split("(")[1].rstrip(")")
    with WandbServer() as server:
        there = environment(tmp_path, WANDB_BASE_URL=server.url)
        synced = subprocess.run(
            [WANDB, "sync", "--yes", "wandb"], env=there, **run | {"cwd": tmp_path / "out" / "demo"}
        )
    assert synced.returncode == 0, synced.stderr
    [artifact] = server.artifacts
    assert (artifact["artifactCollectionName"], artifact["digest"]) == ("demo", digest)


def test_the_workspace_opens_on_the_axes_of_the_question():
    gaps, losses, every = sections(KEYS[:3], ["precision.weights"])
    assert [chart.title for chart in gaps.charts] == ["rtn/int3-channel", "rtn/int4-channel"]
    for bits, chart in zip((3, 4), gaps.charts, strict=True):
        ratio = Axis("config", "tokens_per_parameter", log=True)
        assert chart.axes == (ratio, Axis("summary", f"ptq/rtn/int{bits}-channel/gap", log=True))
    assert [(chart.axes[0].name, chart.axes[1].name, chart.by) for chart in losses.charts] == [
        ("tokens", "train/loss", "bits"),
        ("tokens", "val/subset_loss", "bits"),
    ]
    [parallel] = every.charts
    names = [axis.name for axis in parallel.axes]
    assert names == ["N", "D", "precision.weights", "val/loss", *(chart.axes[1].name for chart in gaps.charts)]
    assert [section.title for section in sections([])] == [losses.title, every.title]


def test_wandb_describes_the_workspace_so():
    pytest.importorskip("wandb_workspaces")
    made = workspace("me", "precision-scaling", "demo", "demo", sections(KEYS[:1]))
    section = made._to_model().model_dump(by_alias=True, exclude_none=True)["spec"]["section"]
    gaps, losses, every = section["panelBankConfig"]["sections"]
    [gap] = gaps["panels"]
    axes = {"xAxis": "config:tokens_per_parameter.value", "yAxis": "summary:ptq/rtn/int4-channel/gap"}
    assert gap["viewType"] == "Scatter Plot"
    assert gap["config"].items() >= {**axes, "xAxisLogScale": True, "yAxisLogScale": True}.items()
    loss = losses["panels"][0]["config"]
    assert (loss["xAxis"], loss["metrics"], loss["groupBy"]) == ("tokens", ["train/loss"], "bits.value")
    assert loss["xLogScale"] is True and loss["yLogScale"] is False
    columns = [column["accessor"] for column in every["panels"][0]["config"]["columns"]]
    assert columns == ["config:N.value", "config:D.value", "summary:val/loss", "summary:ptq/rtn/int4-channel/gap"]
    [runs] = section["runSets"]
    assert [(f["key"]["name"], f["op"], f["value"]) for f in runs["filters"]["filters"]] == [
        ("group", "=", "demo"),
        ("jobType", "!=", "publish"),
    ]
