"""What follows from the laws: the paper's own numbers, and every optimum against a search by brute force."""

import numpy as np
import pytest
from scipy.optimize import brentq

from analysis.laws import formulas
from analysis.laws.registry import LAWS
from analysis.planning import optima
from analysis.planning.budgets import Budget, best_model, overhead_bits, serving_optimum

PAPER = formulas.paper_constants()
UNTIED = PAPER | {"alpha": 0.34, "beta": 0.41, "A": 400.0, "B": 3000.0}
NO_SHIFTS = {symbol: value for symbol, value in PAPER.items() if not symbol.startswith("n_")}
WIDTHS = np.linspace(3.2, 16, 6401)


def at(P):
    return formulas.effective_share(PAPER, P)


# ---- the paper's numbers ----


def test_effective_parameters_of_the_paper():
    shares = at(np.array([4, 5, 6, 7, 8, 10, 12, 16.0]))
    assert np.round(shares, 3).tolist() == [0.191, 0.427, 0.611, 0.740, 0.828, 0.925, 0.967, 0.994]
    assert float(optima.iso_loss(PAPER, 1.0, 16, 4)) == pytest.approx(0.994 / 0.191, rel=2e-3)  # "more than 4x"
    assert np.round([at({"P_w": p}) / at(16) * 0.994 for p in (3, 5)], 2).tolist() == [0.56, 0.79]


def test_best_bits_of_the_paper():
    assert round(float(optima.best_bits(PAPER)), 2) == 7.00
    assert round(float(optima.best_bits(formulas.averaged(PAPER))), 2) == 7.64
    assert round(float(optima.best_bits(NO_SHIFTS)), 2) == 3.47
    # without shifts and averaged, 3P/gamma = exp(P/gamma) - 1
    assert float(optima.best_bits(formulas.averaged(NO_SHIFTS))) == pytest.approx(1.904 * 1.9475, abs=2e-3)


@pytest.mark.parametrize(
    ("N", "ratios"),
    [(30e6, [177.5, 959, 5.2e3, 2.8e4, 8.2e5]), (220e6, [48, 259, 1.4e3, 7.6e3, 2.2e5]), (8e9, [4.5, 24, 132, 713])],
)
def test_critical_tokens_of_the_paper(N, ratios):
    bits = np.array([3, 4, 5, 6, 8])[: len(ratios)]
    np.testing.assert_allclose(optima.critical_tokens(PAPER, N, bits) / N, ratios, rtol=0.02)
    assert round(float(optima.critical_tokens(PAPER, 30e6, 3) / 30e6), 1) == 177.5


def test_tokens_a_parameter_of_the_paper():
    plain = {symbol: PAPER[symbol] for symbol in ("A", "B", "E", "alpha", "beta")}
    made = optima.optimum_at_bits(plain, np.array([1e18, 1e24]), 16.0)
    np.testing.assert_allclose(made.D / made.N, 18.0, atol=0.05)


@pytest.mark.parametrize(
    ("N", "D", "bits"),
    [
        (405e9, 10e12, 7.7),
        (405e9, 15e12, 8.2),
        (405e9, 100e12, 10.7),
        (70e9, 15e12, 10.5),
        (8e9, 0.1e12, 6.9),
        (8e9, 1e12, 9.8),
        (8e9, 15e12, 13.6),
    ],
)
def test_best_bits_at_the_size_and_tokens_of_llama(N, D, bits):
    found = float(optima.best_bits_at_size_and_tokens(PAPER, N, D))
    assert found == pytest.approx(bits, abs=0.055)
    # such a model is the best of its cost at its size
    again = optima.best_bits_at_size(PAPER, N, formulas.training_cost(N, D, found))
    assert float(again) == pytest.approx(found, abs=1e-4)


def test_predicted_bars_of_figure_6():
    sizes, bits = np.array([1.76e9, 1.17e9, 880e6, 440e6]), np.array([4, 6, 8, 16.0])
    assert np.round(formulas.training_loss(PAPER, sizes, 16e9, bits), 2).tolist() == [3.17, 3.09, 3.09, 3.14]
    assert float(formulas.gap(PAPER, 27.95e6, 937 * 27.95e6, 3)) == pytest.approx(0.603, abs=1e-3)


