"""Plans: the paper's optimum from its constants, planted optima within their intervals, and every reason for doubt."""

import argparse
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import analysis
from analysis.cli.planning.plan_command import add_parser, report
from analysis.errors import InputError
from analysis.fitting import store
from analysis.fitting.intervals import Interval
from analysis.laws import formulas
from analysis.planning import optima
from analysis.planning.alternatives import drawn, from_draws, stretched
from analysis.planning.budgets import Budget, best_model
from analysis.planning.plan import plan
from analysis.planning.predict import paper, predict

BITS = ("P_w", "P_a", "P_kv")
BUDGET = 6 * 1e5 * 4e6  # operations: in the middle of the simulated tables
GRID = {"sizes": (23_600, 82_900, 201_000, 378_000), "tokens": (1e6, 2e6, 4e6, 8e6, 16e6), "post": (3, 4, 5, 6)}


def fitted(tables, seed=0, laws=("kumar_neff", "kumar_ptq"), draws=100, **options):
    frame = tables.simulate(**({**GRID, "trained": tables.TRAINED, "seed": seed} | options))
    return {name: analysis.fit(name, frame, bootstrap=draws) for name in laws}


@pytest.fixture(scope="module")
def found(tables):
    return fitted(tables)


@pytest.fixture(scope="module")
def truth(tables):
    return tables.LOSS | tables.PARTS | tables.GAP


def holds(estimate, value):
    return estimate.low <= value <= estimate.high


# ---- the paper's constants ----


def test_paper_wants_seven_bits():
    made = plan(paper(), flops=1e21)
    closed = optima.optimum_at_bits(formulas.paper_constants(), 1e21, 7.0)
    assert (made.best.trained, made.best.post) == (7, None)
    assert made.best.N.value == pytest.approx(float(closed.N), rel=1e-5)
    assert made.best.D.value == pytest.approx(float(closed.D), rel=1e-5)
    assert made.best.loss.value == pytest.approx(float(closed.loss), rel=1e-9)
    assert made.P_star.value == pytest.approx(7.00, abs=0.005)
    assert [c.trained for c in made.alternatives[:3]] == [8, 6, 9]
    assert made.sixteen.excess.value == pytest.approx(0.0206, abs=1e-3)
    assert np.isnan([made.best.N.low, made.best.loss.high, made.trained.low, made.best.best_in]).all()
    assert made.left_out == {
        "3 bits as trained": "kumar_neff_tied leaves no effective parameters at 3.11 bits and below"
    }
    assert made.warnings == ["kumar_neff_tied: published constants without intervals"]
    assert made.sentence.startswith("Train N = 5.34e+09 parameters on D = 7.13e+10 tokens in 7 bits (weights, ")


def test_more_tokens_than_are_good_for_the_quantized_model():
    made = plan(paper(), bytes=1e8, tokens=1e13, post=("int3",))
    assert made.best.critical
    assert made.best.D.value == pytest.approx(
        float(optima.critical_tokens(formulas.paper_constants(), made.best.N.value, 3))
    )
    assert "further tokens would harm the quantized model" in made.sentence
    assert not made.sixteen.eligible and made.sixteen not in made.alternatives
    assert "With 16 bits throughout (not allowed)" in made.sentence
    assert any("not allowed" in line for line in report(made))


# ---- intervals ----


def test_planted_optimum_within_its_interval(tables, truth, found):
    made = plan(found, flops=BUDGET, draws=300)
    for choice in (made.best, made.sixteen, *made.alternatives[:3]):
        best = optima.optimum_at_bits(truth, BUDGET, choice.trained)
        assert holds(choice.N, float(best.N)) and holds(choice.D, float(best.D))
        widths = (choice.trained,) * 3
        assert holds(choice.loss, tables.loss_of(choice.N.value, choice.D.value, widths))
    assert holds(made.P_star, float(optima.best_bits(truth)))
    losses = {p: float(optima.optimum_at_bits(truth, BUDGET, p).loss) for p in range(3, 17)}
    assert holds(made.trained, min(losses, key=losses.get))
    assert holds(made.sixteen.excess, losses[16] - losses[int(made.best.trained)])
    shares = [c.best_in for c in (made.best, *made.alternatives)]
    assert sum(shares) == pytest.approx(1)
    # paired by draw: far surer than either loss
    width = made.alternatives[0].excess.high - made.alternatives[0].excess.low
    assert width < 0.7 * (made.best.loss.high - made.best.loss.low)
    assert made.warnings == []


