"""What is known of the files that W&B writes, against files that it wrote."""

import threading

import pytest

from scaling.console.tracking.files import await_exit, exit_code
from scaling.console.tracking.runs import finish, quiet, ready


@pytest.fixture
def finished(tmp_path):
    """The file of an offline run that failed."""
    wandb = ready(tmp_path / "wandb")
    run = wandb.init(mode="offline", project="p", dir=tmp_path, reinit="create_new", settings=quiet(1, 1))
    finish(run, failed=True)
    [path] = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    return path


def test_a_file_that_is_written_late_is_waited_for(finished, tmp_path):
    whole, late = finished.read_bytes(), tmp_path / "late.wandb"
    assert exit_code(finished) == 1
    late.write_bytes(whole[:7])
    assert not await_exit(late, patience=0.05)
    writer = threading.Timer(0.1, late.write_bytes, [whole])
    writer.start()
    assert await_exit(late) and exit_code(late) == 1
    writer.join()


def test_a_file_that_never_comes_is_not_waited_for_long(tmp_path):
    assert not await_exit(tmp_path / "none.wandb", patience=0.05)
