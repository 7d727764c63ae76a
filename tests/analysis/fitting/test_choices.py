"""What a user may choose: constants that are held, weights, other objectives, bounds, and the unquantized scheme."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

import analysis
from analysis.errors import InputError
from analysis.fitting import store
from analysis.laws.registry import LAWS

pytestmark = pytest.mark.usefixtures("few_starts")


@pytest.fixture(scope="module")
def losses(tables):
    return tables.simulate(post=(), seeds=3)


# ---- held constants ----


@pytest.mark.parametrize("symbol, value", [("E", 0.7), ("alpha", 0.3), ("A", 50.0), ("B", 1200.0)])
def test_what_is_held_stays_and_the_rest_is_best(symbol, value, losses):
    """Against scipy's least squares over the others."""
    found = analysis.fit("chinchilla", losses, bootstrap=20, hold={symbol: value}, objective="squares")
    assert found.params[symbol] == pytest.approx(value, rel=1e-12)
    names = [s for s in found.params if s != symbol]

    def residuals(values):
        params = dict(zip(names, values, strict=True)) | {symbol: value}
        return np.log(found.law.predict(params, losses)) - np.log(losses["loss"])

    start = [found.params[name] * 1.02 for name in names]
    theirs = least_squares(residuals, start, x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=2000)
    assert found.value == pytest.approx(theirs.cost, rel=1e-7)
    assert found.status == "ok" and not any(found.at_bound.values())
    assert (
        np.isnan(found.interval(symbol)).all() and np.isfinite(found.interval("beta" if symbol == "B" else "B")).all()
    )
    assert found.given == f" given {symbol} = {value:g}"


def test_held_constants_narrow_the_others_and_survive_the_file(losses, tmp_path):
    free, held = (analysis.fit("chinchilla", losses, bootstrap=30, hold=h) for h in ({}, {"E": 0.9}))
    assert np.ptp(held.interval("beta")) < np.ptp(free.interval("beta"))
    path = tmp_path / "fits.json"
    store.write(path, store.Fits(name="t", sha256="", rows=1, fits={"chinchilla": held}))
    again = store.read(path).fits["chinchilla"]
    assert again.options.hold == {"E": 0.9} and again.given == held.given
    assert [p.symbol for p in again.law.ordered if p.fixed] == ["E"]
    assert "hold" not in store.entry(free)["options"]


@pytest.mark.parametrize(
    ("hold", "line"),
    [
        ({"Q": 1.0}, "hold=Q: chinchilla has no such parameter; use one of alpha, beta, A, B, E"),
        ({"alpha": 50.0}, "hold=alpha=50: expected a value from 0.01 to 10"),
        ({"E": float("nan")}, "hold=E=nan: expected a finite number"),
        ({s: 1.0 for s in ("alpha", "beta", "A", "B", "E")}, "hold: all parameters of chinchilla are held"),
    ],
)
def test_what_cannot_be_held_is_one_line(hold, line, losses):
    with pytest.raises(InputError) as fault:
        analysis.fit("chinchilla", losses, hold=hold)
    assert str(fault.value).startswith(line)


def test_an_efficiency_can_be_held(losses):
    frame = losses.assign(scheme=np.where(losses["seed_init"] == 2, "int4", "BF16"))
    found = analysis.fit("quest", frame, bootstrap=0, hold={"eff[int4]": 0.5})
    assert found.params["eff[int4]"] == 0.5


# ---- bounds, weights, objectives ----


def test_bounds_of_a_coefficient_are_bounds_of_it():
    size, tokens = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    frame = pd.DataFrame({"N": size, "D": tokens, "loss": 1.69 + 400 * size**-0.34 + 410 * tokens**-0.28})

    def bounded(low, high):
        parameters = LAWS["chinchilla"].parameters
        changed = (dataclasses.replace(p, lower=low, upper=high) if p.symbol == "A" else p for p in parameters)
        return dataclasses.replace(LAWS["chinchilla"], parameters=tuple(changed))

    assert analysis.fit(bounded(100.0, 1000.0), frame, bootstrap=0).params["A"] == pytest.approx(400, rel=1e-6)
    for low, high, expected in ((500.0, 1000.0, 500), (10.0, 200.0, 200)):
        found = analysis.fit(bounded(low, high), frame, bootstrap=0)
        assert found.params["A"] == pytest.approx(expected, rel=1e-9)
        assert found.at_bound["A"] and found.status == "at_bound"


