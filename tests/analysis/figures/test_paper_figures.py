"""The paper's figures hold the table's numbers and the laws', and say in one line what a table cannot show."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import analysis
from analysis import palettes
from analysis.errors import InputError
from analysis.figures import rows as shared
from analysis.figures import style
from analysis.figures.after_training import predicted_gap
from analysis.figures.best_model import inference_optimum
from analysis.figures.in_training import capacity
from analysis.figures.registry import FIGURES
from analysis.fitting.store import published
from analysis.laws import formulas
from analysis.laws.kumar import PARTS
from analysis.planning import optima
from analysis.table import load

pytestmark = pytest.mark.usefixtures("few_starts")

LOW = (*((b, 16, 16) for b in (3, 4, 6, 8)), *((16, b, 16) for b in (4, 6, 8)), *((16, 16, b) for b in (3, 4, 6)))
TOGETHER = (*((b, b, b) for b in (4, 6, 8)), (4, 6, 16))
FULL = (16, 16, 16)
QUANTIZERS = sorted((Path(__file__).parents[2] / "results").glob("*/figures/quantizers.csv"))
LAWS = ("chinchilla_tied", "kumar_ptq", "kumar_neff_tied", "kumar_unified")


def _unified_rows(frame, tables):
    """What quantization adds to the models with weights in low precision: Eq. 9 with C_w = 0.5."""
    more = []
    for row in frame[frame["ptq"].isna() & (frame["P_w"] < 16) & (frame["P_a"] == 16)].to_dict("records"):
        for bits in (3, 4, 5):
            share = formulas.effective_share(tables.PARTS, {"P_w": row["P_w"]})
            gap = tables.gap_of(row["N"] * share, row["D"], bits) * -np.expm1(-0.5 * max(row["P_w"] - bits, 0))
            quantized = {"ptq": "rtn", "granularity_post": "channel", "format_post": f"int{bits}", "P_post": bits}
            more.append(row | quantized | {"gap": gap, "gap_se": 1e-4, "loss": row["loss"] + gap})
    return pd.DataFrame(more)


@pytest.fixture(scope="module")
def table(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 4e6), trained=(FULL, *LOW, *TOGETHER), noise=0.3)
    frame = pd.concat([frame, _unified_rows(frame, tables)], ignore_index=True)
    return frame.assign(gap_qat_se=np.where(frame["ptq"].isna(), 0.003, np.nan), loss_se=0.01)


@pytest.fixture(scope="module")
def found(table):
    return {name: analysis.fit(name, table, bootstrap=30) for name in LAWS}


@pytest.fixture(scope="module")
def exact(tables):
    """Without noise: the table and a fit that holds the planted constants."""
    frame = tables.simulate(
        sizes=(23_600, 82_900), tokens=(1e6, 4e6), trained=(FULL, *LOW, *TOGETHER), noise=0, post=()
    )
    fit = published("kumar_neff")
    return frame, dataclasses.replace(fit, params=tables.LOSS | tables.PARTS)


def cell(frame, **values):
    return frame[np.logical_and.reduce([frame[k] == v for k, v in values.items()])]


# ---- what all figures share ----


def test_costs_are_the_tables_own_or_those_against_the_same_seed(exact):
    frame, _ = exact
    rows = shared.qat_gaps(shared.trained(frame.assign(gap_qat=np.where(frame["P_a"] == 6, 0.5, np.nan))))
    four = cell(rows, N=23_600, D=4e6, P_w=4, P_a=16, seed_init=1)
    plain = cell(frame, N=23_600, D=4e6, P_w=16, P_a=16, P_kv=16, seed_init=1)["loss"].item()
    assert four["gap_qat"].item() == four["loss"].item() - plain > 0
    assert set(rows.loc[rows["P_a"] == 6, "gap_qat"]) == {0.5}
    assert len(rows) == 2 * 2 * 2 * (len(LOW) + len(TOGETHER))
    alone = frame[(frame["P_w"] < 16) | (frame["seed_init"] == 0)]
    assert set(shared.qat_gaps(shared.trained(alone))["seed_init"]) == {0}


def test_one_way_of_quantizing_is_kept(exact):
    frame, _ = exact
    mixed = frame.assign(format_w="int", granularity_w="channel")
    odd = (mixed["P_w"] == 4) & (mixed["seed_init"] == 1)
    mixed.loc[odd, "granularity_w"] = "tensor"
    rows = shared.trained(mixed)
    assert len(rows) == len(mixed) - odd.sum()
    assert len(shared.trained(mixed, one_way=False)) == len(mixed)


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"optimal_precision", "inference_optimum"}))
def test_what_a_table_cannot_show_is_one_line(name, exact, tables):
    plain = tables.simulate(sizes=(23_600,), tokens=(1e6,), seeds=1, post=())
    with pytest.raises(InputError) as caught:
        FIGURES[name](plain, {"chinchilla": published("chinchilla")})
    assert "\n" not in str(caught.value)


MARKED = {*palettes.MARKERS, palettes.UNQUANTIZED[1]}
ELSEWHERE = {"degradation", "weight_precision", "quantizers", "granularity", "matched", "float_formats", "schedules"}
ELSEWHERE |= {"learning_rates", "memory", "published_laws"}


def without_colour(axes):
    """Colour -> the markers and dashes that it has in a panel, triangles at its edges left out."""
    looks = {}
    for line in axes.lines:
        marker = line.get_marker() if line.get_marker() in MARKED else ""
        if marker or line.get_linestyle() != "None":
            looks.setdefault(to_hex(line.get_color()), set()).add((marker, line.get_linestyle()))
    return looks


@pytest.mark.parametrize("name", sorted(set(FIGURES) - ELSEWHERE))
def test_figures_are_rendered_without_a_warning_and_can_be_read_without_colour(name, table, found, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = FIGURES[name](table, found)
        drawn.figure.savefig(tmp_path / "figure.png", dpi=40)
    assert len(drawn.numbers) > 10
    for axes in drawn.figure.axes:
        looks = without_colour(axes)
        assert len({frozenset(look) for look in looks.values()}) == len(looks), axes.get_title()


# ---- training in low precision ----


def test_capacity_inverts_the_planted_law(exact, tables):
    frame, fit = exact
    numbers = FIGURES["capacity"](frame, {"kumar_neff": fit}).numbers
    points = numbers[numbers["kind"] == "point"]
    assert list(dict.fromkeys(points["panel"])) == [*PARTS, "all three"]
    for part, group in points.groupby("panel"):
        widths = {p: group["bits"] if part in (p, "all three") else 16.0 for p in PARTS}
        np.testing.assert_allclose(group["share"], formulas.effective_share(tables.PARTS, widths), rtol=1e-9)
    for kind, constants in (("law", tables.PARTS), ("paper", formulas.paper_constants())):
        lines = numbers[(numbers["kind"] == kind) & (numbers["panel"] == "P_a")]
        np.testing.assert_allclose(lines["share"], formulas.effective_share(constants, {"P_a": lines["bits"]}))
    assert capacity.empirical_share(tables.LOSS, 1e5, 0.0) == pytest.approx(1.0)
    assert np.isnan(capacity.empirical_share(tables.LOSS, 1e5, -5.0))
    assert np.isnan(capacity.empirical_share({**tables.LOSS, "A": 0.0}, 1e5, 0.01))


def test_capacity_bars_are_the_errors_of_the_costs(table, found):
    points = FIGURES["capacity"](table, found).numbers.query("kind == 'point'")
    row = points.iloc[0]
    fit = shared.constants(found["kumar_neff_tied"])
    assert row["low"] == pytest.approx(capacity.empirical_share(fit, row["N"], row["gap_qat"] + 0.003))
    assert (points["low"] < points["share"]).all()


def test_capacity_needs_a_loss_law(exact):
    with pytest.raises(InputError, match="no fitted loss law gives A and alpha"):
        FIGURES["capacity"](exact[0], {})


def test_isoloss_shows_the_commonest_tokens(table, found):
    frame = table[(table["D"] == 4e6) | (table["seed_init"] == 0)]
    numbers = FIGURES["isoloss"](frame, found).numbers
    assert set(numbers["D"]) == {4e6}
    points, law = (numbers[numbers["kind"] == kind] for kind in ("point", "law"))
    assert len(points) == 2 * 5
    rows = cell(frame[frame["ptq"].isna()], N=82_900, D=4e6, P_w=3, P_a=16, P_kv=16)
    assert cell(points, N=82_900, P_w=3)["loss"].item() == pytest.approx(rows["loss"].mean())
    np.testing.assert_allclose(law["loss"], found["kumar_neff_tied"].predict(law.assign(P_a=16, P_kv=16)))
    assert len(FIGURES["isoloss"](frame, {}).figure.axes) == 2  # measured, and the colour bar
    with pytest.raises(InputError, match="no token count has weights trained in two widths at two sizes"):
        FIGURES["isoloss"](frame[frame["N"] == 82_900], found)


def test_predicted_loss_states_how_good_it_is(table, found):
    drawn = FIGURES["predicted_loss"](table, found)
    numbers, fit = drawn.numbers, found["kumar_neff_tied"]
    everything = numbers[numbers["panel"] == "all runs"]
    assert len(everything) == fit.rows
    np.testing.assert_allclose(everything["predicted"], fit.predict(everything))
    assert everything["r2"].iloc[0] == pytest.approx(fit.r2)
    assert everything["mse"].iloc[0] == pytest.approx(fit.rmse**2)
    counts = numbers.groupby("panel").size()
    assert counts.to_dict() == {
        "weights": 32, "activations": 24, "KV cache": 24, "several parts": 32, "several parts, fitted apart": 32,
        "all runs": 120,
    }  # fmt: skip
    texts = [t.get_text() for axes in drawn.figure.axes for t in axes.texts]
    assert len(texts) == 6
    assert all("MSE" in text and "R^2" in text for text in texts)


def test_part_sweeps_draw_one_law_a_size(table, found):
    numbers = FIGURES["part_sweeps"](table, found).numbers
    points, law = (numbers[numbers["kind"] == kind] for kind in ("point", "law"))
    assert points.groupby("part").size().to_dict() == {"P_w": 32, "P_a": 24, "P_kv": 24}
    assert set(points["gap_qat_se"]) == {0.003}
    fit = found["kumar_neff_tied"]
    for part, group in law.groupby("part"):
        grid = group[["N"]].assign(D=1e6, **dict.fromkeys(PARTS, 16.0))
        cost = fit.predict(grid.assign(**{part: group["bits"]})) - fit.predict(grid)
        np.testing.assert_allclose(group["gap_qat"], cost, rtol=1e-8, atol=1e-12)
    with pytest.raises(InputError, match="cost nothing in any run"):
        FIGURES["part_sweeps"](table.assign(gap_qat=0.0), found)


def test_matched_finds_runs_of_equal_cost(tables):
    sizes = {4: 60_000, 6: 40_000, 8: 30_000, 16: 15_000}
    parts = [tables.simulate(sizes=(n,), tokens=(4e6,), trained=((b,) * 3,), post=()) for b, n in sizes.items()]
    frame = pd.concat([*parts, tables.simulate(sizes=(90_000,), tokens=(4e6,), post=())], ignore_index=True)
    fit = dataclasses.replace(published("kumar_neff"), params=tables.LOSS | tables.PARTS)
    numbers = FIGURES["matched"](frame.assign(loss_se=0.01), {"kumar_neff": fit}).numbers
    points, law = (numbers[numbers["kind"] == kind] for kind in ("point", "law"))
    assert dict(zip(points["P"], points["N"], strict=True)) == sizes
    np.testing.assert_array_equal(np.sort(points["loss"]), np.sort(frame.loc[frame["N"] < 90_000, "loss"]))
    np.testing.assert_allclose(points["high"] - points["low"], 0.02)
    assert law["loss"].tolist() == [pytest.approx(tables.loss_of(r.N, 4e6, (r.P,) * 3)) for r in law.itertuples()]
    weights = frame.assign(P_a=16, P_kv=16)
    assert set(FIGURES["matched"](weights, {}).numbers["kind"]) == {"point"}
    with pytest.raises(InputError, match="no runs in two widths with the same D and N P"):
        FIGURES["matched"](frame[frame["N"] > 50_000], {})


def test_granularity_compares_within_one_n_and_d(exact):
    frame, _ = exact
    frame = frame.assign(granularity_w="channel", granularity_a="tensor")
    coarse = frame[(frame["N"] == 82_900) & (frame["D"] == 4e6) & frame["P_w"].isin([3, 4]) & (frame["P_a"] == 16)]
    both = pd.concat([frame, coarse.assign(granularity_w="tensor", loss=coarse["loss"] + 0.1)], ignore_index=True)
    numbers = FIGURES["granularity"](both, {}).numbers
    assert set(numbers["part"]) == {"P_w"}
    assert set(zip(numbers["N"], numbers["D"], strict=True)) == {(82_900, 4e6)}
    means = numbers.groupby(["granularity", "bits"])["gap_qat"].mean()
    assert means["tensor", 3] == pytest.approx(means["channel", 3] + 0.1)
    assert len(numbers) == 2 * (4 + 2)


def test_float_formats_split_exponent_and_mantissa(exact):
    frame, _ = exact
    plain = frame[(frame[["P_w", "P_a", "P_kv"]] == 16).all(axis=1)].assign(format_w="bf16")
    costs = {"e2m1": 0.08, "e2m2": 0.05, "e3m1": 0.04, "e3m2": 0.02, "e4m3": 0.01, "mxfp4": 0.09, "int4": 0.1}
    floats = [plain.assign(format_w=f, P_w=4, loss=plain["loss"] + cost) for f, cost in costs.items()]
    numbers = FIGURES["float_formats"](pd.concat([plain, *floats], ignore_index=True), {}).numbers
    assert set(numbers["panel"]) == {"against M_w", "against E_w"}
    found = numbers.groupby("format_w")["gap_qat"].mean()
    assert found.to_dict() == {f: pytest.approx(c) for f, c in costs.items() if f.startswith("e")}
    assert set(cell(numbers, format_w="e4m3")["E_w"]) == {4}
    with pytest.raises(InputError, match="no N and D with two float formats"):
        FIGURES["float_formats"](pd.concat([plain, floats[0]], ignore_index=True), {})


# ---- quantization after training ----


def test_predicted_gap_agrees_with_the_fit(table, found):
    frame = table.copy()
    frame.loc[frame["P_post"] == 8, "gap"] = -1e-3
    drawn = FIGURES["predicted_gap"](frame, found)
    numbers = drawn.numbers
    for law in ("kumar_ptq", "kumar_unified"):
        rows = numbers[numbers["law"] == law]
        np.testing.assert_allclose(rows["predicted"], found[law].predict(rows))
        assert rows["fitted"].sum() == found[law].rows
    plain = numbers[numbers["law"] == "kumar_ptq"]
    assert len(plain) == 2 * 2 * 2 * 7
    within = predicted_gap.within(plain[plain["fitted"]])
    assert {f"{b:g}": r for b, r in within.items()} == pytest.approx(found["kumar_ptq"].r2_within)
    lines = drawn.figure.axes[0].lines
    left = {line.get_marker(): len(line.get_ydata()) for line in lines if set(line.get_xdata()) == {style.EDGE}}
    # A triangle and, beside it, the marker of 8 bits, the last of the widths.
    assert (
        left["<"] >= 2 * 2 * 2
        and left[[*palettes.looks(sorted(set(frame["P_post"].dropna()))).values()][-1][1]] == left["<"]
    )
    assert len(FIGURES["predicted_gap"](frame, {"kumar_ptq": found["kumar_ptq"]}).figure.axes) == 1


def test_gap_heatmap_is_measured_and_predicted(table, found):
    numbers = FIGURES["gap_heatmap"](table, found).numbers
    assert set(numbers["N"]) == {82_900}
    assert set(numbers["D"]) == {4e6}
    assert len(numbers) == 4 * 3 + 7
    one = cell(table, N=82_900, D=4e6, P_w=6, P_a=16, P_kv=16, P_post=3)
    assert cell(numbers, P_w=6, P_post=3)["gap"].item() == pytest.approx(one["gap"].mean())
    expected = found["kumar_unified"].predict(numbers.assign(P_a=16, P_kv=16))
    np.testing.assert_allclose(numbers["predicted"], expected)
    assert cell(numbers, P_w=3, P_post=4)["predicted"].item() == 0
    assert "predicted" not in FIGURES["gap_heatmap"](table, {}).numbers
    with pytest.raises(InputError, match="no N and D at which models with weights in two widths"):
        FIGURES["gap_heatmap"](table[table["P_w"] == 16], found)


def test_quantizers_stand_side_by_side(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), tokens=(1e6, 2e6, 4e6), post=(3, 4, 6))
    quantized = frame[frame["ptq"].notna() & (frame["N"] == 82_900)]
    block = quantized.assign(granularity_post="block32", gap=quantized["gap"] * 0.5)
    gptq = quantized.assign(ptq="gptq", gap=quantized["gap"] * 0.3)
    rare = quantized[quantized["D"] == 1e6].assign(ptq="awq", format_post="nf4", P_post=4)
    numbers = FIGURES["quantizers"](pd.concat([frame, block, gptq, rare], ignore_index=True), {}).numbers
    shown = numbers[numbers["shown"]]
    assert list(dict.fromkeys(shown["setting"])) == ["RTN, block32", "RTN, channel", "GPTQ, channel"]
    assert set(numbers.loc[~numbers["shown"], "setting"]) == {"AWQ nf4, channel"}
    assert set(shown["N"]) == {82_900}
    assert set(shown["P_post"]) == {3, 4}
    for bits in (3, 4):
        values = cell(shown, setting="GPTQ, channel", P_post=bits)["gap"]
        np.testing.assert_array_equal(np.sort(values), np.sort(gptq.loc[gptq["P_post"] == bits, "gap"]))
    with pytest.raises(InputError, match="by two methods or at two granularities"):
        FIGURES["quantizers"](frame, {})


def test_granularities_beyond_the_dashes_have_other_markers(tables):
    frame = tables.simulate(sizes=(23_600,), tokens=(1e6, 2e6), post=(3, 4))
    rows = frame[frame["ptq"].notna()]
    grains = ("tensor", "channel", "block16", "block32", "block64", "block128")
    figure = FIGURES["quantizers"](pd.concat([rows.assign(granularity_post=g) for g in grains]), {}).figure
    keys = figure.legends[0].legend_handles
    assert (
        len(
            {
                (key.get_marker(), key.get_linestyle(), key._dash_pattern[1] and tuple(key._dash_pattern[1]))
                for key in keys
            }
        )
        == 6
    )


@pytest.mark.parametrize("committed", QUANTIZERS, ids=lambda path: path.parents[1].name)
def test_quantizers_are_committed_as_they_are_drawn_in_whatever_order_rows_come(committed):
    frame = load(committed.parents[1] / "runs.csv")
    for rows in (frame, frame.sample(frac=1, random_state=1)):
        numbers = FIGURES["quantizers"](rows, {}).numbers
        assert numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n") == committed.read_text()


# ---- what follows ----


def test_optimal_precision_has_the_papers_bits(table, found):
    numbers = FIGURES["optimal_precision"](table, found).numbers
    paper = numbers[numbers["constants"] == "paper"]
    assert cell(paper, kind="joint")["bits"].item() == pytest.approx(7.00, abs=0.005)
    marked = cell(paper, kind="marked").set_index("N")["bits"]
    assert marked.round(1).to_dict() == {8e9: 13.5, 70e9: 10.5, 405e9: 8.2}
    fitted = numbers[numbers["constants"] == "fit"]
    constants = shared.constants(found["kumar_neff_tied"])
    assert cell(fitted, kind="joint")["bits"].item() == pytest.approx(float(optima.best_bits(constants)))
    lines = cell(fitted, kind="fixed N")
    assert set(lines["N"]) == {23_600, 82_900}
    some = lines.iloc[[0, 40, -1]]
    expected = optima.best_bits_at_size_and_tokens(constants, some["N"].to_numpy(), some["D"].to_numpy())
    np.testing.assert_allclose(some["bits"], expected, atol=1e-5)
    assert set(FIGURES["optimal_precision"](table, {"kumar_ptq": found["kumar_ptq"]}).numbers["constants"]) == {"paper"}


def test_inference_optimum_is_the_best_of_a_grid(table, found):
    numbers = FIGURES["inference_optimum"](table, found).numbers
    assert set(numbers["constants"]) == {"paper", "fit"}
    np.testing.assert_allclose(numbers["N"] * numbers["P"], numbers["C"])
    fit = found["kumar_neff_tied"].params | found["kumar_ptq"].params
    table_2 = {
        k: v for k, v in formulas.paper_constants().items() if not k.startswith(("gamma_w", "gamma_a", "gamma_kv"))
    }
    for name, constants in (("fit", fit), ("paper", table_2)):
        best = numbers[numbers["constants"] == name].iloc[20]
        bits, tokens = np.linspace(2, 16, 400), best["D"] * np.geomspace(0.2, 5, 201)[:, None]
        size = best["C"] / bits
        loss = (
            constants["A"] * size ** -constants["alpha"]
            + constants["B"] * tokens ** -constants["alpha"]
            + constants["E"]
        )
        gap = constants["C_T"] * tokens ** constants["gamma_D"] / size ** constants["gamma_N"]
        loss = loss + gap * np.exp(-bits / constants["gamma_post"] + constants.get("b", 0.0))
        assert best["loss"] <= loss.min() < best["loss"] * 1.001
        assert bits[loss.min(axis=0).argmin()] == pytest.approx(best["P"], abs=0.05)
    rising = cell(numbers, constants="paper")
    assert (np.diff(rising["P"]) > 0).all()
    assert np.ptp(np.diff(np.log(rising["N"]))) < 0.02  # a power law in C


def test_inference_optimum_without_a_critical_number_of_tokens(table, found):
    shrinking = dataclasses.replace(found["kumar_ptq"], params=found["kumar_ptq"].params | {"gamma_D": -0.1})
    drawn = FIGURES["inference_optimum"](table, found | {"kumar_ptq": shrinking})
    assert set(drawn.numbers["constants"]) == {"paper"}
    assert inference_optimum.optimum(formulas.paper_constants(), np.array([1e10])).P.shape == (1,)


@pytest.mark.parametrize("name", ["optimal_precision", "inference_optimum"])
def test_the_papers_constants_are_not_a_study(name, table):
    with pytest.raises(InputError, match="no law was fitted to this table"):
        FIGURES[name](table, {})
