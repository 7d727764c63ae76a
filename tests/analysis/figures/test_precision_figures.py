"""Figures of float formats, parts fitted apart, schedules, and bits in and after training, on planted tables."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures.after_training import effective_size, schedules
from analysis.figures.best_model import optimal_precision
from analysis.figures.registry import FIGURES
from analysis.fitting.store import published
from analysis.laws import formulas
from analysis.laws.registry import LAWS
from analysis.planning import optima

pytestmark = pytest.mark.usefixtures("few_starts")

FULL = (16, 16, 16)
LOW = (*((b, 16, 16) for b in (3, 4, 6, 8)), *((16, b, 16) for b in (4, 6, 8)), *((16, 16, b) for b in (3, 4, 6)))
TOGETHER = (*((b, b, b) for b in (4, 6, 8)), (4, 6, 16))
FLOATS = {"e2m0": 3, "e2m1": 4, "e3m1": 5, "e3m2": 6, "e2m3": 6, "e4m3": 8}
FLOATING = {"gamma_w": 2.2, "n_w": 0.2}


def of_kind(drawn, kind):
    return drawn.numbers[drawn.numbers["kind"] == kind]


# ---- float formats ----


@pytest.fixture(scope="module")
def floats(tables):
    """Without noise: weights in float formats that leave f(P) with the constants FLOATING, and integers at 4 bits."""
    plain = tables.simulate(sizes=(23_600, 82_900, 201_000), tokens=(1e6, 4e6), post=(), noise=0)
    plain = plain.assign(format_w="bf16", granularity_w="channel", gap_qat=np.nan, gap_qat_se=np.nan)
    a, alpha = (tables.LOSS[s] for s in ("A", "alpha"))

    def in_format(name, bits):
        share = [formulas.effective_share(FLOATING, {"P_w": p}) for p in (bits, 16)]
        cost = a * plain["N"] ** -alpha * (share[0] ** -alpha - share[1] ** -alpha)
        more = {"format_w": name, "P_w": bits, "gap_qat": cost, "gap_qat_se": 0.004, "loss": plain["loss"] + cost}
        return plain.assign(run_id=plain["run_id"] + name, **more)

    integers = in_format("int4", 4).assign(gap_qat=1.0)
    return pd.concat([plain, *(in_format(*f) for f in FLOATS.items()), integers], ignore_index=True)


@pytest.fixture(scope="module")
def floating(tables):
    known = {s: tables.LOSS[s] for s in ("A", "B", "E", "alpha")}
    return dataclasses.replace(published("kumar_floating_point"), params=known | FLOATING)


def test_float_formats_tell_the_planted_share_of_each(floats, floating, tables):
    drawn = FIGURES["float_formats"](floats, {"kumar_floating_point": floating})
    found = of_kind(drawn, "format").set_index("format_w")
    planted = {f: float(formulas.effective_share(FLOATING, {"P_w": bits})) for f, bits in FLOATS.items()}
    assert found["share"].to_dict() == pytest.approx(planted)
    assert len(drawn.numbers[(drawn.numbers["panel"] == "share") & (drawn.numbers["kind"] == "run")]) == 6 * 12

    def share(size, gap):  # Eq. 30, with f(16) for full precision
        full = size * formulas.effective_share(FLOATING, {"P_w": 16})
        return (gap / tables.LOSS["A"] + full ** -tables.LOSS["alpha"]) ** (-1 / tables.LOSS["alpha"]) / size

    runs = floats[floats["format_w"] == "e2m1"]
    errors = [(share(n, g - 0.004) - share(n, g + 0.004)) / 2 for n, g in zip(runs["N"], runs["gap_qat"], strict=True)]
    assert found.loc["e2m1", "high"] - found.loc["e2m1", "share"] == pytest.approx(1.959964 * np.mean(errors))


def test_float_formats_draw_the_papers_law_beside_a_fit_of_their_own(floats):
    drawn = FIGURES["float_formats"](floats, {})
    paper, law = of_kind(drawn, "paper"), of_kind(drawn, "law")
    np.testing.assert_allclose(paper["share"], 1 - np.exp(-paper["bits"] / 2.8111 + 0.1240), rtol=1e-9)
    planted = formulas.effective_share(FLOATING, {"P_w": law["bits"]})
    seen = (law["bits"] >= 3).to_numpy()
    np.testing.assert_allclose(law["share"][seen], planted[seen], atol=0.02)
    assert np.isfinite(law[["low", "high"]]).all(axis=None)
    assert (law["low"] <= law["share"] + 1e-9).all() and (law["share"] <= law["high"] + 1e-9).all()
    assert [axes.get_xlabel().split("\n")[0] for axes in drawn.figure.axes[1:]] == ["mantissa bits", "exponent bits"]
    assert "int4" not in set(drawn.numbers["format_w"])


# ---- parts fitted apart, best bits ----


def test_parts_fitted_apart_do_not_see_the_runs_with_several(tables):
    frame = tables.simulate(trained=(FULL, *LOW, *TOGETHER), noise=0, post=())
    several = (frame[["P_w", "P_a", "P_kv"]] < 16).sum(axis=1) > 1
    worse = frame.assign(loss=frame["loss"] + 0.3 * several)  # low precision of one part makes another's worse
    fits = {"kumar_neff": analysis.fit("kumar_neff", worse, bootstrap=0)}
    numbers = FIGURES["predicted_loss"](worse, fits).numbers
    joint, apart = (numbers[numbers["panel"] == p] for p in ("several parts", "several parts, fitted apart"))
    assert len(joint) == len(apart) == several.sum()
    planted = [tables.loss_of(r.N, r.D, (r.P_w, r.P_a, r.P_kv)) for r in apart.itertuples()]
    np.testing.assert_allclose(apart["predicted"], planted, atol=1e-3)
    assert apart["mse"].iloc[0] == pytest.approx(0.3**2, rel=0.02)
    assert apart["r2"].iloc[0] == pytest.approx(1 - 0.3**2 / joint["loss"].var(ddof=0), abs=0.01)
    assert joint["mse"].iloc[0] < 0.2 * apart["mse"].iloc[0]
    one = numbers[numbers["panel"] == "weights"]
    np.testing.assert_allclose(one["predicted"], fits["kumar_neff"].predict(one))


def test_a_part_that_was_never_alone_is_not_predicted_from_the_others(tables):
    trained = (FULL, *((b, 16, 16) for b in (3, 4, 6)), (4, 6, 16), (6, 4, 16), (8, 8, 16))
    frame = tables.simulate(trained=trained, noise=0, post=())
    fits = {"kumar_neff": analysis.fit("kumar_neff", frame, bootstrap=0)}
    panels = set(FIGURES["predicted_loss"](frame, fits).numbers["panel"])
    assert panels == {"weights", "several parts", "all runs"}


def test_best_bits_at_a_size_have_the_interval_of_the_draws(tables):
    frame = tables.simulate(trained=(FULL, *LOW), post=())
    fit = analysis.fit("kumar_neff_tied", frame, bootstrap=40)
    numbers = FIGURES["optimal_precision"](frame, {"kumar_neff_tied": fit}).numbers
    lines = numbers[(numbers["constants"] == "fit") & (numbers["kind"] == "fixed N")]
    assert (lines["low"] < lines["bits"]).all() and (lines["bits"] < lines["high"]).all()
    row = lines[lines["N"] == 82_900].iloc[30]
    draws = [dict(zip(fit.law.symbols, draw, strict=True)) for draw in fit.draws]
    bits = np.sort([float(optima.best_bits_at_size_and_tokens(d, row["N"], row["D"])) for d in draws])
    for end, place in (("low", 1), ("high", 38)):  # of 40 draws, those nearest to 2.5 and 97.5%
        assert row[end] == pytest.approx(row["bits"] + fit.bootstrap.reach * (bits[place] - row["bits"]), abs=1e-4)
    paper = numbers[numbers["constants"] == "paper"]
    assert paper[["low", "high"]].isna().all(axis=None)
    assert optimal_precision.band_at_size(published("kumar_neff_tied"), 1e8, np.array([1e10])) is None


# ---- schedules ----

DECAYS = {"cosine": (0.1, np.nan, 0.5), "linear": (0.0, np.nan, 0.7), "wsd": (0.0, 0.2, 0.1)}


@pytest.fixture(scope="module")
def scheduled(tables):
    """Without noise: the planted gap, but with an exponent of D for each schedule."""
    parts = []
    for name, (end, decay, power) in DECAYS.items():
        one = tables.simulate(sizes=(23_600, 82_900), noise=0, post=(3, 4))
        one["gap"] *= (one["D"] / 2e6) ** (power - tables.GAP["gamma_D"])
        parts.append(one.assign(schedule=name, lr_peak=4e-3, lr_end=4e-3 * end, decay_tokens=decay * one["D"]))
    return pd.concat(parts, ignore_index=True)


def test_each_schedule_has_its_panel_and_its_own_exponent(scheduled):
    drawn = FIGURES["schedules"](scheduled, {})
    names = {"cosine to 10%": "cosine", "linear to 0": "linear", "stable, then linear to 0 over 20% of D": "wsd"}
    titles = [axes.get_title().replace("\n", " ") for axes in drawn.figure.axes]
    for title, (name, schedule) in zip(titles, names.items(), strict=True):
        assert title.startswith(name)
        line = of_kind(drawn, "law").query("name == @name and P_post == 3")
        slope = np.diff(np.log(line["gap"])) / np.diff(np.log(line["D"]))
        np.testing.assert_allclose(slope, DECAYS[schedule][2], atol=0.01)
        points = of_kind(drawn, "point").query("name == @name")
        mine = scheduled[(scheduled["schedule"] == schedule) & (scheduled["N"] == points["N"].iloc[0])]
        np.testing.assert_array_equal(np.sort(points["gap"]), np.sort(mine["gap"].dropna()))
    paper = of_kind(drawn, "paper")
    law = LAWS["kumar_ptq"]
    np.testing.assert_allclose(paper["gap"], law.predict(law.published, paper))


def test_schedules_are_compared_at_one_rate(scheduled):
    """Other rates and weight decays, and what goes on from another run, are other models."""
    rows = scheduled.assign(weight_decay=0.1, parent_id=None)
    few = rows[rows["seed_init"] == rows["seed_init"].min()].assign(gap=9.0)
    others = [
        few.assign(lr_peak=2e-3),
        few.assign(weight_decay=0.0),
        few.assign(schedule="constant", parent_id="trunk"),
    ]
    drawn = FIGURES["schedules"](pd.concat([rows, *others], ignore_index=True), {})
    pd.testing.assert_frame_equal(drawn.numbers, FIGURES["schedules"](rows, {}).numbers)


def test_one_schedule_is_drawn_if_it_is_the_papers(scheduled):
    linear = scheduled[(scheduled["schedule"] == "linear") & (scheduled["N"] == 23_600)]
    assert set(FIGURES["schedules"](linear, {}).numbers["kind"]) == {"point", "paper", "mean"}
    with pytest.raises(InputError, match="one schedule alone, cosine to 10%; expected several, or linear to 0"):
        FIGURES["schedules"](scheduled[scheduled["schedule"] == "cosine"], {})
    with pytest.raises(InputError, match="no schedule has models of one N at two token counts"):
        FIGURES["schedules"](scheduled[scheduled["D"] == 1e6], {})
    with pytest.raises(InputError, match="no column schedule"):
        FIGURES["schedules"](scheduled.drop(columns="schedule"), {})


def test_schedules_are_called_by_what_was_varied_less():
    rows = pd.DataFrame({"schedule": ["wsd", "wsd", "constant", "cosine"], "D": [1e6, 4e6, 4e6, 4e6]})
    rows = rows.assign(lr_peak=2e-3, lr_end=[0, 0, 2e-3, 1e-5], decay_tokens=[5e5, 5e5, np.nan, np.nan])
    found = ["stable, then linear to 0 over 500k tokens"] * 2 + ["constant", "cosine to 0.5%"]
    assert schedules.schedule_names(rows).tolist() == found
    shares = schedules.schedule_names(rows.assign(decay_tokens=[2e5, 8e5, np.nan, np.nan]))
    assert shares[0] == shares[1] == "stable, then linear to 0 over 20% of D"


def test_many_lengths_of_one_kind_leave_a_panel_to_another(scheduled):
    """Five averages and two decays: two panels of each."""
    one = scheduled[scheduled["schedule"] == "cosine"].assign(lr_end=4e-3)
    lengths = [("average", d) for d in (1e5, 2e5, 3e5, 4e5, 5e5)] + [("wsd", d) for d in (1e5, 2e5)]
    parts = [one.assign(schedule=kind, decay_tokens=d, run_id=one["run_id"] + f"{kind}{d}") for kind, d in lengths]
    found = FIGURES["schedules"](pd.concat(parts), {}).numbers["name"].unique()
    assert [sum(name.startswith(start) for name in found) for start in ("mean of", "stable")] == [2, 2]


# ---- bits in and after training ----


@pytest.fixture(scope="module")
def both(tables):
    """Weights in low precision, quantized further by Eq. 9 with C_w = 0.5: once with N_eff, once (`plain`) with N."""
    frame = tables.simulate(trained=(FULL, (4, 16, 16), (6, 16, 16), (3, 16, 16)), noise=0, post=(3, 4, 5))
    low, parts = frame[(frame["P_w"] < 16)], [frame]
    for bits in (3, 4, 5):
        rows = low[low["P_w"] > bits]
        robust = 1 - np.exp(-0.5 * (rows["P_w"] - bits))
        share = np.ravel(formulas.effective_share(tables.PARTS, {"P_w": rows["P_w"].to_numpy()}))
        gap, plain = (tables.gap_of(rows["N"] * s, rows["D"], bits) * robust for s in (share, 1.0))
        more = {"ptq": "rtn", "granularity_post": "channel", "format_post": f"int{bits}", "P_post": bits}
        parts.append(rows.assign(**more, gap=gap, plain=plain, gap_se=1e-4, loss=rows["loss"] + gap))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fits(both, tables):
    neff = dataclasses.replace(published("kumar_neff"), params=tables.LOSS | tables.PARTS)
    gap = dataclasses.replace(published("kumar_ptq"), params=dict(tables.GAP))
    return {"kumar_neff": neff, "kumar_ptq": gap, "kumar_unified": analysis.fit("kumar_unified", both, bootstrap=0)}


def test_during_and_after_adds_the_laws_up(both, fits, tables):
    drawn = FIGURES["during_and_after"](both, fits)
    assert [axes.get_title().split(",")[0] for axes in drawn.figure.axes] == [
        "constants of Kumar et al.", "16-bit training", "6-bit weights in training", "4-bit weights in training",
    ]  # fmt: skip
    law, points = of_kind(drawn, "law"), of_kind(drawn, "point")
    assert set(law["N"]) == {201_000}
    for width, post in ((16, np.nan), (4, np.nan), (16, 3), (6, 4)):

        def own(rows, width=width, post=post):
            return rows[(rows["P_w"] == width) & (rows["P_post"].isna() if np.isnan(post) else rows["P_post"] == post)]

        expected = tables.loss_of(201_000, own(law)["D"], (width, 16, 16))
        if width == 16 and post == 3:
            expected = expected + tables.gap_of(201_000, own(law)["D"], post)
        elif width == 6:
            size = 201_000 * formulas.effective_share(tables.PARTS, {"P_w": 6})
            expected = expected + tables.gap_of(size, own(law)["D"], post) * (1 - np.exp(-0.5 * 2))
        np.testing.assert_allclose(own(law)["loss"], expected, rtol=2e-3)
        rows = own(both[both["N"] == 201_000])
        means = rows.groupby("D")["loss"].mean()
        assert dict(zip(own(points)["D"], own(points)["loss"], strict=False)) == pytest.approx(means.to_dict())
    paper = of_kind(drawn, "paper")
    start = paper[paper["P_w"].eq(16) & paper["P_post"].isna()].iloc[0]
    assert start["loss"] == pytest.approx(
        4299 * 30e6**-0.4965 / 0.99412**0.4965 + 18060 * 1e9**-0.4965 + 2.7648, rel=2e-3
    )


def test_during_and_after_needs_a_width_on_both_sides(both):
    with pytest.raises(InputError, match="no N has weights trained in a width to which"):
        FIGURES["during_and_after"](both[both["P_w"].isin([6, 16])], {})
    assert set(FIGURES["during_and_after"](both, {}).numbers["kind"]) == {"paper", "point"}


@pytest.mark.parametrize(("column", "better"), [("gap", "kumar_unified"), ("plain", "kumar_unified_n")])
def test_effective_size_tells_which_size_was_planted(both, column, better):
    """With N planted, N_eff can only draw level: it then shrinks nothing."""
    frame = both.assign(gap=both[column].fillna(both["gap"]))
    numbers = FIGURES["effective_size"](frame, {}).numbers
    low = numbers[(numbers["P_w"] < 16) & numbers["fitted"]]
    lost = {law: 1 - shared.r2(group["gap"], group["predicted"]) for law, group in low.groupby("law")}
    assert lost[better] < 1e-6
    if better == "kumar_unified":
        assert lost["kumar_unified_n"] > 1e-4


def test_two_laws_are_compared_on_the_rows_of_both():
    one = pd.DataFrame({"fitted": [True, True, False]}, index=[1, 2, 3])
    two = pd.DataFrame({"fitted": [True, False, True]}, index=[2, 3, 4])
    for group in effective_size.same_rows({"one": one, "two": two}).values():
        assert group["fitted"].to_dict() == {2: True, 3: False}
    two.loc[2, "fitted"] = False
    assert not effective_size.same_rows({"one": one, "two": two})["one"]["fitted"].any()


def test_effective_size_takes_the_fit_that_is_there(both, fits):
    numbers = FIGURES["effective_size"](both, fits).numbers
    rows = numbers[numbers["law"] == "kumar_unified"]
    np.testing.assert_allclose(rows["predicted"], fits["kumar_unified"].predict(rows))
    assert rows["fitted"].sum() == fits["kumar_unified"].rows
    with pytest.raises(InputError, match="too few models were trained in low precision and quantized further"):
        FIGURES["effective_size"](both[both["P_w"] == 16], {})


# ---- looks ----


def test_more_sizes_than_markers_can_be_drawn(tables):
    sizes = tuple(20_000 * (i + 1) for i in range(len(palettes.MARKERS) + 2))
    frame = tables.simulate(sizes=sizes, tokens=(1e6,), seeds=1, post=(), trained=(FULL, (4, 16, 16)))
    assert len(of_kind(FIGURES["weight_precision"](frame, {}), "point")) == 2 * len(sizes)


def test_markers_are_different_and_leave_the_edges_to_triangles():
    assert len(set(palettes.MARKERS)) == len(palettes.MARKERS)
    assert not set("^v") & set(palettes.MARKERS)
