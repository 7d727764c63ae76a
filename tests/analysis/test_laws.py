"""Laws: slopes against finite differences, published constants against the numbers that follow from them."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from analysis.errors import InputError
from analysis.laws import LAWS, named
from analysis.laws.kumar import PARTS, TABLE_2, capacity

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
    with pytest.raises(InputError, match="chinchila: no such law; use one of chinchilla, ") as fault:
        named("chinchila")
    assert "\n" not in str(fault.value)
