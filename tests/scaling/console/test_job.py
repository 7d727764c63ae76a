"""What a run returns, seen by Hydra's own sweepers: they get its loss, and stop where it has none."""

import json

import pytest
import yaml
from omegaconf import OmegaConf

from scaling.config.compose import composed
from scaling.console.cli import UnfinishedError
from scaling.console.job import is_done
from scaling.errors import InputError
from scaling.train import job


def last_losses(folder):
    """Learning rate -> what a run has written: its last loss, and that of its last model in int3."""
    found = {}
    for path in folder.glob("*/result.json"):
        last = json.loads(path.read_text())["evaluations"][-1]
        rows = map(json.loads, (path.parent / "ptq.jsonl").read_text().splitlines()[:-1])
        (int3,) = (row["loss"] for row in rows if row["setting"] == "rtn/int3/channel/absmax")
        rate = yaml.safe_load((path.parent / "config.yaml").read_text())["run"]["optimizer"]["lr"]
        found[rate] = last["loss"], int3
    return found


def test_a_job_returns_the_loss_that_is_asked_for(tiny, tmp_path):
    settings = [*tiny, "study=one", "optimizer.lr=0.02"]
    metrics = ("loss", "rtn/int3/channel/absmax")
    returned = [job(OmegaConf.create(composed([*settings, f"optimized_metric={name}"]))) for name in metrics]
    assert returned == list(last_losses(tmp_path / "outputs/one")[0.02]) and returned[0] < returned[1]
    stack = tmp_path / "stack.json"
    with pytest.raises(InputError, match=r"optimized_metric=rtn/int5/channel/absmax: .*nearest: rtn/int"):
        job(OmegaConf.create(composed([*settings, "optimized_metric=rtn/int5/channel/absmax"])))
    with pytest.raises(InputError, match=r"stack\.json"):
        job(OmegaConf.create({"stack": str(stack)}))


def test_a_metric_that_a_run_will_not_have_is_refused_before_it_is_trained(train, tmp_path):
    status, _, err = train("optimized_metric=los")
    assert (status, len(err.splitlines())) == (1, 1) and not (tmp_path / "outputs").exists()
    assert err.startswith("scaling.train: optimized_metric=los: expected loss, or a quantization of the run")


def test_hydras_own_grid_trains_each_point_and_fails_with_one_of_them(train, tmp_path):
    grid = ("--multirun", "hydra/sweeper=basic", "study=grid")
    assert train(*grid, "optimizer.lr=0.01,0.02")[0] == 0
    assert last_losses(tmp_path / "outputs/grid").keys() == {0.01, 0.02}
    status, _, err = train(*grid, "optimizer.lr=-1.0,0.03")
    assert status == 1 and err.splitlines()[-1] == "scaling.train: optimizer.lr=-1.0: must be above 0"
    assert last_losses(tmp_path / "outputs/grid").keys() == {0.01, 0.02, 0.03}


@pytest.mark.parametrize("metric", ["loss", "rtn/int3/channel/absmax"])
def test_optuna_finds_the_learning_rate_of_the_lowest_loss(train, tmp_path, metric):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ("--multirun", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1")
    seeded = ("hydra.sweeper.sampler.seed=1", f"optimized_metric={metric}", "study=search")
    status, _, err = train(*search, *seeded, "optimizer.lr=tag(log,interval(1e-4,1e-1))")
    assert status == 0, err
    losses = {rate: of_run[metric != "loss"] for rate, of_run in last_losses(tmp_path / "outputs/search").items()}
    best = min(losses, key=losses.get)
    found = yaml.safe_load((tmp_path / "outputs/search/optimization_results.yaml").read_text())
    assert len(losses) == 4 and (found["best_params"], found["best_value"]) == ({"optimizer.lr": best}, losses[best])


@pytest.mark.parametrize("fault, said", [(UnfinishedError("said"), ""), (InputError("a=1: no"), "a=1: no\n")])
def test_one_of_many_says_what_nobody_has_said(capsys, fault, said):
    def fail(config):
        raise fault

    assert is_done(lambda config: 1.5, OmegaConf.create()) and not is_done(fail, OmegaConf.create())
    assert capsys.readouterr().err == said
    with pytest.raises(ZeroDivisionError):
        is_done(lambda config: 1 / 0, OmegaConf.create())