# ---- laws ----


def test_laws_are_those_that_are_fitted():
    frame = {"N": np.array([1e8, 2e9]), "D": np.array([1e10, 1e11]), "P_post": np.array([3.0, 4.0])}
    frame |= {"P_w": np.array([4.0, 6.0]), "P_a": np.array([5.0, 16.0]), "P_kv": np.array([16.0, 8.0])}
    widths = {part: frame[part] for part in ("P_w", "P_a", "P_kv")}
    known = UNTIED | {"C_w": 0.4, "C_a": 0.7, "C_kv": 1.1, "b": 0.0}
    loss = formulas.training_loss(known, frame["N"], frame["D"], widths)
    np.testing.assert_allclose(loss, LAWS["kumar_neff"].predict(known, frame), rtol=1e-12)
    gap = formulas.gap(known, frame["N"], frame["D"], frame["P_post"], widths)
    np.testing.assert_allclose(gap, LAWS["kumar_unified"].predict(known, frame), rtol=1e-12)
    assert formulas.gap(known, 1e8, 1e10, 4, 4.0) == 0  # training had no more bits than are left
    plain = {symbol: value for symbol, value in known.items() if not symbol.startswith("C_") or symbol == "C_T"}
    gap = formulas.gap(plain, frame["N"], frame["D"], frame["P_post"])
    np.testing.assert_allclose(gap, LAWS["kumar_ptq"].predict(known, frame), rtol=1e-12)


def test_infeasible_is_said_not_clipped():
    edge = float(formulas.infeasible_below(PAPER))
    assert edge == pytest.approx(3.11, abs=5e-4)
    assert np.isnan(at(np.array([1.0, 2.0, 3.0, edge]))).all()  # at 2 bits two negative factors make a positive product
    assert at(edge + 1e-6) > 0
    assert np.isnan(formulas.training_loss(PAPER, 1e9, 1e10, 3.0))
    assert np.isnan(optima.iso_loss(PAPER, 1e9, 16, 3.0))
    assert np.isnan(optima.optimum_at_bits(PAPER, 1e20, 3.0).N)
    assert np.isnan(optima.best_bits(PAPER, high=3.0))
    assert formulas.infeasible_below(NO_SHIFTS) == 0


def test_constants_may_be_arrays():
    many = PAPER | {"gamma_w": np.array([[2.0], [2.6745]])}
    assert at(np.array([4.0, 8.0, 16.0])).shape == (3,)
    shares = formulas.effective_share(many, np.array([4.0, 8.0, 16.0]))
    np.testing.assert_allclose(shares[1], at(np.array([4.0, 8.0, 16.0])))
    flat = PAPER | {"gamma_w": np.array([2.0, 2.6745])}
    bits = optima.best_bits(flat)
    alone = [optima.best_bits(PAPER | {"gamma_w": g}) for g in (2.0, 2.6745)]
    np.testing.assert_allclose(bits, alone, atol=1e-6)
    np.testing.assert_allclose(formulas.infeasible_below(flat), 3.11, atol=1e-3)
    assert optima.optimum(flat, np.array([[1e19], [1e21]])).N.shape == (2, 2)


# ---- optima by brute force ----


@pytest.mark.parametrize("constants", [PAPER, UNTIED])
@pytest.mark.parametrize("bits", [3.0, 4.5, 6.0])
def test_critical_tokens(constants, bits):
    N, D = 3e7, np.geomspace(1e6, 1e16, 200001)
    total = formulas.training_loss(constants, N, D) + formulas.gap(constants, N, D, bits)
    assert float(optima.critical_tokens(constants, N, bits)) == pytest.approx(D[total.argmin()], rel=2e-4)


def test_critical_tokens_without_harm():
    flat = PAPER | {"gamma_D": np.array([0.0, -0.1])}
    assert np.isposinf(optima.critical_tokens(flat, 1e9, 3)).all()
    assert np.isposinf(optima.critical_tokens(PAPER | {"C_T": 0.0}, 1e9, 3))


