"""Plans: the paper's optimum from its constants, planted optima within their intervals, and every reason for doubt."""

import argparse
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import analysis
from analysis import derived, fits
from analysis.budgets import Budget, best_model
from analysis.choices import Estimate, drawn
from analysis.errors import InputError
from analysis.plan import add_parser, plan, report
from analysis.predict import paper, predict

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
    closed = derived.optimum_at_bits(derived.paper_constants(), 1e21, 7.0)
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


@pytest.mark.parametrize("limits", [{"tokens": 1e12}, {"flops": 1e21}, {"flops": 1e22, "tokens": 1e11}])
def test_bytes_against_a_search_over_predictions(limits):
    made = plan(paper(), bytes=2e9, post=("int3", "int4", "int6", "bf16"), widths=(4, 8, 16), **limits)
    best = np.inf
    for bits in (3, 4, 6, 16):
        N, share = np.meshgrid(np.geomspace(2e8, 16e9 / bits, 200), np.geomspace(0.01, 1, 60))
        D = share * np.minimum(limits.get("tokens", np.inf), limits.get("flops", np.inf) / (6 * N))
        frame = {"N": N.ravel(), "D": D.ravel(), "P_post": np.full(N.size, float(bits))} | dict.fromkeys(
            BITS, np.full(N.size, 16.0)
        )
        losses = paper()["kumar_neff_tied"].predict(frame)
        best = min(best, np.min(losses + (paper()["kumar_ptq"].predict(frame) if bits < 16 else 0)))
    assert made.best.loss.value <= best + 1e-12
    assert made.best.loss.value == pytest.approx(best, abs=5e-4)
    assert made.best.bytes.value <= 2e9 * (1 + 1e-12)
    again = predict(paper(), N=made.best.N.value, D=made.best.D.value, widths={}, post=made.best.served)
    assert made.best.loss.value == pytest.approx(again.total.value)
    assert made.best.gap.value == pytest.approx(again.gap.value)
    # a width that the model may not be served in is not chosen, and 8-bit training without a format is none of them
    assert {c.served for c in (made.best, *made.alternatives)} <= {3, 4, 6, 16}


def test_more_tokens_than_are_good_for_the_quantized_model():
    made = plan(paper(), bytes=1e8, tokens=1e13, post=("int3",))
    assert made.best.critical
    assert made.best.D.value == pytest.approx(
        float(derived.critical_tokens(derived.paper_constants(), made.best.N.value, 3))
    )
    assert "further tokens would harm the quantized model" in made.sentence
    assert not made.sixteen.eligible and made.sixteen not in made.alternatives
    assert "With 16 bits throughout (not allowed)" in made.sentence
    assert any("not allowed" in line for line in report(made))


def test_serving_counts_against_the_budget():
    alone = plan(paper(), flops=1e21, widths=(16,))
    served = plan(paper(), flops=1e21, serve_tokens=1e12, widths=(16,), post=("int4", "int6", "bf16"))
    assert alone.P_star is None and alone.best.post is None
    assert served.best.post == "int6"
    assert served.best.N.value < alone.best.N.value
    for choice in (served.best, *served.alternatives):
        n, d = choice.N.value, choice.D.value
        assert 6 * n * d + 2 * n * 1e12 * choice.served / 16 == pytest.approx(choice.flops.value)
        assert choice.flops.value <= 1e21 * (1 + 1e-9)


def test_scales_and_what_is_never_quantized_take_bytes():
    limits = {"bytes": 1e9, "tokens": 1e11, "fixed_bytes": 1e8, "widths": (16,)}
    made = plan(paper(), post=("int4", "mxfp4"), group=32, **limits)
    sizes = {c.post: c.N.value for c in (made.best, *made.alternatives)}
    assert sizes["int4"] == pytest.approx(0.9e9 * 8 / 4.5)
    assert sizes["mxfp4"] == pytest.approx(0.9e9 * 8 / 4.25)
    assert made.best.bytes.value == pytest.approx(1e9)


def test_quantized_after_training_in_low_precision():
    """With the unified law, every training width meets every format below it."""
    unified = fits.published("kumar_unified")
    known = unified.params | {"C_w": 0.5, "C_a": 0.5, "C_kv": 0.5}
    laws = paper() | {"kumar_unified": dataclasses.replace(unified, params=known)}
    made = plan(laws, bytes=2e9, tokens=1e12, widths=(6, 8, 16), post=("int4", "int5", "int6"))
    ways = {(c.trained, c.post): c for c in (made.best, *made.alternatives)}
    assert set(ways) == {(6, None)} | {(p, f"int{b}") for p in (6, 8, 16) for b in (4, 5, 6) if b < p}
    choice = ways[8, "int5"]
    frame = {"N": [choice.N.value], "D": [choice.D.value], **{p: [8.0] for p in BITS}, "P_post": [5.0]}
    frame = {name: np.array(column) for name, column in frame.items()}
    assert choice.gap.value == pytest.approx(float(unified.law.predict(known, frame)[0]))
    without = plan(paper(), bytes=2e9, tokens=1e12, widths=(6, 8, 16), post=("int4", "int5", "int6"))
    assert {(c.trained, c.post) for c in (without.best, *without.alternatives)} == {
        (6, None), (16, "int4"), (16, "int5"), (16, "int6")
    }  # fmt: skip
    assert "formats after training below 16 bits" in without.left_out


# ---- intervals ----


