"""Slopes of ln(gap) in ln D: planted ones come back, one that is not constant is found out, small gaps stay in."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import analysis
from analysis.diagnostics.slopes import curved, law_curvature, local_slopes, numbers, slopes_by_width
from analysis.errors import InputError
from analysis.fitting.estimate import prepare
from analysis.fitting.options import Options
from analysis.laws.registry import LAWS

pytestmark = pytest.mark.usefixtures("few_starts")

TOKENS = (1e6, 2e6, 4e6, 8e6)


def bent(frame, curvature):
    return frame.assign(gap=frame["gap"] * np.exp(curvature * np.log(frame["D"] / 3e6) ** 2))


def test_a_constant_slope_comes_back(tables):
    found = local_slopes("kumar_ptq", tables.simulate(noise=0))
    assert [(s.low_D, s.high_D) for s in found.local] == [(1e6, 2e6), (2e6, 4e6), (4e6, 8e6)]
    assert [s.value for s in (*found.local, found.constant)] == pytest.approx([0.5] * 4, abs=1e-6)
    assert found.curvature.value == pytest.approx(0, abs=1e-6)
    assert (found.units, found.trusted, found.single, found.constant.clusters) == ("clusters", True, 0, 6)
    assert found.within[:2] == ("N", "P_post") and found.within[-1] == "cluster"
    assert found.rows == analysis.fit("kumar_ptq", tables.simulate(noise=0), bootstrap=0).rows


def test_a_broken_slope_comes_back(tables):
    """A slope of .8 up to 2M tokens and of .25 beyond: every octave has its own."""
    frame = tables.simulate(noise=0, tokens=(*TOKENS, 5e6))
    log = np.log(frame["D"] / 2e6)
    frame["gap"] *= np.exp(np.where(log < 0, 0.8, 0.25) * log - 0.5 * log)
    found = local_slopes("kumar_ptq", frame)
    assert [s.high_D for s in found.local] == [2e6, 4e6, 8e6]  # 5M is too near to 4M
    assert [s.value for s in found.local] == pytest.approx([0.8, 0.25, 0.25], abs=1e-6)
    assert 0.25 < found.constant.value < 0.8
    assert found.curvature.value < -0.1


def test_two_horizons_by_hand(tables):
    """With one amplitude a group its two gaps count as (y_2 - r y_1)^2 / (sd_2^2 + r^2 sd_1^2), r = 2^slope."""
    frame = tables.simulate(tokens=(1e6, 2e6), post=(3, 4), seeds=3)
    found = local_slopes("kumar_ptq", frame)
    fitted = prepare("kumar_ptq", frame, Options(bootstrap=0))
    rows = fitted.frame.assign(sd=fitted.problem.sd)
    wide = rows.pivot(index=["N", "P_post", "cluster"], columns="D", values=["gap", "sd"]).to_numpy()

    def cost(slope):
        r = 2**slope
        return np.sum((wide[:, 1] - r * wide[:, 0]) ** 2 / (wide[:, 3] ** 2 + r**2 * wide[:, 2] ** 2))

    best = minimize_scalar(cost, bounds=(-1, 2), method="bounded", options={"xatol": 1e-10}).x
    assert found.local[0].value == pytest.approx(best, abs=1e-6)
    assert found.constant.value == pytest.approx(best, abs=1e-6)


def test_curvature_is_found_where_it_is_and_not_where_it_is_not(tables):
    frame = tables.simulate(seeds=3, seed=1)
    flat, curve = local_slopes("kumar_ptq", frame).curvature, local_slopes("kumar_ptq", bent(frame, -0.15)).curvature
    assert flat.p > 0.1 and flat.low < 0 < flat.high
    assert curve.p < 0.05 and curve.low < -0.15 < curve.high < 0
    of_law = [law_curvature("kumar_ptq", table, bootstrap=200) for table in (frame, bent(frame, -0.15))]
    assert of_law[0].p > 0.1 and of_law[0].low < 0 < of_law[0].high
    assert of_law[1].p < 0.05 and of_law[1].low < -0.15 < of_law[1].high < 0
    assert (of_law[1].low_D, of_law[1].high_D, of_law[1].clusters) == (1e6, 8e6, 9)


def test_intervals_cover_the_truth(tables):
    """20 simulated studies with run, bit, chain and window noise; 95% of 100 intervals is 95."""
    hits, false = 0, 0
    for seed in range(20):
        found = local_slopes("kumar_ptq", tables.simulate(seed=seed))
        hits += sum(s.low < 0.5 < s.high for s in (*found.local, found.constant))
        hits += found.curvature.low < 0 < found.curvature.high
        false += found.curvature.p < 0.05
    assert hits >= 88
    assert false <= 3


def test_gaps_of_zero_and_less_are_kept(tables):
    frame = tables.simulate(noise=0)
    smallest = frame["P_post"] == 6
    before = local_slopes("kumar_ptq", frame)
    frame.loc[smallest, "gap"] -= 0.02
    assert (frame.loc[smallest, "gap"] < 0).sum() > 10
    frame["gap_se"] = np.where(smallest, 0.02, 0.001)
    after = local_slopes("kumar_ptq", frame)
    assert after.rows == before.rows
    assert [s.value for s in after.local] == pytest.approx([0.5] * 3, abs=0.02)


def test_rows_can_be_narrowed_after_the_fit(tables):
    """Slopes within one width, with weights from the law of all widths."""
    frame = tables.simulate(noise=0)
    steep = frame["P_post"] == 4
    frame.loc[steep, "gap"] *= (frame["D"] / 3e6) ** 0.2
    found = {bits: local_slopes("kumar_ptq", frame, only=f"P_post == {bits}") for bits in (4, 5)}
    assert found[4].constant.value == pytest.approx(0.7, abs=1e-5)
    assert found[5].constant.value == pytest.approx(0.5, abs=1e-5)
    assert found[5].rows == 24


def test_horizons_with_seeds_of_their_own(tables):
    """Where every (N, D) has its own cluster, rows of one N and width are compared across clusters."""
    frame = tables.simulate(seeds=3)
    found = local_slopes("kumar_ptq", frame.assign(cluster=frame["run_id"]))
    assert "cluster" not in found.within
    assert found.constant.low < 0.5 < found.constant.high
    paired = local_slopes("kumar_ptq", frame)
    assert paired.constant.se < found.constant.se  # chains share their luck


def test_rows_without_a_partner_are_counted(tables):
    frame = tables.simulate()
    alone = (frame["cluster"] == "n23600-s0") & (frame["D"] > 1e6)
    found = local_slopes("kumar_ptq", frame[~alone])
    assert found.single == 4
    assert found.constant.clusters == 5


def test_few_clusters_have_no_interval(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), seeds=1, tokens=(1e6, 4e6))
    found = local_slopes("kumar_ptq", frame.drop(columns="run_id"))
    assert found.constant.clusters == 2
    assert np.isnan([found.constant.low, found.constant.high, found.constant.se, found.constant.p]).all()
    runs = local_slopes("kumar_ptq", frame)
    assert (runs.units, runs.trusted) == ("runs", False)


def test_as_many_unknowns_as_rows_have_no_interval(tables):
    """One group at five D: an amplitude and four slopes go through all of its rows, and leave no residuals."""
    frame = tables.simulate(noise=0.3, tokens=(*TOKENS, 16e6), seeds=1)
    frame["cluster"] = frame["run_id"]  # so that more clusters than four inform the slopes
    found = local_slopes("kumar_ptq", frame, only="P_post == 4 and N < 30_000")
    assert (found.rows, len(found.local), found.constant.clusters) == (5, 4, 5)
    gap = frame[(frame["P_post"] == 4) & (frame["N"] < 30_000)].set_index("D")["gap"].sort_index()
    assert [s.value for s in found.local] == pytest.approx(np.diff(np.log(gap)) / np.log(2), abs=1e-5)
    assert np.isnan([s.low for s in found.local]).all() and np.isnan([s.p for s in found.local]).all()
    assert np.isfinite(found.constant.low)  # one slope leaves three residuals


def test_a_bend_takes_three_values_of_D(tables):
    """Two do not determine one, in one group or in groups whose middles coincide; pairs at different D do."""
    found = local_slopes("kumar_ptq", tables.simulate(tokens=(1e6, 4e6)))
    assert found.constant.low < 0.5 < found.constant.high
    assert found.curvature.clusters == 0 and np.isnan([found.curvature.value, found.curvature.p]).all()
    assert found.verdict[0] == "not decidable" and "three values of D" in found.verdict[1]
    frame = tables.simulate(noise=0)
    even = frame["seed_init"] == 0
    nested = frame[frame["D"].isin([1e6, 8e6]) & even | frame["D"].isin([2e6, 4e6]) & ~even]
    found = local_slopes("kumar_ptq", nested)
    assert found.curvature.clusters == 0
    assert [e.clusters for e in found.local] == [0, 6, 0]
    assert found.local[1].value == pytest.approx(0.5, abs=1e-6) and np.isnan(found.local[0].value)
    shifted = bent(frame, -0.1)[frame["D"].isin([1e6, 2e6]) & even | frame["D"].isin([4e6, 8e6]) & ~even]
    assert local_slopes("kumar_ptq", shifted).curvature.value == pytest.approx(-0.1, abs=0.01)


def test_verdicts(tables):
    """Of a slope that is constant, of one that is not, and of tables that cannot say."""
    flat = local_slopes("kumar_ptq", tables.simulate(seeds=3, seed=1))
    assert flat.verdict[0] == "constant"
    steep = local_slopes("kumar_ptq", bent(tables.simulate(seeds=3, seed=1), -0.15))
    change = 2 * np.log(2) * steep.curvature.value
    assert steep.verdict[0] == "not constant"
    assert steep.verdict[1].startswith(f"from one octave of D to the next it changes by {change:.2f} [")
    exact = local_slopes("kumar_ptq", tables.simulate(noise=0))
    assert exact.verdict[0] == "constant"  # whatever the p of its rounding errors
    wide = local_slopes("kumar_ptq", tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 2e6, 4e6), noise=3))
    assert wide.curvature.p > 0.05
    assert wide.verdict[0] == "not decidable" and "room for half of the slope" in wide.verdict[1]
    few = local_slopes("kumar_ptq", tables.simulate(sizes=(23_600, 82_900), seeds=1))
    assert few.verdict == ("not decidable", "too few clusters: fewer than 4, and runs of one are not independent")
    fewer = tables.simulate(sizes=(23_600, 82_900), seeds=1).drop(columns="run_id")
    assert local_slopes("kumar_ptq", fewer).verdict[1].startswith("too few clusters: 2 inform the curvature")


def test_each_width_and_all_together(tables):
    frame = tables.simulate(seeds=3)
    frame = frame[(frame["P_post"] != 6) | (frame["D"] == 1e6)]
    made = slopes_by_width("kumar_ptq", frame, only="D < 8e6")
    assert list(made.widths) == [3, 4, 5] and list(made.skipped) == [6]
    assert "differ in D" in made.skipped[6]
    assert made.widths[4] == local_slopes("kumar_ptq", frame, only="D < 8e6 and P_post == 4")
    assert made.together == local_slopes("kumar_ptq", frame, only="D < 8e6")
    assert made.left_out["P_post outside 3 to 6 bits"] == 3 * 9 * 4
    rows = numbers(made)
    assert len(rows) == 4 * (2 + 1 + 1)
    whole = rows[rows["P_post"].isna() & (rows["kind"] == "constant")]
    assert whole["value"].item() == made.together.constant.value
    assert (rows["verdict"] != "").sum() == 4 and set(rows.loc[rows["verdict"] != "", "kind"]) == {"curvature"}


def test_order_of_rows_does_not_matter(tables):
    frame = tables.simulate()
    once, again = (local_slopes("kumar_ptq", t) for t in (frame, frame.sample(frac=1, random_state=1)))
    for one, other in zip((*once.local, once.curvature), (*again.local, again.curvature), strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-6)


def test_bent_law_bends_its_columns():
    law, known = LAWS["kumar_ptq"], LAWS["kumar_ptq"].published
    frame = {"N": np.array([1e5, 1e6]), "D": np.array([1e6, 4e7]), "P_post": np.array([3.0, 4.0])}
    more = curved(law, D_0=2e6)
    expected = law.predict(known, frame) * np.exp(0.1 * np.log(frame["D"] / 2e6) ** 2)
    np.testing.assert_allclose(more.predict(known | {"gamma_DD": 0.1}, frame), expected, rtol=1e-12)
    value, slopes = more.gradient(known | {"gamma_DD": 0.1}, frame)
    np.testing.assert_allclose(slopes[:, 3], value * np.log(frame["D"] / 2e6) ** 2, rtol=1e-12)
    assert (more.name, more.symbols[3]) == ("kumar_ptq_curved", "gamma_DD")


@pytest.mark.parametrize(
    ("law", "options", "line"),
    [
        ("chinchilla", {}, "chinchilla: a law of losses; slopes are those of a gap law"),
        ("kumar_ptq", {"only": "P_post == 9"}, "filter 'P_post == 9': leaves none of"),
        ("kumar_ptq", {"only": "D == 1e6"}, "kumar_ptq: no rows of one N, P_post"),
        ("kumar_ptq", {"bits": (6, 3)}, "bits=6 3: "),
        ("nope", {}, "nope: no such law"),
    ],
)
def test_faults_are_one_line(tables, law, options, line):
    with pytest.raises(InputError) as fault:
        local_slopes(law, tables.simulate(), **options)
    assert str(fault.value).startswith(line)


def test_a_table_without_clusters(tables):
    frame = tables.simulate(noise=0)[["N", "D", "P_post", "gap", "loss"]]
    found = local_slopes("kumar_ptq", frame)
    assert (found.within, found.units) == (("N", "P_post"), "rows")
    assert found.constant.value == pytest.approx(0.5, abs=1e-6)
