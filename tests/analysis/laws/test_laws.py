"""Laws: slopes against finite differences, published constants against the numbers that follow from them."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import analysis
from analysis.errors import InputError
from analysis.laws.kumar import PARTS, TABLE_2, capacity
from analysis.laws.registry import LAWS, named

FRAME = {
    "N": np.array([2.4e4, 8e4, 6e5]),
    "D": np.array([1e6, 8e6, 3e7]),
    "P_w": np.array([3.0, 6.0, 16.0]),
    "P_a": np.array([4.0, 5.0, 16.0]),
    "P_kv": np.array([3.0, 4.0, 8.0]),
    "P_post": np.array([2.0, 3.0, 6.0]),
    "E_w": np.array([2.0, 4.0, 8.0]),
    "M_w": np.array([1.0, 3.0, 7.0]),
    "group_w": np.array([16.0, 32.0, 96.0]),
    "group_a": np.array([16.0, 32.0, 96.0]),
    "sigma2_w": np.array([0.05, 0.01, 0.0]),
    "sigma2_a": np.array([0.02, 0.003, 1e-5]),
    "sigma2_post": np.array([0.06, 0.01, 5e-4]),
    "unique_tokens": np.array([1e6, 1e6, 4e7]),
    "scheme": np.array(["4", "16", "2WO"]),
}


def law_and_point(name):
    """A law and constants of it: published ones, or the first start."""
    law = LAWS[name]
    if name == "quartet":
        law = law.for_schemes(("16", "4", "2WO"))
    known = {p.symbol: p.published if p.published is not None else (p.starts or (3.0,))[0] for p in law.parameters}
    return law, known


@pytest.mark.parametrize("name", LAWS)
def test_slopes_match_finite_differences(name):
    law, known = law_and_point(name)
    value, slopes = law.gradient(known, FRAME)
    np.testing.assert_array_equal(value, law.predict(known, FRAME))
    assert np.isfinite(value).all()
    for j, p in enumerate(law.ordered):
        centre = float(p.forward(known[p.symbol]))
        step = 1e-6 * max(1.0, abs(centre))
        ends = [law.predict(known | {p.symbol: float(p.backward(centre + s * step))}, FRAME) for s in (-1, 1)]
        expected = (ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(slopes[:, j], expected, rtol=2e-5, atol=1e-9, err_msg=p.symbol)


def tied_share(bits):
    """N_eff / N with all three parts at the same width, with the published constants."""
    return float(np.prod([capacity(bits, TABLE_2[gamma], TABLE_2[shift]) for gamma, shift in PARTS.values()]))


def test_published_constants_give_the_papers_bits():
    assert [round(tied_share(b), 3) for b in (4, 5, 6, 8, 16)] == [0.191, 0.427, 0.611, 0.828, 0.994]
    best = minimize_scalar(lambda p: -tied_share(p) / p, bounds=(4, 16), method="bounded")
    assert round(best.x, 2) == 7.00


def test_published_gap_has_the_shift():
    """INT3 at N = 27.95M and D/N = 937: 0.603 nats with the shift, 0.195 without."""
    law = LAWS["kumar_ptq"]
    size = 27.95e6
    gap = law.predict(law.published, {"N": [size], "D": [937 * size], "P_post": [3]})
    assert gap[0] == pytest.approx(0.603, abs=0.002)
    assert law.published["C_T"] == pytest.approx(0.1847, abs=1e-4)


def test_published_loss_and_tokens_per_parameter():
    law = LAWS["chinchilla_tied"]
    assert law.predict(law.published, {"N": [30e6], "D": [1.5e9]})[0] == pytest.approx(4.10, abs=0.015)
    known = law.published
    assert (known["B"] / known["A"]) ** (1 / known["alpha"]) == pytest.approx(18.0, abs=0.05)


def test_no_effective_parameters_is_not_a_number():
    """The activations' factor is zero at gamma * n = 3.11 bits."""
    law = LAWS["kumar_neff"]
    frame = {"N": [1e8] * 3, "D": [1e9] * 3, "P_w": [16] * 3, "P_a": [3.0, 3.11, 3.2], "P_kv": [16] * 3}
    assert np.isnan(law.predict(law.published, frame)).tolist() == [True, True, False]


def test_law_without_a_part_takes_its_factor_as_one():
    law = LAWS["kumar_neff"].without({"P_a", "P_kv"})
    assert set(law.symbols) == {"A", "B", "E", "alpha", "beta", "gamma_w", "n_w"}
    known = law.published
    effective = 1e8 * capacity(4.0, known["gamma_w"], known["n_w"])
    expected = known["A"] * effective ** -known["alpha"] + known["B"] * 1e9 ** -known["beta"] + known["E"]
    got = law.predict(known, {"N": [1e8], "D": [1e9], "P_w": [4.0]})
    assert got[0] == pytest.approx(expected, rel=1e-12)