def test_planted_optimum_under_bytes(truth, found):
    limits = {"flops": BUDGET, "bytes": 4e4}
    made = plan(found, **limits, widths=(16,), post=("int3", "int4", "int5", "int6", "bf16"), draws=300)
    true = {
        bits: best_model(truth, Budget(**limits), P=16.0, P_post=None if bits == 16 else bits)
        for bits in (3, 4, 5, 6, 16)
    }
    for choice in (made.best, *made.alternatives):
        best = true[int(choice.served)]
        slack = 1e-9  # of ends that the bytes pin to one number
        assert choice.N.low * (1 - slack) <= best.N <= choice.N.high * (1 + slack)
        assert choice.D.low * (1 - slack) <= best.D <= choice.D.high * (1 + slack)
        assert choice.gap.low <= choice.gap.value <= choice.gap.high
    assert holds(made.served, min(true, key=lambda b: true[b].loss))


@pytest.mark.slow
def test_intervals_cover_planted_optima(tables, truth):
    """6 simulated studies, 4 intervals each: 95% of 24 is 23."""
    hits = 0
    for seed in range(1, 7):
        law = fitted(tables, seed, laws=("kumar_neff",), post=(), draws=60)
        made = plan(law, flops=BUDGET, widths=(6, 16), draws=200)
        best = optima.optimum_at_bits(truth, BUDGET, 6.0)
        low = next(c for c in (made.best, *made.alternatives) if c.trained == 6)
        hits += holds(low.N, float(best.N)) + holds(low.D, float(best.D)) + holds(made.P_star, optima.best_bits(truth))
        hits += holds(made.sixteen.loss, tables.loss_of(made.sixteen.N.value, made.sixteen.D.value, (16, 16, 16)))
    assert hits >= 20


def test_intervals_are_those_of_predictions_where_nothing_is_left_to_choose(found):
    """Bytes pin N and tokens D, so that the loss is a prediction: nearly the same interval, by the tails of the
    draws and by their standard deviation."""
    made = plan(found, bytes=2e5, tokens=4e6, widths=(16,), post=("int4",), draws=2000)
    N = made.best.N.value
    assert (N, made.best.D.value) == pytest.approx((4e5, 4e6))
    known = predict(found, N=N, D=4e6, widths={}, post=4.0)
    for ours, theirs in ((made.best.loss, known.total), (made.best.gap, known.gap)):
        assert ours.value == pytest.approx(theirs.value)
        assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.4)


def test_intervals_are_stretched_as_those_of_the_fit(found):
    fit = found["kumar_neff"]
    made = drawn(fit, 4000, 0)
    values = made.constants["alpha"]
    assert values[0] == fit.params["alpha"] and len(values) == 4001
    found_interval = from_draws(values, True, made.reach)
    ends = np.quantile(fit.draws[:, fit.law.symbols.index("alpha")], [0.025, 0.975])
    reach = fit.bootstrap.stretch * fit.bootstrap.t / 1.96
    assert reach > 1.2
    assert found_interval.high / found_interval.low == pytest.approx((ends[1] / ends[0]) ** reach, rel=0.05)
    np.testing.assert_allclose(stretched(np.array([2.0, 1.0, 4.0]), 2.0), [2.0, 0.5, 8.0])
    assert from_draws(np.array([2.0, 1.0, 4.0]), True, 2.0) == Interval(value=2.0, low=0.5, high=8.0)
    assert from_draws(np.array([0.0, -1.0, 2.0]), True, 2.0) == Interval(value=0.0, low=-2.0, high=4.0)


def test_each_law_is_stretched_as_far_as_its_own_fit(found):
    limits = {"bytes": 2e5, "tokens": 4e6, "widths": (16,), "post": ("int4",), "draws": 400}
    wide = dataclasses.replace(found["kumar_neff"].bootstrap, t=4 * found["kumar_neff"].bootstrap.t)
    wider = found | {"kumar_neff": dataclasses.replace(found["kumar_neff"], bootstrap=wide)}
    before, after = plan(found, **limits).best, plan(wider, **limits).best
    assert after.gap == before.gap
    assert after.loss.high - after.loss.low > 1.5 * (before.loss.high - before.loss.low)


def test_draws_are_those_of_the_fit(found):
    fit = found["kumar_neff"]
    made = drawn(fit, 50, 0)
    rows = np.column_stack([made.constants[s][1:] for s in fit.law.symbols])
    assert all((fit.draws == row).all(axis=1).any() for row in rows)


