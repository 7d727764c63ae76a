from dataclasses import replace

import pytest

from scaling.records.run_folder import RunFolder
from scaling.training.loop import train_stack


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """apart(run, ...) -> folders of the same runs, each trained by itself in another place: once for all tests of a
    file."""
    place, known = tmp_path_factory.mktemp("apart"), {}

    def train(*runs):
        there = [replace(run, runtime=replace(run.runtime, out=str(place))) for run in runs]
        for run in there:
            if run not in known:
                assert train_stack([run]) == {}
                known[run] = RunFolder(run)
        return [known[run] for run in there]

    return train
