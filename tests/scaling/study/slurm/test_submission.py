import os

import pytest

from scaling.study.slurm.submission import _outside_of_jobs, shares


def test_shares_by_hand():
    assert shares(7, 1001, 256) == (256, 1, [7])
    assert shares(7, 5, 256) == (128, 2, [4, 3])
    assert shares(12, 5, 2) == (1, 2, [4, 4, 4])
    assert shares(12, 5, 1) == (1, 1, [4, 4, 4])
    assert shares(5, 5, 4) == (4, 1, [5])


@pytest.mark.parametrize("largest", [1, 2, 5, 7])
def test_arrays_hold_all_jobs_and_never_run_more_at_once(largest):
    for jobs in range(1, 40):
        for at_once in (1, 2, 3, 8, 100):
            each, lanes, sizes = shares(jobs, largest, at_once)
            assert sum(sizes) == jobs and max(sizes) <= largest and min(sizes) >= 1
            assert each >= 1 and each * lanes <= at_once


def test_a_sender_in_a_job_leaves_no_trace_of_it(monkeypatch):
    inherited = {"SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7", "RANK": "1"}
    chosen = {"SLURM_CONF": "/etc/x.conf", "SBATCH_ACCOUNT": "mine"}
    for name, value in {**inherited, **chosen}.items():
        monkeypatch.setenv(name, value)
    pytest.importorskip("submitit")
    with _outside_of_jobs():
        assert not inherited.keys() & os.environ.keys()
        assert chosen.items() <= os.environ.items()
    assert {**inherited, **chosen}.items() <= os.environ.items()