def test_same_seed_same_plan_also_from_a_file(found, tmp_path):
    limits = {"flops": BUDGET, "draws": 100, "widths": (5, 16)}
    one, same, other = (plan(found, **limits, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one.best.N != other.best.N
    store.write(tmp_path / "fits.json", store.Fits(name="runs.csv", sha256="", rows=0, fits=found))
    again = plan(store.read(tmp_path / "fits.json").fits, **limits, seed=1)
    assert again.best.N.high == pytest.approx(one.best.N.high, rel=1e-3)


def test_widths_that_some_draws_find_infeasible(found):
    edge = float(formulas.infeasible_below(found["kumar_neff"].params))
    made = plan(found, flops=BUDGET, widths=(edge + 0.02,))
    assert np.isposinf(made.best.loss.high)
    assert np.isfinite([made.best.loss.value, made.best.loss.low, made.best.N.high]).all()


# ---- reasons for doubt ----


def test_reasons_for_doubt(found):
    loss, gap = found["kumar_neff"], found["kumar_ptq"]
    doubtful = {
        "kumar_neff": dataclasses.replace(
            loss,
            params=loss.params | {"E": 0.0},
            at_bound=loss.at_bound | {"E": True, "n_kv": True},
            bootstrap=dataclasses.replace(loss.bootstrap, trusted=False),
            status="unidentified",
        ),
        "kumar_ptq": dataclasses.replace(gap, draws=None),
    }
    made = plan(doubtful, bytes=1e9, tokens=1e9, widths=(16,), post=("int2",), draws=100)
    text = "\n".join(made.warnings)
    for part in (
        "kumar_neff was fitted on N from 2.36e+04 to 3.78e+05, asked at",
        "kumar_neff was fitted on D from 1e+06 to 1.6e+07, asked at",
        "kumar_ptq was fitted on P_post from 3 to 6, asked at 2",
        "kumar_neff: E is at zero",
        "kumar_neff: at a bound: n_kv",
        "kumar_neff: its intervals take runs as independent",
        "kumar_neff: the fit is unidentified",
        "kumar_ptq: fitted without intervals",
    ):
        assert part in text
    assert np.isnan([made.best.loss.low, made.best.best_in]).all()  # one law without intervals leaves none
    assert made.best.outside
    assert "* outside the rows that a law was fitted on" in report(made)


def test_gaps_beyond_the_law():
    made = plan(paper(), bytes=1e4, tokens=1e12, post=("int3",))
    assert any(line.startswith("a gap of ") for line in made.warnings)


def test_weights_alone_save_bytes_but_no_operations(tables):
    weights = tuple(w for w in tables.TRAINED if w[1:] == (16, 16))
    known = fitted(tables, laws=("kumar_neff",), trained=weights, post=())
    made = plan(known, flops=BUDGET, draws=100)
    assert made.parts == ("P_w",) and made.P_star is None
    assert made.best.trained == 16
    assert made.best.flops.value == pytest.approx(6 * made.best.N.value * made.best.D.value)
    assert made.alternatives == [] and made.warnings == []
    assert made.left_out == {
        "training below 16 bits": "it saves nothing here, for kumar_neff knows P_w only; name widths to see it"
    }
    made = plan(known, flops=BUDGET, widths=(6, 8, 16), draws=100)
    assert [c.trained for c in (made.best, *made.alternatives)] == [16, 8, 6] and made.left_out == {}
    assert any("knows P_w only: training is charged with 16 bits" in line for line in made.warnings)
    small = plan(known, bytes=4e4, tokens=4e6, draws=100)
    assert small.best.trained < 8
    assert "bits (weights) and serve it as trained" in small.sentence


def test_laws_of_sixteen_bits_alone(tables):
    known = fitted(tables, laws=("chinchilla", "kumar_ptq"), draws=0, trained=((16, 16, 16),))
    made = plan(known, bytes=4e4, tokens=4e6)
    assert {c.trained for c in (made.best, *made.alternatives)} == {16}
    assert made.best.post is not None
    with pytest.raises(
        InputError, match=r"widths=8: no law for training below 16 bits among chinchilla, kumar_ptq; fit"
    ):
        plan(known, flops=1e12, widths=(8,))
    with pytest.raises(InputError, match="formats=int4: no kumar_ptq among chinchilla"):
        plan({"chinchilla": known["chinchilla"]}, bytes=1e9, tokens=1e9, post=("int4",))
    assert "quantization after training" in plan({"chinchilla": known["chinchilla"]}, bytes=1e9, tokens=1e9).left_out
    with pytest.raises(InputError, match="no law for a loss among kumar_ptq; fit one of kumar_neff"):
        plan({"kumar_ptq": known["kumar_ptq"]}, flops=1e12)


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ({}, "nothing limits N: expected flops, or bytes with tokens"),
        ({"tokens": 1e9}, "nothing limits N"),
        ({"bytes": 1e9}, "bytes=1e+09: nothing limits D; expected flops or tokens with it"),
        ({"flops": 0.0}, "flops=0: expected a number above zero"),
        ({"flops": float("nan")}, "flops=nan: expected a number above zero"),
        ({"flops": 1e18, "tokens": float("inf")}, "tokens=inf: expected a number above zero"),
        ({"flops": 1e18, "group": 0.5}, "group=0.5: expected how many values share a scale, at least 1"),
        ({"bytes": 1e9, "tokens": 1e9, "serve_tokens": 1e9}, "serve_tokens=1e+09: counts against flops"),
        ({"flops": 1e18, "fixed_bytes": -1.0}, "fixed_bytes=-1: expected bytes, at least zero"),
        ({"bytes": 1e6, "tokens": 1e9, "fixed_bytes": 1e6}, "fixed_bytes=1e+06: expected less than bytes=1e+06"),
        ({"flops": 1e18, "draws": 10}, "draws=10: expected 0 (no intervals) or 100 to 100000"),
        ({"flops": 1e18, "draws": 10**9}, "draws=1000000000: expected 0 (no intervals) or 100 to 100000"),
        ({"flops": 1e18, "seed": -1}, "seed=-1: expected a number of 0 or above"),
        ({"flops": 1e18, "widths": (0.5,)}, "widths=0.5: expected 1 to 16 bits"),
        ({"flops": 1e18, "widths": ()}, "widths: expected at least one"),
        ({"flops": 1e18, "post": ("in4",)}, "in4: not a format; expected"),
        ({"flops": 1e60}, "flops=1e+60: expected a number above zero, at most 1e+50"),
        ({"flops": 1e18, "tokens": 0.5}, "tokens=0.5: expected at least one"),
        ({"flops": 1e18, "widths": (4,), "post": ("int8",)}, "flops=1e+18: nothing is possible (no width in training"),
        ({"flops": 1e18, "widths": (3,)}, "flops=1e+18: nothing is possible (kumar_neff_tied leaves no effective"),
        ({"flops": 1.0}, "flops=1: nothing is possible (kumar_neff_tied leaves no effective parameters at 3.11 bits"),
    ],
)
def test_questions_without_an_answer(question, line):
    with pytest.raises(InputError) as fault:
        plan(paper(), **question)
    assert str(fault.value).startswith(line)
    assert "\n" not in str(fault.value)


