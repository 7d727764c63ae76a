"""Hold-outs: splits and scores by hand, and what a law cannot predict is reported."""

import numpy as np
import pandas as pd
import pytest

from analysis.diagnostics.holdout import (
    Holdout,
    Measures,
    groups,
    measures,
    predict_held_out,
    split,
    upsets,
)
from analysis.errors import InputError
from analysis.fitting.options import Options
from analysis.laws.registry import LAWS
from analysis.table import ordered

# Two sizes, three horizons, two chains a size.
GRID = pd.DataFrame(
    [(n, d, f"n{n}-s{s}", f"n{n}-d{d}-s{s}") for n in (10, 20) for s in (0, 1) for d in (1, 2, 4)],
    columns=["N", "D", "cluster", "run_id"],
)


def parts(frame, holdout, **options):
    """Label, the (N, D) fitted and those predicted."""

    def cells(mask):
        return sorted(set(zip(frame["N"][mask], frame["D"][mask], strict=True)))

    return [(f.label, cells(f.train), cells(f.test)) for f in split(frame, Holdout(name=holdout, **options))]


def test_largest_size_and_longest_training():
    small, large = [(10, d) for d in (1, 2, 4)], [(20, d) for d in (1, 2, 4)]
    assert parts(GRID, "N") == [("N = 20", small, large)]
    assert parts(GRID, "D") == [("D = 4", [(n, d) for n in (10, 20) for d in (1, 2)], [(10, 4), (20, 4)])]


