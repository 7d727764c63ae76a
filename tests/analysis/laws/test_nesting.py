"""No special case fits better than the law that holds it, on tables that none of them made."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.fitting import estimate
from analysis.fitting.estimate import optimum
from analysis.fitting.objective import Problem
from analysis.laws.nesting import SPECIAL_CASES, special_cases
from analysis.laws.registry import LAWS

SCHEMES = ("16", "3", "4", "6")
PAIRS = [(outer, inner) for outer, cases in SPECIAL_CASES.items() for inner in cases]
ROUNDING = 1e-5  # what a special case at a bound, such as C = 20, is off


# The fewer starts, the more often a special case is better than what its law finds by itself.
pytestmark = pytest.mark.usefixtures("few_starts")


@functools.cache
def table(kind):
    """Losses and gaps of 5 sizes, 4 horizons and 4 widths: `planted` in one law, or `odd`: waves and a rise with D."""
    random = np.random.default_rng(3)
    cells = [
        (n, d, p) for n in 1e8 * np.geomspace(1, 20, 5) for d in 2e9 * np.geomspace(1, 40, 4) for p in (3, 4, 6, 16)
    ]
    frame = pd.DataFrame(cells, columns=["N", "D", "P_w"])
    width = frame["P_w"]
    frame["P_a"], frame["P_kv"] = random.choice([4, 6, 8, 16], (2, len(frame)))
    frame["P_post"] = random.choice([1.5, 2.5], len(frame))
    frame["scheme"] = width.astype(str)
    frame["E_w"], frame["M_w"] = width.map({3: 1, 4: 2, 6: 3, 16: 8}), width.map({3: 1, 4: 1, 6: 2, 16: 7})
    frame["group_w"] = random.choice([16, 64], len(frame))
    frame["sigma2_w"] = width.map({3: 0.05, 4: 0.012, 6: 0.001, 16: 0.0})
    frame["sigma2_a"] = frame["P_a"].map({4: 0.012, 6: 0.001, 8: 1e-4, 16: 0.0})
    frame["unique_tokens"] = np.minimum(frame["D"], 1e10)
    size = frame["N"] / 5e8 * (1 - np.exp(-width / 2.0))
    loss = 1.5 + 0.8 * size**-0.35 + 0.6 * (frame["D"] / 2e10) ** -0.4
    if kind == "odd":
        loss = loss * (1 + 0.3 * np.sin(2 * np.log(frame["N"]))) + 0.3 * (frame["D"] / 2e9) ** 0.2
    frame["loss"] = loss * np.exp(0.01 * random.standard_normal(len(frame)))
    gap = 0.1 * (frame["D"] / 2e10) ** 0.4 * size**-0.3 * np.exp(-frame["P_post"] / 0.6)
    frame["gap"] = gap * np.exp(0.1 * random.standard_normal(len(frame)))
    return frame


def problem(name, kind):
    law, frame = LAWS[name], table(kind)
    law = law if law.for_schemes is None else law.with_schemes(SCHEMES)
    y, gap = frame[law.response].to_numpy(float), law.response == "gap"
    sd = np.full(len(y), 0.1 * y.std()) if gap else None
    return Problem(law=law, x=law.inputs(frame), y=y, scale="linear" if gap else "log", sd=sd, delta=np.inf)


@functools.cache
def least(name, kind):
    asked = problem(name, kind)
    return float(optimum(asked, asked.projected_starts(estimate.STARTS)).values.min())


@pytest.mark.parametrize("kind", ["planted", "odd"])
@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_a_special_case_is_never_better(outer, inner, kind):
    assert least(outer, kind) <= least(inner, kind) * (1 + ROUNDING)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_a_special_case_is_the_law_at_those_parameters(outer, inner):
    asked = problem(outer, "planted")
    case, into = {law.name: (law, into) for law, into in special_cases(asked.law)}[inner]
    random = np.random.default_rng(0)
    middle = {p.symbol: p.published or (p.starts[0] if p.starts else 1.0) for p in case.parameters}
    params = {symbol: value * (1 + 0.1 * random.random()) for symbol, value in middle.items()}
    frame = table("planted")
    if "unique_tokens" in asked.law.variables and "unique_tokens" not in case.variables:
        frame = frame.assign(unique_tokens=frame["D"])
    given = into(params)
    assert set(given) == set(asked.law.symbols)
    known = {p.symbol: p for p in asked.law.parameters}
    assert all(known[s].lower <= v <= known[s].upper for s, v in given.items()), given
    np.testing.assert_allclose(asked.law.predict(given, frame), case.predict(params, frame), rtol=2e-3)


def test_what_is_held_is_held_in_special_cases_too():
    law = LAWS["kumar_neff"].hold({"E": 1.2})
    found = {inner.name: inner for inner, _ in special_cases(law)}
    assert {p.lower for inner in found.values() for p in inner.parameters if p.fixed} == {1.2}
    # Without tied exponents nothing is tied.
    assert "chinchilla_tied" not in {inner.name for inner, _ in special_cases(LAWS["chinchilla"].hold({"beta": 0.3}))}


@pytest.mark.parametrize("lost", [("P_w",), ("P_a", "P_kv"), ("P_kv",)])
def test_laws_that_a_table_has_narrowed_have_their_special_cases(lost):
    for name in ("kumar_neff", "kumar_neff_tied", "kumar_unified"):
        law, frame = LAWS[name].without(lost), table("planted")
        for inner, into in special_cases(law):
            params = {p.symbol: p.published or (p.starts or (1.0,))[0] for p in inner.parameters}
            assert set(into(params)) == set(law.symbols)
            assert np.isfinite(inner.predict(params, frame)).all(), (name, inner.name)
        assert ("weights_neff" in {inner.name for inner, _ in special_cases(law)}) <= ("P_w" not in lost)


def test_repeating_may_cost_nothing():
    """R_N and R_D of any size: `muennighoff` is then `muennighoff_tokens`, and that is Chinchilla's law."""
    law, frame = LAWS["muennighoff"], table("planted")
    with np.errstate(all="raise"):
        slopes = law.gradient({**law.published, "R_N": 1e9, "R_D": 1e9}, frame)[1]
    assert np.isfinite(slopes).all()
    wide = dataclasses.replace(problem("muennighoff", "planted"), y=table("planted")["loss"].to_numpy())
    assert wide.box()[1][wide.law.symbols.index("R_N")] >= np.log(1e9)


def test_no_start_is_one_line():
    asked = problem("chinchilla", "planted")
    with pytest.raises(InputError, match="no start gives every row a prediction"):
        optimum(dataclasses.replace(asked, y=np.full_like(asked.y, np.nan)), np.zeros((0, 5)) + 1)
