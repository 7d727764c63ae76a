"""Fits: planted laws come back, and what was left out is reported."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.errors import InputError


@pytest.mark.parametrize("name", ["chinchilla", "kumar_ptq"])
def test_planted_law_comes_back_from_every_start(name, tables):
    found = analysis.fit(name, tables.simulate(noise=0), bootstrap=0)
    truth = tables.LOSS | tables.GAP
    for symbol, value in found.params.items():
        expected = truth[symbol]
        if symbol == "A":  # f(16) of the simulator's law is a constant that the plain law has in A
            expected *= tables.loss_share() ** -tables.LOSS["alpha"]
        assert value == pytest.approx(expected, rel=1e-6), symbol
    assert found.starts_at_optimum == found.starts > 10
    assert found.status == "ok"
    assert found.r2 == pytest.approx(1, abs=1e-9)


def test_planted_neff_law_comes_back(tables):
    """Some starts end where a part has no effect at all (f = 1, a plateau); they are few, and counted."""
    found = analysis.fit("kumar_neff", tables.simulate(noise=0, seeds=1, trained=tables.TRAINED), bootstrap=0)
    truth = tables.LOSS | tables.PARTS
    for symbol, value in found.params.items():
        assert value == pytest.approx(truth[symbol], rel=1e-6), symbol
    assert 0.9 * found.starts <= found.starts_at_optimum <= found.starts


def test_planted_tied_law_comes_back(tables):
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)], columns=["N", "D"])
    frame["loss"] = 40 * frame["N"] ** -0.3 + 500 * frame["D"] ** -0.3 + 1.2
    found = analysis.fit("chinchilla_tied", frame, bootstrap=0)
    assert found.params == pytest.approx({"alpha": 0.3, "A": 40, "B": 500, "E": 1.2}, rel=1e-6)


def test_noisy_gaps_come_back_within_their_intervals(tables):
    found = analysis.fit("kumar_ptq", tables.simulate(seeds=3, seed=4), bootstrap=300)
    for symbol, value in tables.GAP.items():
        low, high = found.interval(symbol)
        assert low < value < high, symbol
    assert found.params["gamma_D"] == pytest.approx(0.5, abs=0.1)
    assert found.noise.tau == pytest.approx(np.sqrt(0.1**2 + 0.08**2 + 0.04**2), rel=0.35)
    assert set(found.r2_within) == {"3", "4", "5", "6"}
    assert min(found.r2_within.values()) < found.r2


def test_gaps_of_zero_and_less_are_kept(tables):
    frame = tables.simulate(noise=0)
    smallest = frame["P_post"] == 6
    before = analysis.fit("kumar_ptq", frame, bootstrap=0)
    frame.loc[smallest, "gap"] -= 0.02  # most of them below zero
    assert (frame.loc[smallest, "gap"] < 0).sum() > 10
    frame["gap_se"] = np.where(smallest, 0.02, 0.001)
    after = analysis.fit("kumar_ptq", frame, bootstrap=0)
    assert after.rows == before.rows
    assert after.params["gamma_D"] == pytest.approx(0.5, abs=0.02)


def test_order_of_rows_does_not_matter(tables):
    frame = tables.simulate()
    once = analysis.fit("kumar_ptq", frame, bootstrap=0)
    again = analysis.fit("kumar_ptq", frame.sample(frac=1, random_state=1), bootstrap=0)
    assert again.params == pytest.approx(once.params, rel=1e-7)


def test_what_is_left_out_is_counted(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), seeds=1)
    snapshot = frame[frame["D"] == 8e6].assign(tokens_seen=1e6)
    diverged = frame.head(3).assign(diverged=True, loss=np.nan, gap=np.nan)
    found = analysis.fit("kumar_ptq", pd.concat([frame, snapshot, diverged]), bootstrap=0)
    alone = analysis.fit("kumar_ptq", frame, bootstrap=0)
    assert found.params == alone.params
    assert found.left_out["diverged, or without a finite loss"] == 3
    assert found.left_out["evaluated before the end of the run"] == 2 * 7
    assert found.left_out["P_post outside 3 to 6 bits"] == 8 * 3
    total = sum(found.left_out.values()) + found.rows
    assert total == len(frame) + len(snapshot) + len(diverged)
    truth = tables.gap_of(frame["N"], frame["D"], frame["P_post"])[frame["P_post"].between(3, 6)]
    assert found.left_out["predicted gap of 0.5 nats or more"] == pytest.approx((truth > 0.5).sum(), abs=1)


def test_large_gaps_do_not_bias_the_rest(tables):
    """Rows that saturate are left out by their predicted gap, so what they hold does not matter."""
    frame = tables.simulate(noise=0, tokens=(1e6, 4e6, 1.6e7, 6.4e7))
    saturated = frame.assign(gap=frame["gap"].clip(upper=0.7))
    found = analysis.fit("kumar_ptq", saturated, bootstrap=0)
    assert found.params == pytest.approx(tables.GAP, rel=1e-5)


def test_table_of_three_columns_is_enough(tables):
    frame = tables.simulate(noise=0, post=())[["N", "D", "loss"]]
    found = analysis.fit("chinchilla", frame, bootstrap=50)
    assert found.params["beta"] == pytest.approx(0.45, rel=1e-6)
    assert (found.bootstrap.kind, found.bootstrap.clusters) == ("rows", 24)


def test_part_with_too_few_widths_is_left_out_and_said(tables):
    trained = ((16, 16, 16), (3, 16, 16), (4, 16, 16), (6, 16, 16), (16, 4, 16))
    found = analysis.fit("kumar_neff", tables.simulate(noise=0, post=(), trained=trained), bootstrap=0)
    assert "gamma_a" not in found.params
    assert found.left_out == {"P_a below 16 bits": 24}
    assert any("P_a has only 2" in warning for warning in found.warnings)
    assert found.params["gamma_w"] == pytest.approx(tables.PARTS["gamma_w"], rel=1e-5)


def test_thin_tables_are_doubted(tables):
    frame = tables.simulate(sizes=(23_600, 27_000), tokens=(1e6, 1.5e6, 2e6), seeds=4)
    found = analysis.fit("kumar_ptq", frame, bootstrap=0)
    assert any("D/N only from" in warning for warning in found.warnings)
    assert any("N has only 2 different values" in warning for warning in found.warnings)


def test_irreducible_loss_at_zero_is_said():
    frame = pd.DataFrame([(n, d) for n in (1e4, 1e5, 1e6) for d in (1e6, 1e7, 1e8)], columns=["N", "D"])
    frame["loss"] = 40 * frame["N"] ** -0.2 + 50 * frame["D"] ** -0.2 - 0.15
    found = analysis.fit("chinchilla", frame, bootstrap=0)
    assert found.params["E"] == 0
    assert found.status == "at_bound"
    assert any(warning.startswith("E is at zero") for warning in found.warnings)


def test_huber_delta_follows_the_seeds(tables):
    frame = tables.simulate(post=(), seeds=6)
    found = analysis.fit("chinchilla", frame, bootstrap=0)
    assert found.huber_delta == pytest.approx(1.345 * 0.003, rel=0.3)
    assert 0.1 < found.active_share < 0.35  # 1.345 standard deviations: 18% of normal residuals lie beyond
    assert analysis.fit("chinchilla", frame, bootstrap=0, huber_delta=0.5).active_share == 0
    assert analysis.fit("chinchilla", frame, bootstrap=0, objective="squares").huber_delta is None


def test_squares_are_least_squares(tables):
    """Against scipy's solver on the same residuals, from the optimum."""
    from scipy.optimize import least_squares

    frame = tables.simulate(post=())
    found = analysis.fit("chinchilla", frame, bootstrap=0, objective="squares")
    names = list(found.params)

    def residuals(values):
        return np.log(found.law.predict(dict(zip(names, values, strict=True)), frame)) - np.log(frame["loss"])

    theirs = least_squares(residuals, list(found.params.values()), x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert found.value == pytest.approx(theirs.cost, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"bootstrap": 1}, "bootstrap=1: "),
        ({"huber_delta": 0.0}, "huber_delta=0.0: "),
        ({"bits": (6, 3)}, "bits=6 3: "),
        ({"gap_below": -1}, "gap_below=-1: "),
        ({"objective": "huge"}, "objective=huge: use one of huber, squares"),
    ],
)
def test_bad_options_are_one_line(options, line, tables):
    with pytest.raises(InputError) as fault:
        analysis.fit("chinchilla", tables.simulate(post=()), **options)
    assert str(fault.value).startswith(line)


def test_rows_that_were_trained_differently_are_a_doubt(tables):
    frame = tables.simulate(sizes=(23_600, 82_900, 201_000), tokens=(1e6, 4e6, 16e6))
    by_size = frame.assign(lr_peak=1 / frame["N"], schedule="cosine")  # a rule by N is no difference between equals
    twice = by_size.assign(lr_peak=2 * by_size["lr_peak"], run_id=by_size["run_id"] + "-twice")
    mixed = pd.concat([by_size, twice], ignore_index=True)
    said = [
        [w for w in analysis.fit("kumar_ptq", f, bootstrap=0).warnings if "takes for scatter" in w]
        for f in (by_size, mixed)
    ]
    assert said == [[], ["rows of one N, D, P_post differ in lr_peak (2 values), which the law takes for scatter"]]
