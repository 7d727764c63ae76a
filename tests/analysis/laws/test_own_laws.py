"""Laws given as equations: the same as the built-in ones, differentiated rightly, and refused in one line."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.errors import InputError
from analysis.fitting import store
from analysis.laws.equations import law
from analysis.laws.registry import LAWS


def test_chinchilla_written_out_is_chinchilla(tables):
    frame = tables.simulate(post=())
    own = analysis.fit("L = A * N**-alpha + B / D^beta + E", frame, bootstrap=30)
    theirs = analysis.fit("chinchilla", frame, bootstrap=30)
    assert own.value == pytest.approx(theirs.value, rel=1e-9)
    assert own.params == pytest.approx(theirs.params, rel=1e-4)
    assert own.interval("E") == pytest.approx(theirs.interval("E"), abs=0.02)
    assert own.law.response == "loss" and own.law.variables == ("N", "D")


def test_a_gap_law_written_out_finds_what_was_planted(tables):
    own = "gap = C_T * D**gamma_D / N**gamma_N * exp(-P_post / gamma_post)"
    found = analysis.fit(own, tables.simulate(noise=0), bootstrap=0)
    assert found.params == pytest.approx(tables.GAP, rel=1e-5) and found.law.response == "gap"


EQUATIONS = [
    "(A*(N/1e8)**-alpha + B*(D/1e9)**-beta)**gamma + E",
    "A*N**-alpha*(1 + c*exp(-P_w/g)) + E",
    "A*tanh(k*(N/1e6)**a)**-b + B*sqrt(1 + (D/u)**-v) + log(2 + w*D**-.1)",
    "A*(N*(1 - exp(-P_w/g)))**-alpha + B*D**-beta + log2(1 + h)",
    "E + A*2**-(a*log(N*D))/(1 + q)",
]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_slopes_match_finite_differences(equation):
    made = law(equation)
    frame = {"N": np.array([1e7, 1e8, 3e9]), "D": np.array([1e9, 2e10, 3e9]), "P_w": np.array([3.0, 4.0, 16.0])}
    params = {p.symbol: 0.37 if p.lower < p.upper else 1.0 for p in made.parameters}
    value, slopes = made.gradient(params, frame)
    assert np.isfinite(value).all()
    for j, p in enumerate(made.ordered):
        centre, step = float(p.forward(params[p.symbol])), 1e-6
        ends = [made.predict(params | {p.symbol: float(p.backward(centre + s * step))}, frame) for s in (-1, 1)]
        np.testing.assert_allclose(
            slopes[:, j], (ends[1] - ends[0]) / (2 * step), rtol=1e-5, atol=1e-9, err_msg=p.symbol
        )
    known = {**{k: v[1] for k, v in frame.items()}, **params}
    functions = {"exp": np.exp, "tanh": np.tanh, "sqrt": np.sqrt, "log": np.log, "log2": np.log2}
    assert value[1] == pytest.approx(eval(equation, functions, known), rel=1e-12)  # a text of this file


def test_which_parameters_are_coefficients():
    made = law("L = A*N**-alpha + A2*B*D**-beta + (c*C**-k)**g + E", bounds={"beta": (-1, 2)}, units={"E": "bits"})
    assert {p.symbol for p in made.linear} == {"A", "A2", "one", "E"}
    by_name = {p.symbol: p for p in made.parameters}
    assert by_name["beta"].transform == "identity" and by_name["alpha"].transform == "log"
    assert by_name["one"].fixed and by_name["E"].unit == "bits"
    assert made.variables == ("N", "D", "C")


def test_columns_of_ones_own_are_variables(tables):
    frame = tables.simulate(post=(), noise=0)
    frame["depth"] = np.where(frame["N"] > 1e5, 12.0, 6.0) * (1 + frame["seed_init"])
    frame["loss"] = 3 * frame["depth"] ** -0.5 + 1
    made = analysis.law("L = a*depth**-b + E", variables=["depth"])
    found = analysis.fit(made, frame, bootstrap=0)
    assert found.params == pytest.approx({"a": 3, "b": 0.5, "E": 1}, rel=1e-5)


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_law_of_ones_own_survives_the_file(name, tables, tmp_path):
    frame = tables.simulate(post=())
    made = analysis.fit(law("L = A*N**-alpha + B*D**-beta + E", name=name), frame, bootstrap=20)
    path = tmp_path / "fits.json"
    store.write(path, store.Fits(name="t", sha256="", rows=1, fits={made.law.name: made}))
    (again,) = store.read(path).fits.values()
    assert again.law.name == made.law.name == (name or "L=A*N**-alpha+B*D**-beta+E")
    np.testing.assert_allclose(again.predict(frame), made.predict(frame), rtol=1e-6)


@pytest.mark.parametrize(
    ("equation", "options", "line"),
    [
        ("L = A*N**", {}, "L = A*N**: cannot be read"),
        ("L = A*N**-alpha - E", {}, "L = A*N**-alpha - E: terms have to be added"),
        ("L = A*N.real", {}, "L = A*N.real: N.real is not part of an equation"),
        ("L = __import__('os')*N", {}, "L = __import__('os')*N: __import__('os') is not part"),
        ("L = A*sin(N)", {}, "L = A*sin(N): sin(N) is not part of an equation, which has names"),
        ("L = 3*N**-0.5", {}, "L = 3*N**-0.5: has no parameter"),
        ("L = a*b + E", {}, "L = a*b + E: has no column"),
        ("Q = A*N**-a", {}, "Q = A*N**-a: Q is nothing that laws are of"),
        ("L = A*N**-a", {"bounds": {"q": (0, 1)}}, "bounds=q: no parameter of"),
        ("L = A*N**-a", {"bounds": {"a": (2, 1)}}, "bounds=a: 2 to 1; expected two finite numbers"),
        ("L = A*N**-a", {"starts": {"a": 1e9}}, "starts=a: 1e+09; expected 0.0001 to 10000"),
    ],
)
def test_what_is_no_law_is_one_line(equation, options, line):
    with pytest.raises(InputError) as fault:
        law(equation, **options)
    assert str(fault.value).startswith(line) and "\n" not in str(fault.value)


def test_a_row_without_a_value_is_refused():
    frame = pd.DataFrame({"N": [1e6, 2e6, 4e6, 8e6], "D": [1e6, 2e6, 3e6, 4e6], "loss": [4.0, 3.0, 2.5, 2.0]})
    with pytest.raises(InputError, match="no start gives every row a prediction"):
        analysis.fit("A*log(D/1e9) + E", frame, bootstrap=0)
    found = analysis.fit("A/N + B/D + E", frame.assign(loss=1 + 2e6 / frame["N"] + 1e5 / frame["D"]), bootstrap=0)
    assert found.params == pytest.approx({"A": 2e6, "B": 1e5, "E": 1})


def test_names_are_names_and_equations_equations():
    with pytest.raises(InputError, match="chinchila: no such law; did you mean chinchilla"):
        analysis.fit("chinchila", pd.DataFrame({"N": [1.0]}))
    assert not any(c in name for name in LAWS for c in "*+=/ (")
