"""A fit's summary: standard errors against a jackknife written out, held-out errors against refits, residuals."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.errors import InputError
from analysis.fitting import store
from analysis.fitting.summary import summary

SIZES = (23_600, 82_900, 201_000, 378_000)


@pytest.fixture(scope="module")
def losses(tables):
    return tables.simulate(post=(), sizes=SIZES, seeds=2)


@pytest.fixture(scope="module")
def made(losses):
    return analysis.fit("chinchilla", losses, bootstrap=0, objective="squares")


def test_standard_errors_and_correlations_are_those_of_a_jackknife_over_sizes(made, losses):
    found = made.summary()
    without = [
        analysis.fit("chinchilla", losses[losses["N"] != size], bootstrap=0, objective="squares").params
        for size in SIZES
    ]
    values = pd.DataFrame(without)
    values[["A", "B"]] = np.log(values[["A", "B"]])  # nearly normal on that scale
    away = values - values.mean()
    covariance = 3 / 4 * away.T @ away
    se = np.sqrt(np.diag(covariance)) * [made.params[s] if s in "AB" else 1.0 for s in values]
    assert found.units == "each of 4 sizes"
    assert found.parameters["se"].to_numpy() == pytest.approx(se, rel=1e-3)
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.correlations, covariance / np.outer(spread, spread), atol=1e-3)


def test_groups_are_predicted_by_the_others(made, losses):
    found = made.summary().held_out.set_index(["left out", "group"])
    without = analysis.fit("chinchilla", losses[losses["N"] != SIZES[0]], bootstrap=0, objective="squares")
    rows = losses[losses["N"] == SIZES[0]]
    error = without.predict(rows) - rows["loss"]
    own = found.loc[("N", "23600")]
    assert own["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    assert own["bias"] == pytest.approx(error.mean(), rel=1e-3) and own["rows"] == len(rows)
    assert found.loc[("N", "all"), "rmse"] > made.rmse  # they were not fitted
    assert ("clusters", "all") in found.index and ("D", "8e+06") in found.index


def test_residuals_are_what_is_left(made, losses):
    rest = made.summary().residuals
    np.testing.assert_allclose(rest["measured"] - rest["predicted"], rest["residual"], atol=1e-15)
    np.testing.assert_allclose(rest["predicted"], made.predict(losses.loc[rest.index]), rtol=1e-12)
    assert np.sqrt(np.mean(rest["residual"] ** 2)) == pytest.approx(made.rmse)
    assert rest["standardized"].std() == pytest.approx(1, rel=0.2)


def test_held_constants_have_no_error_and_are_said(losses):
    found = analysis.fit("chinchilla", losses, bootstrap=0, hold={"E": 0.9}).summary()
    assert found.parameters.loc["E", "se"] == 0 and "E" not in found.correlations
    assert "standard errors given E = 0.9 leave out each of 4 sizes" in str(found)


def test_the_text_has_no_criteria_that_count_rows(made):
    text = str(made.summary())
    assert "AIC" not in text and "BIC" not in text
    for title in (
        "chinchilla: 32 rows",
        "correlations of the estimates",
        "groups that the others predict",
        "residuals",
    ):
        assert title in text


def test_gaps_in_standard_deviations(tables):
    found = analysis.fit("kumar_ptq", tables.simulate(sizes=SIZES), bootstrap=0).summary()
    assert found.residuals["standardized"].std() == pytest.approx(1, rel=0.3)
    assert set(found.residuals["P_post"]) == {3, 4, 5, 6}


def test_residuals_are_drawn(made, tmp_path):
    figure = made.summary().plot(tmp_path / "residuals.png")
    assert (tmp_path / "residuals.png").stat().st_size > 10_000
    assert [axis.get_xlabel() for axis in figure.axes] == ["predicted", "N", "D", "normal quantile"]
    with pytest.raises(InputError, match="expected a name that ends in"):
        made.summary().plot(tmp_path / "residuals.xyz")


def test_a_fit_from_a_file_needs_its_table(made, losses, tmp_path):
    path = tmp_path / "fits.json"
    store.write(path, store.Fits(name="t", sha256="", rows=32, fits={"chinchilla": made}))
    again = store.read(path).fits["chinchilla"]
    with pytest.raises(InputError, match="was read from a file; expected its table"):
        again.summary()
    pd.testing.assert_frame_equal(again.summary(losses).residuals, made.summary().residuals, rtol=1e-6)
    with pytest.raises(InputError, match="the fit has 32 rows"):
        again.summary(losses.head(20))


def test_one_group_gives_no_error(losses):
    one = losses[losses["N"] == SIZES[0]].assign(cluster="a", run_id="a")
    found = summary(analysis.fit("L = B*D**-beta + E", one, bootstrap=0).fitted)
    assert found.parameters["se"].isna().all()
