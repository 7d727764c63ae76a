"""Comparisons: the law that made the table wins, on the same rows, in whatever order they come; nothing goes unsaid."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest

from analysis.cli.compare_command import add_parser, text
from analysis.diagnostics.compare import compare
from analysis.diagnostics.slopes import curved
from analysis.errors import InputError
from analysis.laws.registry import LAWS

pytestmark = pytest.mark.usefixtures("few_starts")

SIZES = (23_600, 82_900, 201_000, 378_000)
WEIGHTS = ((16, 16, 16), *((b, 16, 16) for b in (3, 4, 6, 8)))


@pytest.fixture(scope="module")
def plain(tables):
    return tables.simulate(sizes=SIZES, noise=0.15)


@pytest.fixture(scope="module")
def trained(tables):
    return tables.simulate(sizes=SIZES, noise=0.3, trained=tables.TRAINED, post=())


def ranked(ranking):
    return [score.law for score in ranking.scores]


@pytest.mark.parametrize("holdout", ["N", "D", "both", "random", "cell"])
def test_the_law_of_the_table_wins(plain, holdout):
    laws = ("chinchilla", "chinchilla_tied", "kumar_ptq", "ouyang")
    losses, gaps = compare(plain, holdout=holdout, laws=laws).rankings
    assert (losses.response, gaps.response) == ("loss", "gap")
    assert ranked(gaps) == ["kumar_ptq", "ouyang"]
    assert ranked(losses) == ["chinchilla", "chinchilla_tied"]
    for ranking in (losses, gaps):
        errors = [score.measures.rmse for score in ranking.scores]
        assert errors == sorted(errors)
        assert [score.rank for score in ranking.scores] == [1, 2]
        assert {score.status for score in ranking.scores} == {"ok"}


def test_another_law_of_the_table_wins(plain):
    gap = 60 * plain["D"] ** 0.5 / plain["N"] ** 0.35 * plain["P_post"] ** -5.5 / 100
    noise = np.random.default_rng(0).normal(1, 0.05, len(plain))
    made = compare(plain.assign(gap=gap * noise), holdout="random", response="gap", laws=("kumar_ptq", "ouyang"))
    (ranking,) = made.rankings
    assert ranked(ranking) == ["ouyang", "kumar_ptq"]
    assert ranking.scores[1].upset < 0.05


def test_laws_are_compared_on_the_rows_that_they_share(trained):
    """Three sets of rows: all, those with low weights alone, and those without low precision."""
    made = compare(trained, holdout="D", response="loss")
    weights, full, everything = sorted(made.rankings, key=lambda r: (r.rows == 11 * 32, r.rows == 32))
    assert (weights.rows, full.rows, everything.rows) == (5 * 32, 32, 11 * 32)
    assert {name for name in LAWS if name.startswith("weights_")} | {"kumar_neff", "kumar_neff_tied"} == {
        *ranked(weights)
    }
    assert {*ranked(full)} == {"chinchilla", "chinchilla_gamma", "chinchilla_tied", "compute", "gadre"}
    assert ranked(everything) == ["kumar_neff", "kumar_neff_tied"]
    assert weights.excluded["chinchilla"] == "describes only 32 of these rows"
    assert full.excluded["kumar_neff"] == "cannot be fitted on these rows alone"
    assert weights.left_out == {"P_a below 16 bits": 96, "P_kv below 16 bits": 96}
    assert everything.left_out == {}
    for ranking in made.rankings:
        assert (ranking.predictions["D"] == 8e6).all()
        assert ranking.predictions.notna().all(axis=None)
        assert len(ranking.predictions) == ranking.folds[0][2] == ranking.rows / 4
        for score in ranking.scores:
            errors = ranking.predictions[score.law] - trained.loc[ranking.predictions.index, "loss"]
            assert score.measures.rmse == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_one_law_under_two_names_is_said(trained):
    made = compare(trained, laws=("weights_neff", "kumar_neff", "weights_additive"), filter="P_a == 16 and P_kv == 16")
    (ranking,) = made.rankings
    first, second, third = ranking.scores
    assert (first.law, second.law, third.law) == ("kumar_neff", "weights_neff", "weights_additive")
    assert second.notes == ["predicts the same as kumar_neff"]
    assert first.measures.rmse == pytest.approx(second.measures.rmse, rel=1e-5)
    assert third.measures.rmse > 2 * first.measures.rmse


def test_order_and_labels_of_rows_do_not_matter(plain):
    again = plain.sample(frac=1, random_state=2)
    mixed = again.set_axis([0] * len(again))
    once, *others = (compare(t, holdout="random", folds=2, laws=["ouyang"]).to_json() for t in (plain, again, mixed))
    assert others == [once, once]


def test_without_clusters_runs_are_held_out(plain):
    (ranking,) = compare(plain.drop(columns="cluster"), holdout="random", laws=["ouyang"]).rankings
    assert ranking.groups == "run_id"
    folds = ranking.predictions.join(plain["run_id"]).groupby("run_id")["fold"].nunique()
    assert (folds == 1).all()


def test_a_law_without_a_prediction_is_marked_and_not_ranked(tables):
    trained = ((16, 16, 16), (16, 3, 16), (16, 4, 16), (16, 6, 16))
    frame = tables.simulate(noise=0, seeds=1, post=(), sizes=SIZES, trained=trained).reset_index(drop=True)
    beyond = (frame["N"] == SIZES[-1]) & (frame["P_a"] == 3)
    frame.loc[beyond, ["P_a", "loss"]] = 1, 5.0
    made = compare(frame, laws=("kumar_neff", "kumar_neff_tied"))
    (ranking,) = made.rankings
    for score in ranking.scores:
        assert score.rank is None
        assert score.notes[0] == "no prediction for 4 of 16 held-out rows: not ranked"
        assert (score.measures.rows, score.measures.predicted) == (16, 12)
    assert ranking.scores[0].measures.rmse < 1e-6
    assert "no prediction for 4 of 16" in text(made)


def test_parts_that_cannot_be_fitted_are_told(tables):
    """Without one of three sizes chinchilla cannot be fitted, its tied form can."""
    made = compare(tables.simulate(post=()), holdout="N", laws=("chinchilla", "chinchilla_tied"))
    (ranking,) = made.rankings
    assert ranked(ranking) == ["chinchilla_tied"]
    assert ranking.excluded == {"chinchilla": "chinchilla: N has 2 different values, needs at least 3"}
    assert made.skipped == ranking.excluded
    cells = tables.simulate(post=(), sizes=SIZES[:3]).assign(cluster=lambda f: f["run_id"])
    cells.loc[cells["N"] == SIZES[0], "cluster"] = "one"
    (ranking,) = compare(cells, holdout="cell", laws=("chinchilla", "chinchilla_tied")).rankings
    first, second = ranking.scores
    assert (first.law, first.rank, second.rank, second.status) == ("chinchilla_tied", 1, None, "not fitted")
    assert second.notes[0] == "no prediction for 8 of 24 held-out rows: not ranked"
    assert second.notes[1] == "N = 23600, D = 1e+06 and 3 more: N has 2 different values, needs at least 3"


def test_large_gaps_are_left_out_for_all_laws(tables):
    frame = tables.simulate(noise=0, sizes=SIZES, tokens=(1e6, 4e6, 1.6e7, 6.4e7))
    (ranking,) = compare(frame, holdout="D", laws=("kumar_ptq", "ouyang")).rankings
    truth = tables.gap_of(frame["N"], frame["D"], frame["P_post"])[frame["P_post"].between(3, 6)]
    counts = [
        ranking.left_out["gap of 0.5 nats or more predicted by a law here"],
        ranking.left_out["not quantized after training"],
    ]
    assert counts[0] >= (truth >= 0.5).sum() > 0
    assert counts[1] == 32
    assert ranking.rows + sum(ranking.left_out.values()) == len(frame)
    assert ranking.predictions[["kumar_ptq", "ouyang"]].notna().all(axis=None)
    assert ranking.scores[0].measures.rmse < 1e-8
    assert set(ranking.scores[0].measures.r2_within) <= {"3", "4", "5", "6"}


def test_laws_that_are_not_registered(tables):
    """A bent law predicts a table whose slope is not constant, the plain one does not."""
    frame = tables.simulate(noise=0.3, sizes=SIZES)
    bent = frame.assign(gap=frame["gap"] * np.exp(-0.15 * np.log(frame["D"] / 3e6) ** 2))
    laws = (LAWS["kumar_ptq"], curved(LAWS["kumar_ptq"], D_0=3e6))
    (ranking,) = compare(bent, holdout="D", laws=laws).rankings
    assert ranked(ranking) == ["kumar_ptq_curved", "kumar_ptq"]
    assert ranking.scores[0].measures.rmse < 0.5 * ranking.scores[1].measures.rmse


def test_gaps_that_are_all_large_are_told(plain):
    with pytest.raises(InputError, match=r"no law can be compared \(0 usable rows for 4 parameters"):
        compare(plain.assign(gap=plain["gap"] + 2), laws=["kumar_ptq"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"holdout": "size"}, "holdout=size: use one of N, D, both, random, cell"),
        ({"laws": ["nope"]}, "nope: no such law; use one of"),
        ({"response": "bits"}, "response=bits: use one of loss, gap, gap_qat"),
        ({"seed": -2}, "seed=-2: expected"),
        ({"folds": 1}, "folds=1: expected"),
        ({"filter": "Q > 1"}, "filter 'Q > 1': "),
        ({"laws": ["gaussian"]}, "holdout=N: no law can be compared (sigma2_post: the table has no such column"),
        ({"laws": ["gaussian"], "response": "loss"}, "holdout=N: no law can be compared (none of loss was asked for)"),
        ({"filter": "N < 3e4"}, "holdout=N: no law can be compared ("),
    ],
)
def test_faults_are_one_line(plain, arguments, line):
    with pytest.raises(InputError) as fault:
        compare(plain, **arguments)
    assert str(fault.value).startswith(line)
    assert "\n" not in str(fault.value)


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(dest="command"))
    chosen = parser.parse_args(["compare", *map(str, arguments)])
    chosen.run(chosen)


def test_command_prints_and_writes(capsys, tmp_path, plain):
    plain.to_csv(tmp_path / "runs.csv", index=False)
    out = tmp_path / "made" / "compared.json"
    asked = ("--laws", "kumar_ptq, ouyang,gaussian", "--holdout", "D", "--filter", "seed_init >= 0", "--out", out)
    command(tmp_path / "runs.csv", *asked)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "gap: 126 of 256 rows, held out by D, errors in nats"
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "kumar_ptq"], ["2", "ouyang"]]
    assert lines[-2].startswith("not compared: gaussian: sigma2_post: the table has no such column")
    assert lines[-1] == f"comparison: {out}"
    assert printed.err.count("held-out part") == 2
    stored = json.loads(out.read_text())
    assert (stored["holdout"], stored["filter"], stored["table"]["name"]) == ("D", "seed_init >= 0", "runs.csv")
    (score, _) = stored["rankings"][0]["scores"]
    assert score["measures"]["rmse"] == pytest.approx(float(lines[3].split()[3]), rel=1e-3)
    assert set(score["fits"][0]["params"]) == {"gamma_D", "gamma_N", "gamma_post", "C_T"}
    before = out.read_bytes()
    command(tmp_path / "runs.csv", *asked)
    assert out.read_bytes() == before


def test_command_loads_nothing_heavy():
    check = "import sys, argparse, analysis.cli.compare_command as c\n"
    check += "c.add_parser(argparse.ArgumentParser().add_subparsers()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "pandas", "numpy"} & set(loaded)