def test_unknown_law_is_one_line():
    with pytest.raises(InputError, match="chinchila: no such law; did you mean chinchilla") as fault:
        named("chinchila")
    assert "\n" not in str(fault.value)


# ---- repeated tokens and excess parameters ----


@pytest.mark.parametrize(("size", "tokens", "expected"), [(6.34e9, 242e9, 2.225644089), (8.67e9, 178e9, 2.226963408)])
def test_published_losses_with_repeated_tokens(size, tokens, expected):
    """Two models of 25 billion unique tokens, as the authors' own code prints them."""
    law = LAWS["muennighoff"]
    frame = {"N": [size], "D": [tokens], "unique_tokens": [25e9]}
    assert law.predict(law.published, frame)[0] == pytest.approx(expected, rel=1e-9)


def test_excess_parameters_are_worth_little_and_in_the_end_nothing():
    law, known = LAWS["muennighoff"], LAWS["muennighoff_tokens"].published
    a, b, e, power = (known[s] for s in ("A", "B", "E", "alpha"))  # alpha = beta
    best = 1e9 * (a / b) ** (1 / power)  # U_N of a billion tokens: spending on N and on D pays alike
    assert a * best**-power == pytest.approx(b * 1e9**-power)
    r = law.published["R_N"]

    def loss(size):
        return law.predict(law.published, {"N": [size], "D": [1e9], "unique_tokens": [1e9]})[0]

    def with_worth(size):
        return a * size**-power + b * 1e9**-power + e

    assert loss(0.9 * best) == pytest.approx(with_worth(0.9 * best), rel=1e-12)
    assert loss(4 * best) == pytest.approx(with_worth(best * (1 + r * (1 - math.exp(-3 / r)))), rel=1e-12)
    assert loss(1e6 * best) == pytest.approx(with_worth(best * (1 + r)), rel=1e-12)
    steps = [(loss(best * (1 + 1e-5 * s)) - loss(best)) / s for s in (-1, 1)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)  # no kink at U_N


def test_planted_repetition_is_found():
    law, frame = (
        LAWS["muennighoff"],
        _crossed({"N": (1e7, 1e8, 1e9, 8e9), "D": (1e9, 8e9, 6e10), "U": (2e8, 1e9, 6e10)}),
    )
    frame = frame.assign(unique_tokens=np.minimum(frame.pop("U"), frame["D"]))
    frame = frame.assign(loss=law.predict(law.published, frame))
    found = analysis.fit(law, frame, bootstrap=0)
    assert found.params == pytest.approx(law.published, rel=1e-3)
    tokens_alone = analysis.fit("muennighoff_tokens", frame, bootstrap=0)
    assert tokens_alone.value > 1e4 * found.value


# ---- weights in float formats ----


def test_published_floating_point():
    """f(4) = 1 - exp(-4/2.8111 + 0.1240) = 0.7272, against 0.6964 for integers."""
    law = LAWS["kumar_floating_point"]
    frame = {"N": [1e8] * 2, "D": [1e10] * 2, "P_w": [4, 100], "M_w": [1, 90]}
    loss = law.predict(law.published, frame)
    rest = 1.806e4 * 1e10**-0.4965 + 2.7648
    assert ((loss[0] - rest) / (loss[1] - rest)) ** (-1 / 0.4965) == pytest.approx(0.7272, abs=5e-5)
    assert capacity(4.0, TABLE_2["gamma_w"], TABLE_2["n_w"]) == pytest.approx(0.6964, abs=5e-5)


def test_planted_floats_are_found_beside_integers():
    law, floats = LAWS["kumar_floating_point"], {"e2m0": 3, "e2m1": 4, "e3m2": 6, "e4m3": 8, "bf16": 16}
    frame = _crossed({"N": (3e7, 1e8, 3e8), "D": (1e9, 8e9), "format_w": tuple(floats)})
    frame["P_w"] = frame["format_w"].map(floats)
    planted = law.published | {"gamma_w": 2.1, "n_w": 0.4}
    frame["loss"] = law.predict(planted, frame)
    integers = frame[frame["P_w"] == 4].assign(format_w="int4", loss=9.0)
    found = analysis.fit(law, pd.concat([frame, integers], ignore_index=True), bootstrap=0)
    assert found.left_out == {"weights in no float format": 6}
    assert found.params == pytest.approx(planted, rel=1e-4)


def _crossed(columns):
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)
