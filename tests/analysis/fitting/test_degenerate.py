"""Tables that do not determine the parameters of a law: a status and no interval, or one line; never a
number to be believed."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.diagnostics.profile import profile
from analysis.errors import InputError


def losses(size, tokens, noise=0.003, seed=0):
    """Of Chinchilla's constants."""
    loss = 1.69 + 406.4 * size**-0.34 + 410.7 * tokens**-0.28
    return loss * np.exp(noise * np.random.default_rng(seed).standard_normal(np.shape(loss)))


def frame(size, tokens, **options):
    return pd.DataFrame({"N": size, "D": tokens, "loss": losses(size, tokens, **options)})


SIZES = np.geomspace(1e7, 1e10, 15)
GRID = [v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 6))]


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("power", [1.0, 1.3, 0.5])
def test_tokens_that_are_a_power_of_parameters_tell_no_exponent(power, noise):
    """Both terms are then powers of N, and either could be the one of N."""
    found = analysis.fit("chinchilla", frame(SIZES, 20 * SIZES**power, noise=noise), bootstrap=20)
    assert found.status == "unidentified"
    assert np.isnan([found.interval(symbol) for symbol in found.params]).all()
    assert "in all rows: rows do not separate the term of N from that of D" in found.warnings[0]
    assert ("D/N is 20" in found.warnings[0]) == (power == 1)


def test_one_budget_of_compute_is_no_such_line():
    found = analysis.fit("chinchilla", frame(SIZES, 1e21 / SIZES), bootstrap=20)
    assert found.status != "unidentified" and np.isfinite(found.interval("alpha")).all()


@pytest.mark.parametrize("law", ["chinchilla_tied", "gadre"])
def test_of_one_ratio_the_shared_exponent_is_told_and_the_split_is_not(law):
    found = analysis.fit(law, frame(SIZES, 20 * SIZES), bootstrap=20)
    exponent, *split = found.params if law == "gadre" else ("alpha", "A", "B")
    assert found.status == "unidentified"
    assert np.isfinite(found.interval(exponent)).all()
    assert np.isnan([found.interval(symbol) for symbol in split[:2]]).all()


def test_losses_that_are_all_one_are_one_line():
    table = pd.DataFrame({"N": GRID[0], "D": GRID[1], "loss": 3.0})
    for law in ("chinchilla", "chinchilla_tied", "gadre", "compute"):
        with pytest.raises(InputError, match=f"{law}: loss is 3 in all rows; it determines no law"):
            analysis.fit(law, table)
    with pytest.raises(InputError, match="gap is 0 in all rows"):
        analysis.fit("kumar_ptq", table.assign(P_post=[3.0, 4.0, 5.0] * 12, gap=0.0))


@pytest.mark.parametrize(("lost", "kept", "front"), [("alpha", "beta", "A"), ("beta", "alpha", "B")])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_what_losses_do_not_depend_on_has_no_exponent(lost, kept, front, noise):
    on = GRID[1] if lost == "alpha" else GRID[0]
    loss = (1.7 + 400 * on**-0.3) * np.exp(noise * np.random.default_rng(1).standard_normal(36))
    found = analysis.fit("chinchilla", pd.DataFrame({"N": GRID[0], "D": GRID[1], "loss": loss}), bootstrap=20)
    assert found.params[kept] == pytest.approx(0.3, abs=0.02)
    if found.params[front] == 0:
        assert found.status == "unidentified" and np.isnan(found.interval(lost)).all()
        assert found.interval(front)[0] == 0
    else:  # the noise gives it something to describe
        assert found.params[front] > 0 and noise


def test_an_interval_of_the_irreducible_loss_stays_below_the_losses():
    """Over few octaves of N and D the refits of a jackknife let E be anything."""
    size, tokens = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 4e8, 4), np.geomspace(2e9, 8e9, 3)))
    table = frame(size, tokens, noise=0.01, seed=1)
    found = analysis.fit("chinchilla", table, bootstrap=20)
    low, high = found.interval("E")
    assert low <= found.params["E"] <= high <= max(table["loss"].min(), found.params["E"])
    assert high == pytest.approx(table["loss"].min())  # what refits alone would make larger


def test_a_profile_of_nothing_is_no_fault():
    table = pd.DataFrame({"N": GRID[0], "D": GRID[1], "loss": 1.7 + 400 * GRID[1] ** -0.3})
    for symbol in ("alpha", "A", "E"):
        made = profile("chinchilla", table, symbol)
        assert made.symbol == symbol and made.rows == 36


def test_order_of_rows_does_not_move_intervals(tables):
    whole = tables.simulate(seeds=3)
    for law, columns in (("kumar_ptq", list(whole)), ("chinchilla", ["N", "D", "loss"])):
        rows = whole if law == "kumar_ptq" else whole[whole["ptq"].isna()]
        found = [
            analysis.fit(law, rows[columns].sample(frac=1, random_state=seed), bootstrap=30) for seed in (0, 1, None)
        ]
        assert found[0].params == found[1].params == found[2].params
        assert found[0].intervals == found[1].intervals == found[2].intervals
        np.testing.assert_array_equal(found[0].draws, found[1].draws)