@pytest.mark.parametrize("constants", [PAPER, UNTIED])
def test_best_bits_jointly_at_fixed_tokens_and_at_fixed_memory(constants):
    best, C = float(optima.best_bits(constants)), 1e21
    share = formulas.effective_share(constants, WIDTHS)
    elasticity = np.gradient(np.log(share), np.log(WIDTHS))
    assert np.interp(best, WIDTHS, elasticity) == pytest.approx(1, abs=1e-3)
    N = np.geomspace(1e8, 1e11, 3001)[:, None]
    joint = formulas.training_loss(constants, N, optima.tokens_for(C, N, WIDTHS[::8]), WIDTHS[::8])
    i, j = np.unravel_index(joint.argmin(), joint.shape)
    made = optima.optimum(constants, C)
    assert best == pytest.approx(WIDTHS[::8][j], abs=0.02)
    assert float(made.N) == pytest.approx(N[i, 0], rel=0.02)
    assert float(made.loss) <= joint.min() + 1e-12
    D = 1e11
    fixed_tokens = formulas.training_loss(constants, optima.tokens_for(C, D, WIDTHS), D, WIDTHS)
    fixed_memory = formulas.training_loss(constants, 8e9 / WIDTHS, D, WIDTHS)
    for losses in (fixed_tokens, fixed_memory):
        assert best == pytest.approx(WIDTHS[losses.argmin()], abs=0.004)


@pytest.mark.parametrize("constants", [PAPER, UNTIED])
@pytest.mark.parametrize("C", [1e17, 1e20, 1e23])
def test_best_bits_at_size(constants, C):
    N = 1e9
    losses = formulas.training_loss(constants, N, optima.tokens_for(C, N, WIDTHS), WIDTHS)
    assert float(optima.best_bits_at_size(constants, N, C)) == pytest.approx(WIDTHS[losses.argmin()], abs=0.005)


def test_best_bits_at_size_rise_like_the_log_of_cost():
    C = np.geomspace(1e28, 1e34, 6)
    weights = {symbol: value for symbol, value in PAPER.items() if symbol not in ("gamma_a", "gamma_kv")}
    bits = optima.best_bits_at_size(weights, 1e9, C, high=100.0)
    slope, gamma, beta = np.diff(bits) / np.diff(np.log(C)), PAPER["gamma_w"], PAPER["beta"]
    np.testing.assert_allclose(slope, beta * gamma, rtol=0.06)
    middle = (bits[1:] + bits[:-1]) / 2  # with the next term, P* = gamma (beta ln C + (1 - beta) ln P*)
    np.testing.assert_allclose(slope, beta * gamma / (1 - gamma * (1 - beta) / middle), rtol=2e-3)


@pytest.mark.parametrize("constants", [PAPER, UNTIED])
@pytest.mark.parametrize("bits", [4.0, 8.0, 16.0])
def test_size_and_tokens_at_bits(constants, bits):
    C, N = 3e20, np.geomspace(1e7, 1e12, 200001)
    losses = formulas.training_loss(constants, N, optima.tokens_for(C, N, bits), bits)
    made = optima.optimum_at_bits(constants, C, bits)
    assert float(made.N) == pytest.approx(N[losses.argmin()], rel=1e-3)
    assert float(made.loss) == pytest.approx(losses.min(), rel=1e-10)
    assert float(formulas.training_cost(made.N, made.D, bits)) == pytest.approx(C)  # the printed D* of Eq. 6 does not


def test_best_bits_do_not_depend_on_cost_and_sizes_are_powers_of_it():
    C = np.array([1e18, 1e20, 1e22])
    made = optima.optimum(UNTIED, C)
    assert np.ptp(made.P) == 0
    a, b = UNTIED["alpha"], UNTIED["beta"]
    np.testing.assert_allclose(np.diff(np.log(made.N)) / np.log(100), b / (a + b), rtol=1e-9)
    np.testing.assert_allclose(np.diff(np.log(made.D)) / np.log(100), a / (a + b), rtol=1e-9)


