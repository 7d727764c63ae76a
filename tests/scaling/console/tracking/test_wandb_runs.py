"""W&B is read back from the files that it wrote. Each case is a process of its own, as what W&B may do is settled once
a process; `wandb leet inspect` reads the records."""

import json
import os
import pty
import subprocess
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from scaling.config.compose import BEHAVIOUR
from scaling.config.from_dict import build
from scaling.config.tracking import TrackingConfig
from scaling.console.tracking.files import last_step
from scaling.errors import InputError
from tests.scaling.console.tracking.wandb_server import WandbServer

REPOSITORY = Path(__file__).parents[4]
KEY = "a" * 40

PREAMBLE = """
import sys
import time
from pathlib import Path
from scaling.console.tracking.runs import Tracked, Trackers
from scaling.config.tracking import TrackingConfig

def trackers(*run_ids, continues=False, **more):
    tracking = TrackingConfig(
        mode=sys.argv[2], project=None, entity=None, points_per_doubling=50, init_timeout=1, finish_timeout=1, **more
    )
    return Trackers(
        Path(sys.argv[1]),
        [
            Tracked(
                run_id=run_id, study="overtraining", tracking=tracking, continues=continues,
                settings={"model": {"name": "24k"}, "seeds": {"init": i}},
            )
            for i, run_id in enumerate(run_ids)
        ],
    )

def row(key, gap, **more):
    losses = {"loss": 2.5 + gap, "loss_se": .25, "gap": gap, "gap_se": .125}
    return {"tokens_seen": 4096000, "setting": key, **losses, **more}
"""


def environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") and name != "NETRC"}
    return {**clean, "HOME": str(tmp_path / "home"), "TERM": "dumb", **extra}


def run_script(body: str, tmp_path: Path, mode: str, **extra: str) -> tuple[str, str]:
    """stdout and stderr of a process that must end well by itself; its W&B files are in `tmp_path / study / wandb`."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + body, str(tmp_path / "study"), mode],
        cwd=REPOSITORY, env=environment(tmp_path, **extra), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def folders(tmp_path: Path, pattern: str) -> list[Path]:
    return sorted((tmp_path / "study" / "wandb").glob(pattern))


@cache
def leet(folder: Path, *options: str) -> str:
    wandb = Path(sys.executable).with_name("wandb")
    return subprocess.run(
        [wandb, "leet", "inspect", *options, folder], capture_output=True, text=True, check=True
    ).stdout


def summary(folder: Path) -> dict:
    return json.loads(leet(folder, "--summary", "--json"))


def history(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in leet(folder, "--json").splitlines()]
    return [r["history"]["item"] for r in records if r["type"] == "history"]


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> Path:
    """Three models of a stack that end in another order than they began: well, failed, and not at all. Then the last
    one again, from where its checkpoint was."""
    tmp_path = tmp_path_factory.mktemp("offline")
    first = """
with trackers("a", "b", "c") as t:
    for step in range(1, 2001):
        for i, run_id in enumerate("abc"):
            t.log(run_id, step * 2048, {"train/loss": 5 + i - step / 1000})
        if step in (1980, 1990):
            t.log("a", step * 2048, {"eval/loss": 0.5, "eval/se": 0.25} if step == 1980 else {"eval/loss": 1.5})
        if step == 1000:
            t.finish("b", 1000 * 2048, {}, failed=True)
    rows = [row("rtn/int3/channel/absmax", .5), row("rtn/int4/channel/absmax", .125, format_post="int4")]
    t.finish("a", 2000 * 2048, {"val/loss": 2.5}, rows)
"""
    again = """
with trackers("c", continues=True) as t:
    for step in range(1900, 2011):
        t.log("c", step * 2048, {"train/loss": 7.0})
    t.finish("c", 2010 * 2048, {"val/loss": 2.75, "train/loss": 7.0})
for continues, steps in ((False, (1, 2, 3)), (True, (2, 3, 4, 5))):
    with trackers("b", continues=continues) as t:
        for step in steps:
            t.log("b", step * 2048, {"train/loss": 9.0})
    time.sleep(1.1)  # folders are named by the second
