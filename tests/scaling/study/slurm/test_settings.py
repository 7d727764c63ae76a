import dataclasses

import pytest
from hydra import compose, initialize_config_dir

from scaling.config.compose import BEHAVIOUR, CONFIGS
from scaling.errors import InputError
from scaling.study.slurm.settings import LATER, SlurmSettings, is_slurm, slurm_settings


def launcher(*overrides):
    with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
        asked = ["hydra/launcher=submitit_slurm", *overrides]
        return compose("train", asked, return_hydra_config=True).hydra.launcher


def test_the_shipped_file_has_all_settings_and_comes_back_from_a_time_limit(recwarn):
    config = launcher("study=mine")
    assert is_slurm(config) and not recwarn.list
    assert set(config) == {"_target_", *(field.name for field in dataclasses.fields(SlurmSettings))}
    settings = slurm_settings(config)
    assert settings.max_num_timeout > 0 and settings.signal_delay_s >= 60 and not settings.detach
    assert settings.name == "mine" and settings.submitit_folder.endswith("/mine/slurm/%j")


def test_what_submitit_gets():
    asked = ("partition=long", "cpus_per_task=8", "mem_gb=16", "gpus_per_node=1", "setup=[module load x]")
    option = "+hydra.launcher.additional_parameters.reservation=mine"
    found = slurm_settings(launcher(*(f"hydra.launcher.{value}" for value in asked), option)).of_submitit()
    assert found == {
        "timeout_min": 240,
        "cpus_per_task": 8,
        "gpus_per_node": 1,
        "mem_gb": 16.0,
        "slurm_partition": "long",
        "slurm_signal_delay_s": 120,
        "slurm_array_parallelism": 256,
        "slurm_setup": ["module load x"],
        "slurm_additional_parameters": {"requeue": True, "reservation": "mine"},
        "slurm_srun_args": ["--cpus-per-task=8", *LATER],
    }


def test_submitit_takes_all_of_it(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = {"partition": "p", "account": "a", "qos": "q", "constraint": "c", "exclude": "n1", "comment": "text"}
    asked |= {"cpus_per_task": 8, "mem_gb": 1.5, "gres": "gpu:1", "mem_per_gpu": "8G"}
    settings = slurm_settings(launcher(*(f"hydra.launcher.{name}={value}" for name, value in asked.items())))
    executor = submitit.AutoExecutor(folder=tmp_path / "%j", cluster="slurm")
    executor.update_parameters(**settings.of_submitit())
    script = executor._executor._make_submission_file_text("python", "x")
    for line in ("--partition=p", "--account=a", "--mem=1536MB", "--gres=gpu:1", "--signal=USR2@120", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert "trap" in script.splitlines()[-1] and script.splitlines()[-1].endswith("python")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("timeout_min=abc", "hydra.launcher.timeout_min='abc': expected a number"),
        ("timeout_min=0", "hydra.launcher.timeout_min=0: must be at least 1"),
        ("poll_s=0", "hydra.launcher.poll_s=0.0: must be above 0 and at most 1,000,000,000"),
        ("detach=maybe", "hydra.launcher.detach='maybe': expected true or false"),
        ("name=a/b", "hydra.launcher.name=a/b: must be a folder name"),
    ],
)
def test_bad_settings_are_one_line(override, line):
    with pytest.raises(InputError) as fault:
        slurm_settings(launcher(f"hydra.launcher.{override}"))
    assert str(fault.value).startswith(line)


def test_a_study_for_joblib_can_go_to_slurm(train, study_file, monkeypatch):
    """And says in one line that there is none here."""
    monkeypatch.setenv("PATH", "/nowhere")
    study_file("far", "defaults: [{override /hydra/launcher: joblib}]\nhydra: {mode: MULTIRUN, launcher: {n_jobs: 2}}")
    status, _, err = train("sweeps=far", "hydra/launcher=submitit_slurm")
    assert status == 1 and err.splitlines()[-1].startswith("scaling.train: scontrol: not on this machine")
    status, _, err = train("sweeps=far", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout=5")
    assert status == 1 and err.splitlines()[-1].endswith("timeout: no such setting; did you mean timeout_min?")