@pytest.mark.parametrize("law", ["chinchilla", "kumar_ptq"])
def test_a_weight_of_three_is_three_rows(law, tables):
    frame = tables.simulate(seeds=2)
    heavy = frame["N"] == 82_900
    delta = {"huber_delta": 0.004}  # which would else follow from the scatter of rows alike
    weighed = analysis.fit(law, frame.assign(w=np.where(heavy, 3.0, 1.0)), bootstrap=20, weights="w", **delta)
    thrice = analysis.fit(law, pd.concat([frame, frame[heavy], frame[heavy]]), bootstrap=0, **delta)
    rel = 1e-6 if law == "chinchilla" else 5e-3  # the noise of gaps is estimated from the number of rows, too
    assert weighed.params == pytest.approx(thrice.params, rel=rel)
    assert weighed.r2 == pytest.approx(thrice.r2, abs=1e-3) and weighed.rows < thrice.rows
    doubled = analysis.fit(law, frame.assign(w=np.where(heavy, 6.0, 2.0)), bootstrap=20, weights="w", **delta)
    assert doubled.params == weighed.params and doubled.intervals == weighed.intervals
    some = frame.assign(w=np.where(frame["seed_init"] == 1, 0.0, 1.0))
    without = analysis.fit(law, some, bootstrap=0, weights="w", **delta)
    alone = analysis.fit(law, frame[frame["seed_init"] == 0], bootstrap=0, **delta)
    assert without.params == pytest.approx(alone.params, rel=1e-9)
    assert without.left_out["w is zero"] > 0 and weighed.objective.startswith("weighted sum")


@pytest.mark.parametrize(
    "values, line", [([-1.0], "w: row 0 holds -1.0; expected a finite number above"), (None, "w: ")]
)
def test_bad_weights_are_one_line(values, line, losses):
    frame = losses if values is None else losses.assign(w=values * len(losses))
    with pytest.raises(InputError) as fault:
        analysis.fit("chinchilla", frame, weights="w")
    assert str(fault.value).startswith(line)


def test_squares_of_losses_are_least_squares(losses):
    found = analysis.fit("gadre", losses, bootstrap=20, objective="loss_squares")
    names = list(found.params)

    def residuals(values):
        return found.law.predict(dict(zip(names, values, strict=True)), losses) - losses["loss"]

    theirs = least_squares(residuals, list(found.params.values()), x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert found.value == pytest.approx(theirs.cost, rel=1e-9)
    assert found.objective == "sum of squares / 2 of prediction - loss" and found.huber_delta is None
    assert found.value == pytest.approx(0.5 * found.rows * found.rmse**2, rel=1e-9)


# ---- the scheme that is not quantized ----


@pytest.mark.parametrize("name", ["BF16", "baseline", "Bf16", "16", "16-bit", "fp16", "Full_Precision", "W16A16"])
def test_the_unquantized_scheme_is_known_by_its_name(name, losses):
    """Quantized runs are more, and lose: taken for the base they would move A."""
    low = losses.assign(scheme="int4", loss=losses["loss"] + 0.1)
    frame = pd.concat([low, low.assign(loss=low["loss"] * 1.001), losses.assign(scheme=name)])
    found = analysis.fit("quest", frame, bootstrap=0)
    assert found.law.categories == (name, "int4") and found.params["eff[int4]"] < 1
    plain = analysis.fit("chinchilla", frame, bootstrap=0)
    assert plain.rows == len(losses)
    assert plain.left_out[f"trained in another scheme than {name}"] == 2 * len(losses)


def test_an_unclear_scheme_is_asked_for(losses):
    frame = pd.concat([losses.assign(scheme="a"), losses.assign(scheme="b", loss=losses["loss"] + 0.1)])
    with pytest.raises(InputError, match="quest: which scheme is not quantized, of a, b"):
        analysis.fit("quest", frame, bootstrap=0)
    assert analysis.fit("quest", frame, bootstrap=0, base="a").law.categories == ("a", "b")
    assert analysis.fit("quest", frame, bootstrap=0, base="b").params["eff[a]"] > 1
    with pytest.raises(InputError, match="base=c: the table has no such scheme; it has a, b"):
        analysis.fit("quest", frame, bootstrap=0, base="c")
    (said,) = [w for w in analysis.fit("chinchilla", frame, bootstrap=0).warnings if "scheme" in w]
    assert said.startswith("rows differ in scheme (a, b), which chinchilla does not know")