"""
    for body in (first, again):
        assert run_script(body, tmp_path, "offline") == ("", "")
    return tmp_path


def test_offline_records(offline):
    (folder,) = folders(offline, "offline-run-*-a")
    records = [json.loads(line) for line in leet(folder, "--json").splitlines()]
    run = next(r["run"] for r in records if r["type"] == "run")
    assert (run["run_id"], run["display_name"], run["run_group"]) == ("a", "a", "overtraining")
    metrics = [r["metric"] for r in records if r["type"] == "metric"]
    assert {"tokens", "*"} <= {m.get("name", m.get("glob_name")) for m in metrics}
    assert [m["step_metric"] for m in metrics if m.get("glob_name") == "*"] == ["tokens"]

    final = summary(folder)
    assert final["config"] == {"model": {"name": "24k"}, "seeds": {"init": 0}}
    assert (final["project"], final["state"], final["exit_code"]) == ("precision-scaling", "finished", 0)
    assert final["summary"]["val/loss"] == 2.5
    for bits, gap in ((3, 0.5), (4, 0.125)):
        found = {name: final["summary"][f"ptq/rtn/int{bits}-channel/{name}"] for name in ("loss", "gap")}
        assert found == {"loss": 2.5 + gap, "gap": gap}


def test_offline_history(offline):
    (folder,) = folders(offline, "offline-run-*-a")
    *rows, last = history(folder)
    assert all(row["_step"] == row["tokens"] for row in rows)
    # Behind the last step, so that rows can be added, and at its tokens, so that a chart has them there.
    assert (last["tokens"], last["_step"], last["ptq/rtn/int3-channel/gap"]) == (2000 * 2048, 2000 * 2048 + 2, 0.5)
    points = {row["tokens"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert points == {step * 2048: pytest.approx(5 - step / 1000) for step in range(1, 2001)}
    # A rare metric stands in one row with what has the same tokens.
    rare = [row for row in rows if "eval/loss" in row]
    assert [(row["tokens"] // 2048, row["eval/loss"]) for row in rare] == [(1980, 0.5), (1990, 1.5)]
    assert rare[0]["eval/se"] == 0.25 and "train/loss" in rare[0]


def test_points_are_spaced_in_log_tokens():
    config = build(TrackingConfig, configured("offline"))
    points = [step for step in range(1, 70_000) if config.is_point(step)]
    assert points[:70] == list(range(1, 71))  # every step, while the next one is 1.4% or more away
    for start in (1024, 2048, 32768):
        assert sum(start < step <= 2 * start for step in points) == config.points_per_doubling


def test_offline_table(offline):
    (folder,) = folders(offline, "offline-run-*-a")
    (table,) = (folder / "files" / "media" / "table").glob("ptq*.table.json")
    assert json.loads(table.read_text()) == {
        "columns": ["tokens_seen", "setting", "loss", "loss_se", "gap", "gap_se", "format_post"],
        "data": [
            [2000 * 2048, "rtn/int3/channel/absmax", 3.0, 0.25, 0.5, 0.125, None],
            [2000 * 2048, "rtn/int4/channel/absmax", 2.625, 0.25, 0.125, 0.125, "int4"],
        ],
    }


def test_offline_failed_left_open_and_resumed(offline):
    failed, anew, on = folders(offline, "offline-run-*-b")
    left, resumed = folders(offline, "offline-run-*-c")
    states = [(s["run_id"], s["state"], s["exit_code"]) for s in map(summary, (failed, left, resumed))]
    assert states == [("b", "failed", 1), ("c", "failed", 1), ("c", "finished", 0)]
    # What the first file has, the second has not again.
    assert [row["tokens"] // 2048 for row in history(left)] == list(range(1, 2001))
    assert [row["tokens"] // 2048 for row in history(resumed)] == list(range(2001, 2011))
    assert [[row["tokens"] // 2048 for row in history(file)] for file in (anew, on)] == [[1, 2, 3], [4, 5]]
    assert last_step(offline / "study" / "wandb", "a") == 2000 * 2048 + 2
    assert '"resume":true' in leet(resumed, "--json"), "its upload would replace that of the first file"
    assert '"resume":true' not in leet(left, "--json"), "it would be appended to the run that it replaces"


def test_two_files_of_a_run_are_one_run_on_the_server(offline):
    """`wandb sync` of the folder: the second file is appended to the first, and says all that the summary has to."""
    wandb = Path(sys.executable).with_name("wandb")
    with WandbServer() as server:
        done = subprocess.run(
            [wandb, "sync", "wandb", "--yes"], cwd=offline / "study", capture_output=True, text=True,
            env=environment(offline, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY), timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert server.runs.keys() == {"a", "b", "c"}
    found = [(row["_step"] // 2048, row["train/loss"]) for row in server.runs["c"]["history"]]
    assert [step for step, _ in found] == list(range(1, 2011))
    assert dict(found)[2000] == pytest.approx(7 - 2) and dict(found)[2001] == 7.0
    summary = server.runs["c"]["summary"]
    assert summary["val/loss"] == 2.75 and summary["tokens"] == 2010 * 2048
    tokens, every = server.runs["a"]["config"]["_wandb"]["value"]["m"]
    assert tokens["1"] == "tokens" and (every["2"], every["5"]) == ("*", 1), "charts are against the first: the tokens"
    steps = [row for row in server.runs["a"]["history"] if "ptq" in row]
    assert [(row["_step"], row["tokens"]) for row in steps] == [(2000 * 2048 + 2, 2000 * 2048)]


def test_settings_and_environment_name_the_place(tmp_path):
    body = """