# ---- command line ----


def run(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(dest="command"))
    chosen = parser.parse_args(["plan", *map(str, arguments)])
    chosen.run(chosen)


def test_command_prints_choices_and_ends_with_the_sentence(capsys, found, tmp_path):
    stored = tmp_path / "fits.json"
    store.write(stored, store.Fits(name="runs.csv", sha256="", rows=0, fits=found))
    run(stored, "--flops", BUDGET, "--bytes", 4e4, "--formats", "int4,int5,bf16", "--widths", "8,16", "--draws", 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["trained", "served", "N", "D"]
    assert [line.split()[0] for line in lines[1:4]] == ["16"] * 3
    assert lines[1].count("[") == 2  # N, D and bytes are what the budgets say, whatever the constants
    assert "laws: kumar_neff for the loss, kumar_ptq for quantization" in lines
    assert lines[-1].startswith("Train N = ") and lines[-1].count("[") >= 3
    run("paper", "--bytes", "2e9", "--tokens", "1e12")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["16", "int6", "2.67e+09", "1e+12"]
    assert "With 16 bits throughout: N = 1e+09" in lines[-1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--widths", "4,"), "widths='4,': an entry is empty; expected names with commas between"),
        (("--formats", ""), "formats='': an entry is empty"),
        (("--widths", "four"), "four: not a format"),
        (("--seed", "-1"), "seed=-1: expected"),
    ],
)
def test_faults_of_the_command_are_one_line(options, line):
    with pytest.raises(InputError) as fault:
        run("paper", "--flops", "1e20", *options)
    assert str(fault.value).startswith(line) and "\n" not in str(fault.value)


def test_command_takes_spaces(capsys):
    run("paper", "--bytes", "1e9", "--tokens", "1e11", "--formats", "int4, int6", "--widths", "8, 16")
    assert {"int4", "int6"} <= set(capsys.readouterr().out.split())


def test_a_loss_that_is_lower_is_told_as_lower():
    made = plan(paper(), flops=1e21, post=("int4",), widths=(16,))
    assert made.sixteen.excess.value < 0
    assert f"{-made.sixteen.excess.value:.2g} nats below that" in made.sentence


def test_help_loads_nothing_heavy():
    check = "import argparse, sys; from analysis.cli.planning.plan_command import add_parser as a"
    check += "; p = argparse.ArgumentParser()"
    check += "; a(p.add_subparsers()); p.format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "pandas", "matplotlib", "numpy"} & set(loaded)
