"""The hub's own client without a network: a copy of its cache is measured, all else is a line."""

import shutil

import pytest
from huggingface_hub import constants, file_download

from scaling.pretrained import plan
from scaling.pretrained.measure import measure_all
from scaling.pretrained.presets import runs_of
from scaling.records.run_folder import RunFolder
from tests.scaling.pretrained.conftest import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with revision step1000 of one repository, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert file_download.constants is constants
    repository = cache / "models--EleutherAI--pythia-14m"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    tiny("neox").save_pretrained(tmp_path / "saved")
    for folder in (repository / "refs", snapshot, blobs):
        folder.mkdir(parents=True)
    (repository / "refs" / "step1000").write_text(COMMIT)
    for path in (tmp_path / "saved").iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(blobs / path.name)
    return repository


def measured(job):
    runs = runs_of(job)
    return runs, measure_all(runs, job.pretrained)


def test_a_revision_in_the_cache_is_measured_and_may_leave_it(hub, make_job):
    asked = ("pretrained=pythia-14m", "revisions=[1000]")
    (run,), failed = measured(make_job(*asked))
    assert not failed
    result = RunFolder(run).result()
    assert (result["source"], result["commit_source"]) == ("EleutherAI/pythia-14m@step1000", COMMIT)
    assert (result["D"], result["N"]) == (2097152000, 25472)
    assert hub.exists()
    _, failed = measured(make_job(*asked, "ptq.formats=[int4,int3]", "pretrained.keep=false"))
    assert not failed and len(RunFolder(run).ptq()) == 2
    assert not (hub / "snapshots" / COMMIT).exists() and not list(hub.glob("blobs/*"))


def test_what_is_not_there_is_a_line_and_leaves_nothing(hub, make_job, tmp_path):
    runs, failed = measured(make_job("pretrained=pythia-14m", "revisions=[1000,2000]"))
    line = failed[runs[1].run_id]
    assert line.startswith("EleutherAI/pythia-14m@step2000: cannot be fetched (") and "\n" not in line
    assert [run.name for run in (tmp_path / "outputs/tiny").iterdir()] == [runs[0].run_id]
    assert not list(hub.glob("**/*.incomplete"))


def test_a_part_of_a_revision_is_not_taken_for_all_of_it(hub, make_job):
    (hub / "snapshots" / COMMIT / "model.safetensors").unlink()
    (run,), failed = measured(make_job("pretrained=pythia-14m", "revisions=[1000]"))
    assert "has no weights (*.safetensors)" in failed[run.run_id]
    index = hub / "snapshots" / COMMIT / "model.safetensors.index.json"
    index.write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    _, failed = measured(make_job("pretrained=pythia-14m", "revisions=[1000]"))
    assert "2 files of its weights are missing, such as model-00001-of-00002.safetensors" in failed[run.run_id]


def test_a_plan_counts_what_is_to_be_fetched(hub, make_job):
    job = make_job("pretrained=pythia-14m", "revisions=[1000,2000]")
    here, there, *rest = plan.lines(runs_of(job), job.pretrained)
    assert "D=2.10G" in here and here.endswith("download 0B")
    assert there.endswith("download 28.1MB") and rest[-1].startswith("download 28.1MB")
