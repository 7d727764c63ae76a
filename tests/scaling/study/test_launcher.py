from omegaconf import OmegaConf

from scaling.console.allocation import cores
from scaling.study.launcher import threads_per_job, workers


def test_cores_are_shared_out():
    basic = OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    joblib = OmegaConf.create({"_target_": "x.JoblibLauncher", "n_jobs": 3})
    everything = OmegaConf.create({"_target_": "x.JoblibLauncher", "n_jobs": -1})
    local = OmegaConf.create({"_target_": "x.LocalLauncher"})
    slurm = OmegaConf.create({"_target_": "x.SlurmLauncher", "cpus_per_task": 6})
    assert [workers(kind) for kind in (basic, joblib, everything, local, slurm)] == [1, 3, cores(), None, None]
    third = max(1, cores() // 3)
    assert [threads_per_job(kind, 9) for kind in (basic, joblib, everything, slurm)] == [cores(), third, 1, 6]
    assert threads_per_job(joblib, 1) == cores() and threads_per_job(local, 3) == third