def test_planted_optimum_within_its_interval(tables, truth, found):
    made = plan(found, flops=BUDGET, draws=300)
    for choice in (made.best, made.sixteen, *made.alternatives[:3]):
        best = derived.optimum_at_bits(truth, BUDGET, choice.trained)
        assert holds(choice.N, float(best.N)) and holds(choice.D, float(best.D))
        widths = (choice.trained,) * 3
        assert holds(choice.loss, tables.loss_of(choice.N.value, choice.D.value, widths))
    assert holds(made.P_star, float(derived.best_bits(truth)))
    losses = {p: float(derived.optimum_at_bits(truth, BUDGET, p).loss) for p in range(3, 17)}
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


def test_intervals_cover_planted_optima(tables, truth):
    """6 simulated studies, 4 intervals each: 95% of 24 is 23."""
    hits = 0
    for seed in range(1, 7):
        law = fitted(tables, seed, laws=("kumar_neff",), post=(), draws=60)
        made = plan(law, flops=BUDGET, widths=(6, 16), draws=200)
        best = derived.optimum_at_bits(truth, BUDGET, 6.0)
        low = next(c for c in (made.best, *made.alternatives) if c.trained == 6)
        hits += holds(low.N, float(best.N)) + holds(low.D, float(best.D)) + holds(made.P_star, derived.best_bits(truth))
        hits += holds(made.sixteen.loss, tables.loss_of(made.sixteen.N.value, made.sixteen.D.value, (16, 16, 16)))
    assert hits >= 20


def test_intervals_are_those_of_predictions_where_nothing_is_left_to_choose(found):
    """Bytes pin N and tokens D, so that the loss is a prediction: the same interval, by draws and by slopes."""
    made = plan(found, bytes=2e5, tokens=4e6, widths=(16,), post=("int4",), draws=2000)
    N = made.best.N.value
    assert (N, made.best.D.value) == pytest.approx((4e5, 4e6))
    known = predict(found, N=N, D=4e6, widths={}, post=4.0)
    for ours, theirs in ((made.best.loss, known.total), (made.best.gap, known.gap)):
        assert ours.value == pytest.approx(theirs.value)
        assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.2)


def test_intervals_are_stretched_as_those_of_the_fit(found):
    fit = found["kumar_neff"]
    made = drawn(fit, 4000, 0)
    values = made.constants["alpha"]
    assert values[0] == fit.params["alpha"] and len(values) == 4001
    interval = Estimate.of(values, True, made.reach)
    assert interval.high - interval.low == pytest.approx(np.diff(fit.interval("alpha"))[0], rel=0.1)
    assert Estimate.of(np.array([2.0, 1.0, 4.0]), True, 2.0) == Estimate(value=2.0, low=0.5, high=8.0)
    assert Estimate.of(np.array([0.0, -1.0, 2.0]), True, 2.0) == Estimate(value=0.0, low=-2.0, high=4.0)


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
    fits.write(tmp_path / "fits.json", fits.Fits(name="runs.csv", sha256="", rows=0, fits=found))
    again = plan(fits.read(tmp_path / "fits.json").fits, **limits, seed=1)
    assert again.best.N.high == pytest.approx(one.best.N.high, rel=1e-3)


def test_widths_that_some_draws_find_infeasible(found):
    edge = float(derived.infeasible_below(found["kumar_neff"].params))
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
        "kumar_ptq": dataclasses.replace(gap, covariance=None, draws=None),
    }
    made = plan(doubtful, bytes=1e9, tokens=1e9, widths=(16,), post=("int2",), draws=100)
    text = "\n".join(made.warnings)
    for part in (
        "kumar_neff was fitted on N from 2.36e+04 to 3.78e+05, the plan asks at",
        "kumar_neff was fitted on D from 1e+06 to 1.6e+07, the plan asks at",
        "kumar_ptq was fitted on P_post from 3 to 6, the plan asks at 2",
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
    assert "formats after training" in plan({"chinchilla": known["chinchilla"]}, bytes=1e9, tokens=1e9).left_out
    with pytest.raises(InputError, match="no law for a loss among kumar_ptq; fit one of chinchilla"):
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
        ({"flops": 1e18, "group": -1.0}, "group=-1: expected a number above zero"),
        ({"bytes": 1e9, "tokens": 1e9, "serve_tokens": 1e9}, "serve_tokens=1e+09: counts against flops"),
        ({"flops": 1e18, "fixed_bytes": -1.0}, "fixed_bytes=-1: expected bytes, at least zero"),
        ({"bytes": 1e6, "tokens": 1e9, "fixed_bytes": 1e6}, "fixed_bytes=1e+06: expected less than bytes=1e+06"),
        ({"flops": 1e18, "draws": 10}, "draws=10: expected 0 (no intervals) or at least 100"),
        ({"flops": 1e18, "widths": (0.5,)}, "widths=0.5: expected 1 to 16 bits"),
        ({"flops": 1e18, "widths": ()}, "widths: expected at least one"),
        ({"flops": 1e18, "post": ("in4",)}, "in4: not a format; expected"),
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
    fits.write(stored, fits.Fits(name="runs.csv", sha256="", rows=0, fits=found))
    run(stored, "--flops", BUDGET, "--bytes", 4e4, "--formats", "int4,int5,bf16", "--widths", "8,16", "--draws", 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["trained", "served", "N", "D"]
    assert [line.split()[0] for line in lines[1:4]] == ["16"] * 3
    assert lines[1].count("[") == 6
    assert lines[-1].startswith("Train N = ") and lines[-1].count("[") >= 3
    run("paper", "--bytes", "2e9", "--tokens", "1e12")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["16", "int6", "2.67e+09", "1e+12"]
    assert "With 16 bits throughout: N = 1e+09" in lines[-1]


def test_help_loads_nothing_heavy():
    check = "import argparse, sys; from analysis.plan import add_parser as a; p = argparse.ArgumentParser()"
    check += "; a(p.add_subparsers()); p.format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "pandas", "matplotlib", "numpy"} & set(loaded)