def test_fewer_bits_want_more_tokens_down_to_the_best_and_fewer_below():
    """What Eq. 6 says once corrected: D* rises as P falls from 16 to P*, and falls below it; N* always rises."""
    best = float(optima.best_bits(PAPER))
    made = optima.optimum_at_bits(PAPER, 1e21, np.array([16.0, 10.0, best, 5.0, 4.0]))
    assert (np.diff(made.N) > 0).all()
    assert np.sign(np.diff(made.D)).tolist() == [1, 1, -1, -1]


def test_iso_loss():
    N = optima.iso_loss(UNTIED, 1e8, {"P_w": 6.0}, np.array([5.0, 9.0]))
    losses = formulas.training_loss(UNTIED, N, 1e10, np.array([5.0, 9.0]))
    np.testing.assert_allclose(losses, formulas.training_loss(UNTIED, 1e8, 1e10, {"P_w": 6.0}), rtol=1e-12)


def test_search_finds_the_lowest_of_several_minima_and_of_the_ends():
    shift = np.array([0.0, 1.0, 2.0])
    found = optima.lowest(lambda x: np.sin(3 * x + shift) + 0.01 * x, -5.0, 5.0, scan=True)
    x = np.linspace(-5, 5, 400001)[:, None]
    np.testing.assert_allclose(found, x[(np.sin(3 * x + shift) + 0.01 * x).argmin(axis=0), 0], atol=5e-5)
    assert optima.lowest(lambda x: x, 2.0, np.array([3.0, 4.0])).tolist() == [2, 2]
    assert optima.lowest(lambda x: -x, 2.0, 3.0) == 3
    assert np.isnan(optima.lowest(lambda x: x * np.nan, 2.0, 3.0))


# ---- budgets ----


def random_case(seed):
    draw = np.random.default_rng(seed)
    known = {
        "A": draw.uniform(50, 3000),
        "B": draw.uniform(100, 20000),
        "E": draw.uniform(0, 3),
        "alpha": draw.uniform(0.2, 0.5),
        "beta": draw.uniform(0.2, 0.5),
        "C_T": 10 ** draw.uniform(-2, 0),
        "gamma_D": draw.uniform(0.05, 0.9),
        "gamma_N": draw.uniform(-0.1, 0.6),
        "gamma_post": draw.uniform(0.4, 1.0),
    }
    flops = 10 ** draw.uniform(18, 23)
    budget = Budget(
        flops=flops if draw.random() < 0.7 else np.inf,
        tokens=10 ** draw.uniform(9, 12),
        bytes=10 ** draw.uniform(8, 10),
        serve_tokens=draw.choice([0.0, 10 ** draw.uniform(9, 12)]),
        fixed_bytes=draw.choice([0.0, 3e7]),
    )
    return known, budget, float(draw.integers(2, 9)), draw.choice([0.0, 0.25])


@pytest.mark.parametrize("seed", range(12))
def test_best_model_against_a_grid(seed):
    known, budget, bits, overhead = random_case(seed)
    N, D = np.geomspace(1e4, 1e12, 801)[:, None], np.geomspace(1e4, 1e14, 1001)
    for P_post, served in ((bits, bits), (None, 16.0)):
        made = best_model(known, budget, P_post=P_post, overhead=overhead)
        loss = formulas.training_loss(known, N, D)
        loss = loss + (0 if P_post is None else formulas.gap(known, N, D, P_post))
        cost = 6 * N * D + 2 * N * budget.serve_tokens * served / 16
        fits = (cost <= budget.flops) & (budget.tokens >= D)
        fits &= N * (served + overhead) / 8 + budget.fixed_bytes <= budget.bytes
        grid = loss[fits].min()
        assert made.loss <= grid + 1e-9
        assert made.loss >= grid - 0.03 * (grid - known["E"])
        n, d, near = float(made.N), float(made.D), 1 + 1e-9
        assert d <= budget.tokens * near and budget.cost(n, d, served=served) <= budget.flops * near
        assert budget.size(n, served=served, overhead=overhead) <= budget.bytes * near
        added = 0 if P_post is None else formulas.gap(known, n, d, P_post)
        assert float(made.loss) == pytest.approx(float(formulas.training_loss(known, n, d) + added))