def test_tokens_rounded_to_other_batches_are_one_horizon():
    rounded = {4: [4_000_000 // b * b for b in (2048, 8192)], 2: [2_000_000 // b * b for b in (2048, 8192)]}
    rows = [(n, d, b) for n in (10, 20) for pair in rounded.values() for d, b in zip(pair, (2048, 8192), strict=True)]
    frame = pd.DataFrame(rows, columns=["N", "D", "batch_tokens"])
    long, short = [[(n, d) for n in (10, 20) for d in sorted(set(rounded[k]))] for k in (4, 2)]
    for table in (frame, frame.drop(columns="batch_tokens")):
        assert parts(table, "D") == [("D = 3.99974e+06", short, long)]
        assert [test for _, _, test in parts(table, "cell")] == [short[:1], long[:2], short[1:], long[2:]]


def test_both_is_the_corner_or_the_edges_where_there_is_no_corner():
    assert parts(GRID, "both") == [("N = 20 and D = 4", [(10, 1), (10, 2)], [(20, 4)])]
    edges = [(10, 4), (20, 1), (20, 2)]
    without = GRID[(GRID["N"] < 20) | (GRID["D"] < 4)]
    assert parts(without, "both") == [("N = 20 or D = 4", [(10, 1), (10, 2)], edges)]


def test_cells_take_their_chains_out():
    """A chain runs through all D: without it nothing of that size is left."""
    found = parts(GRID, "cell")
    assert [label for label, _, _ in found] == [f"N = {n}, D = {d}" for n in (10, 20) for d in (1, 2, 4)]
    assert found[1] == ("N = 10, D = 2", [(20, 1), (20, 2), (20, 4)], [(10, 2)])
    # With seeds of its own for every cell only the cell goes.
    own = GRID.assign(cluster=GRID["run_id"])
    assert parts(own, "cell")[1] == ("N = 10, D = 2", [(10, 1), (10, 4), (20, 1), (20, 2), (20, 4)], [(10, 2)])


def test_random_folds_keep_groups_whole_and_sizes_in_every_part():
    found = split(GRID, Holdout(name="random", folds=2))
    assert len(found) == 2
    for fold in found:
        assert not set(GRID["cluster"][fold.train]) & set(GRID["cluster"][fold.test])
        assert set(GRID["N"][fold.train]) == set(GRID["N"][fold.test]) == {10, 20}
    assert np.sum([fold.test for fold in found], axis=0).tolist() == [1] * len(GRID)
    assert len(split(GRID, Holdout(name="random", folds=9))) == 4  # no more folds than chains


def test_random_folds_follow_the_seed_and_not_the_order():
    many = GRID.assign(cluster=GRID["run_id"])

    def folds(frame, seed):
        return [
            frozenset(frame["run_id"][fold.test]) for fold in split(frame, Holdout(name="random", seed=seed, folds=3))
        ]

    assert folds(many, 1) == folds(many.sample(frac=1, random_state=3), 1)
    assert folds(many, 1) != folds(many, 2)


def test_what_a_group_is():
    assert groups(GRID)[0] == "cluster"
    assert groups(GRID)[1].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert groups(GRID.assign(cluster=[None, *GRID["cluster"][1:]]))[0] == "run_id"
    assert groups(GRID[["N", "D"]])[1].tolist() == list(range(12))


def test_rows_are_sorted_by_what_they_hold():
    frame = GRID.assign(ptq=[None, "rtn"] * 6, loss=np.linspace(3, 2, 12))
    again = ordered(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(again, ordered(frame))
    assert again["N"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("frame", "arguments", "line"),
    [
        (GRID, {"name": "M"}, "holdout=M: use one of N, D, both, random, cell"),
        (GRID, {"name": "random", "folds": 1}, "folds=1: expected at least 2"),
        (GRID, {"name": "random", "seed": -1}, "seed=-1: expected"),
        (GRID[GRID["N"] == 10], {"name": "N"}, "holdout=N: N is 10 in all rows"),
        (GRID[GRID["D"] == 4], {"name": "both"}, "holdout=both: D is 4 in all rows"),
        (
            GRID[(GRID["N"] == 20) ^ (GRID["D"] == 4)],
            {"name": "both"},
            "holdout=both: all rows have N = 20 or D = 4",
        ),
        (GRID.head(3), {"name": "random"}, "holdout=random: all rows are of one cluster"),
        (GRID.head(1), {"name": "cell"}, "holdout=cell: all rows have N = 10 and D = 1"),
    ],
)
def test_bad_hold_outs_are_one_line(frame, arguments, line):
    with pytest.raises(InputError) as fault:
        split(frame, Holdout(**arguments))
    assert str(fault.value).startswith(line)


def test_a_planted_law_is_predicted(tables):
    frame = tables.simulate(noise=0, post=(), sizes=(23_600, 82_900, 201_000, 378_000))
    for holdout in ("N", "D", "both", "random", "cell"):
        folds = split(frame, Holdout(name=holdout))
        made = predict_held_out(LAWS["chinchilla"], frame, folds, Options(bootstrap=0))
        held = np.any([fold.test for fold in folds], axis=0)
        np.testing.assert_allclose(made.prediction[held], frame["loss"][held], rtol=1e-8)
        assert np.isnan(made.prediction[~held]).all()
        assert {fit.status for fit in made.fits} == {"ok"}
    # Cells of one size share the part that they are predicted from.
    assert [len(fit.labels) for fit in made.fits] == [4] * 4


def test_what_a_law_cannot_predict_is_not_a_number(tables):
    trained = ((16, 16, 16), (16, 3, 16), (16, 4, 16), (16, 6, 16))
    frame = tables.simulate(noise=0, seeds=1, post=(), trained=trained).reset_index(drop=True)
    largest = frame["N"] == frame["N"].max()
    beyond = largest & (frame["P_a"] == 3)
    frame.loc[beyond, ["P_a", "loss"]] = 1, 5.0  # at 1 bit the planted law has no effective parameters
    law = LAWS["kumar_neff_tied"].without({"P_w", "P_kv"})
    predicted = predict_held_out(law, frame, split(frame, Holdout(name="N")), Options(bootstrap=0)).prediction
    assert np.isfinite(predicted[largest & ~beyond]).all()
    assert np.isnan(predicted[beyond]).all()


def test_a_scheme_never_fitted_is_not_predicted(tables):
    sizes = (23_600, 82_900, 201_000, 378_000)
    frame = tables.simulate(noise=0, sizes=sizes, post=(), trained=((16, 16, 16), (4, 16, 16), (3, 16, 16)))
    frame["scheme"] = frame["P_w"].astype(str)
    frame = frame[(frame["scheme"] != "3") | (frame["N"] == sizes[-1])]
    new, largest = frame["scheme"] == "3", frame["N"] == sizes[-1]
    law = LAWS["quest"].for_schemes(("16", "3", "4"))
    made = predict_held_out(law, frame, split(frame, Holdout(name="N")), Options(bootstrap=0))
    predicted, (fit,) = made.prediction, made.fits
    assert np.isnan(predicted[new]).all() and new.any()
    np.testing.assert_allclose(predicted[largest & ~new], frame["loss"][largest & ~new], rtol=1e-6)
    assert fit.status == "unidentified"


def test_a_part_too_small_to_fit_says_so(tables):
    frame = tables.simulate(post=(), sizes=(23_600, 82_900, 201_000))
    made = predict_held_out(LAWS["chinchilla"], frame, split(frame, Holdout(name="N")), Options(bootstrap=0))
    predicted, (fit,) = made.prediction, made.fits
    assert np.isnan(predicted).all()
    assert (fit.status, fit.rows, fit.params) == ("not fitted", 16, {})
    assert fit.reason == "chinchilla: N has 2 different values, needs at least 3"


def test_measures_by_hand():
    frame = pd.DataFrame({"loss": [2.0, 3.0, 4.0, 9.0], "gap": [0.1, 0.2, 0.3, 0.4], "P_post": 3.0})
    test = np.array([True, True, True, False])
    found = measures(frame, "loss", np.array([2.0, 3.3, 3.6, 0.0]), test)
    assert (found.rows, found.predicted) == (3, 3)
    # Errors 0, .3, -.4 about a mean of 3 with squares 1 + 0 + 1.
    assert found.rmse == pytest.approx(np.sqrt(0.25 / 3))
    assert (found.mae, found.bias, found.r2) == pytest.approx((0.7 / 3, -0.1 / 3, 1 - 0.25 / 2))
    assert found.log_rmse == pytest.approx(np.sqrt((np.log(1.1) ** 2 + np.log(0.9) ** 2) / 3))
    found = measures(frame, "gap", np.array([0.1, np.nan, 0.5, 0.4]), test)
    assert (found.rows, found.predicted, found.mae) == pytest.approx((3, 2, 0.1))
    assert np.isnan(found.log_rmse) and found.r2_within == {}
    assert measures(frame, "gap", frame["gap"].to_numpy(), ~test | test).r2_within == {"3": 1.0}
    nothing = measures(frame, "gap", np.full(4, np.nan), test)
    assert isinstance(nothing, Measures) and nothing.predicted == 0 and np.isnan(nothing.rmse)


def test_upsets():
    label = np.repeat(np.arange(5), 2)
    better, worse = np.full(10, 0.1), np.full(10, 0.2)
    assert (upsets(better, worse, label, 0), upsets(worse, better, label, 0)) == (0, 1)
    even = np.where(label % 2 == 0, 0.1, 0.2), np.where(label % 2 == 0, 0.2, 0.1)
    assert 0.2 < upsets(*even, label, 0) < 0.5  # better in three groups of five
    assert np.isnan(upsets(better, worse, label // 2, 0))