with trackers("a", tags=("x", "y"), job_type="train", notes="of one's own", name="w=int4", group="mine"):
    pass
with trackers("b"):
    pass
"""
    assert run_script(body, tmp_path, "offline", WANDB_PROJECT="other", WANDB_RUN_GROUP="theirs") == ("", "")
    found = {}
    for run_id in "ab":
        (folder,) = folders(tmp_path, f"offline-run-*-{run_id}")
        records = [json.loads(line) for line in leet(folder, "--json").splitlines()]
        found[run_id] = next(r["run"] for r in records if r["type"] == "run")
    a, b = found["a"], found["b"]
    assert (a["project"], a["run_group"], a["display_name"]) == ("other", "mine", "w=int4")
    assert (a["tags"], a["job_type"], a["notes"]) == (["x", "y"], "train", "of one's own")
    assert (b["project"], b["run_group"], b["display_name"]) == ("other", "theirs", "b")


LIFE = """
with trackers("a", "b") as t:
    t.log("a", 2048, {"train/loss": 5.0})
    t.finish("a", 2048, {"loss": 2.5})
    t.finish("b", 0, {"loss": 3.5})
with trackers("d") as t:
    t.finish("d", 0, {"loss": 4.5})
print("end")
"""


def check_fallback(tmp_path: Path) -> None:
    assert len(folders(tmp_path, "offline-run-*")) == 3
    for run_id, loss in (("b", 3.5), ("d", 4.5)):
        (folder,) = folders(tmp_path, f"offline-run-*-{run_id}")
        assert summary(folder)["summary"]["loss"] == loss


def test_online_without_server_goes_offline(tmp_path):
    out, err = run_script(LIFE, tmp_path, "online", WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=KEY)
    assert out == "end\n"
    (line,) = err.splitlines()
    assert "127.0.0.1:9" in line and "tracking goes on offline" in line
    check_fallback(tmp_path)


def test_online_without_key_asks_nobody(tmp_path):
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + LIFE, str(tmp_path / "study"), "online"],
        cwd=REPOSITORY, env=environment(tmp_path), stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    try:
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        os.close(terminal)
    line, end = os.read(master, 100_000).decode().splitlines()
    os.close(master)
    assert "No API key" in line and "tracking goes on offline" in line and end == "end"
    check_fallback(tmp_path)


class Server(BaseHTTPRequestHandler):
    """As much of a W&B server as lets a run begin."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        bucket = {"id": "x", "name": asked.get("variables", {}).get("name"), "historyLineCount": 0}
        bucket |= {"displayName": "x", "project": {"name": "p", "entity": {"name": "e"}}}
        data = {"model": {"bucket": None}, "upsertBucket": {"inserted": True, "bucket": bucket}}
        reply = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_server_that_dies_holds_nothing_up(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever)
    thread.start()
    body = """
with trackers("a", "b") as t:
    print("open", flush=True)
    sys.stdin.readline()
    for step in range(1, 401):
        t.log("a", step * 2048, {"train/loss": 5.0})
    t.finish("a", 400 * 2048, {"loss": 2.5}, [row("rtn/int3/channel/absmax", .5)])
with trackers("d") as t:
    t.finish("d", 0, {"loss": 4.5})
"""
    url = f"http://127.0.0.1:{server.server_port}"
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + body, str(tmp_path / "study"), "online"],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(tmp_path, WANDB_BASE_URL=url, WANDB_API_KEY=KEY, WANDB_HTTP_TIMEOUT="1"),
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "open\n"
        server.shutdown()
        server.server_close()
        _, err = process.communicate("\n", timeout=120)
    finally:
        process.kill()
        server.shutdown()
        server.server_close()
        thread.join()
    assert process.returncode == 0
    warnings = [line for line in err.splitlines() if "tracking" in line]
    assert len(warnings) == 1 and "tracking goes on offline" in warnings[0], err
    (online,) = folders(tmp_path, "run-*-a")
    kept = [row["tokens"] // 2048 for row in history(online) if "train/loss" in row]
    assert kept[0] == 1 and kept[-1] > 390, "what was not uploaded must be on disk"
    assert summary(online)["summary"]["loss"] == 2.5
    (later,) = folders(tmp_path, "offline-run-*-d")
    assert summary(later)["summary"]["loss"] == 4.5


@pytest.mark.parametrize(("mode", "extra"), [("off", {}), ("offline", {"WANDB_MODE": "disabled"})])
def test_off_does_not_import_wandb(tmp_path, mode, extra):
    out, err = run_script(LIFE + "print('wandb' in sys.modules)", tmp_path, mode, **extra)
    assert (out, err) == ("end\nFalse\n", "") and not (tmp_path / "study").exists()


def test_unusable_folder_switches_tracking_off(tmp_path):
    (tmp_path / "study").write_text("a file where the folder should be")
    out, err = run_script(LIFE, tmp_path, "offline")
    (line,) = err.splitlines()
    assert out == "end\n" and "study" in line and "tracking is off" in line


def configured(choice: str) -> dict:
    with initialize_config_dir(str(REPOSITORY / "configs"), **BEHAVIOUR):
        return OmegaConf.to_container(compose(overrides=[f"+tracking={choice}"]).tracking)


@pytest.mark.parametrize("choice", ["offline", "online", "off"])
def test_configs_are_complete(choice, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert build(TrackingConfig, configured(choice)).wanted() == choice


def test_environment_replaces_only_the_default(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    wanted = {choice: build(TrackingConfig, configured(choice)).wanted() for choice in ("offline", "online", "off")}
    assert wanted == {"offline": "online", "online": "online", "off": "off"}
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(InputError, match="WANDB_MODE=offlin: use one of disabled, offline, online"):
        build(TrackingConfig, configured("offline")).wanted()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points_per_doubling", 0),
        ("init_timeout", 0),
        ("finish_timeout", float("nan")),
        ("mode", "of"),
        ("tags", ["a", ""]),
        ("tags", ["a" * 65]),
        ("group", "g" * 129),
        ("project", ""),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=rf"^tracking\.{name}(\[\d\])?="):
        build(TrackingConfig, {**configured("offline"), name: value}, "tracking")