def test_best_model_without_other_limits_is_the_closed_form():
    made = best_model(UNTIED, Budget(flops=1e21), P=np.array([5.0, 8.0, 16.0]))
    closed = optima.optimum_at_bits(UNTIED, 1e21, np.array([5.0, 8.0, 16.0]))
    np.testing.assert_allclose(made.N, closed.N, rtol=1e-5)
    np.testing.assert_allclose(made.loss, closed.loss, rtol=1e-12)
    assert np.isnan(best_model(PAPER, Budget(flops=1e21), P=3.0).loss)
    assert np.isnan(best_model(PAPER, Budget(flops=1.0)).N)
    assert np.isnan(best_model(PAPER, Budget(bytes=10, fixed_bytes=11, tokens=1e9)).N)
    with pytest.raises(ValueError, match="N has no ceiling"):
        best_model(PAPER, Budget(tokens=1e9))


def test_serving_optimum():
    """Eq. 29 and Fig. 9: against a grid in P and D, and P* like ln C."""
    bits, D = np.linspace(3, 12, 901)[:, None], np.geomspace(1e9, 1e16, 2801)
    for cost in (1e9, 1e11):
        losses = formulas.training_loss(PAPER, cost / bits, D) + formulas.gap(PAPER, cost / bits, D, bits)
        i, j = np.unravel_index(losses.argmin(), losses.shape)
        made = serving_optimum(PAPER, cost=cost)
        assert float(made.P) == pytest.approx(bits[i, 0], abs=0.03)
        assert float(made.D) == pytest.approx(D[j], rel=0.05)
        assert made.loss <= losses.min() + 1e-12
    rise = np.diff([float(serving_optimum(PAPER, cost=c).P) for c in (1e9, 1e10, 1e11, 1e12)])
    np.testing.assert_allclose(rise, rise.mean(), rtol=0.03)


def test_serving_optimum_with_a_budget():
    flops, served = 1e21, 1e12
    bits, N = np.linspace(3, 12, 181)[:, None, None], np.geomspace(2e8, 4e9, 101)[:, None]
    D = np.geomspace(1e10, 1e12, 201)
    losses = formulas.training_loss(PAPER, N, D) + formulas.gap(PAPER, N, D, bits)
    losses = np.where(6 * N * D + 2 * N * served * bits / 16 <= flops, losses, np.inf)
    made = serving_optimum(PAPER, flops=flops, serve_tokens=served)
    i, j, _ = np.unravel_index(losses.argmin(), losses.shape)
    assert losses.min() - 1e-3 < made.loss <= losses.min() + 1e-12
    assert float(made.P) == pytest.approx(bits[i, 0, 0], abs=0.3)
    assert float(made.N) == pytest.approx(N[j, 0], rel=0.15)
    both = serving_optimum(PAPER, cost=float(made.N * made.P), flops=flops, serve_tokens=served)
    assert float(both.loss) == pytest.approx(float(made.loss), rel=1e-9)
    capped = serving_optimum(PAPER, cost=1e10, flops=1e21)
    assert float(6 * capped.N * capped.D) <= 1e21 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "group", "bits"),
    [
        ("int4", None, 0),
        ("int4", 128, 0.125),
        ("mxfp4", None, 0.25),
        ("nvfp4", 32, 0.5),
        ("bf16", 32, 0),
        ("16", 32, 0),
    ],
)
def test_overhead_of_scales(name, group, bits):
    assert overhead_bits(name, group=group) == bits


def test_slope_of_the_best_bits_at_tokens():
    """The first-order condition itself, solved by another method."""

    def condition(P, N=8e9, D=1e12):
        parts = ((PAPER[g], PAPER[n]) for g, n in (("gamma_w", "n_w"), ("gamma_a", "n_a"), ("gamma_kv", "n_kv")))
        elasticity = sum(P / g / np.expm1(P / g - n) for g, n in parts)
        a, b = PAPER["alpha"], PAPER["beta"]
        return a * PAPER["A"] * (N * at(P)) ** -a * elasticity - b * PAPER["B"] * D**-b

    expected = brentq(condition, 3.3, 16)
    assert float(optima.best_bits_at_size_and_tokens(PAPER, 8e9, 1e12)) == pytest.approx(expected, abs=1e-5)
