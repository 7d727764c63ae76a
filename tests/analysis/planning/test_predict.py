"""Predictions: the paper's numbers from its constants, sums with intervals from fits, and which law answers."""

import dataclasses

import numpy as np
import pytest

import analysis
from analysis.errors import InputError
from analysis.fitting.store import published
from analysis.laws.registry import LAWS
from analysis.planning.choose_law import gap_law, loss_law, outside
from analysis.planning.plan import plan
from analysis.planning.predict import bits_of, paper, predict


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("int4", 4),
        ("4", 4),
        ("e2m1", 4),
        ("e4m3", 8),
        ("bf16", 16),
        ("fp32", 16),
        ("int12", 12),
        ("2.5", 2.5),
        ("mxfp4", 4),
        ("mxfp6_e3m2", 6),
        ("mxint8", 8),
        ("nvfp4", 4),
        ("nf4-hadamard", 4),
        ("uint3", 3),
        ("ternary", 2),
    ],
)
def test_bits_of_formats(text, bits):
    assert bits_of(text) == bits


@pytest.mark.parametrize("text", ["", "int", "int0", "in4", "-4", "e2", "99", "nan"])
def test_no_formats(text):
    with pytest.raises(InputError, match="not a format; expected"):
        bits_of(text)


def test_paper_at_thirty_million():
    made = predict(paper(), N=27.95e6, D=937 * 27.95e6, widths={}, post=3)
    assert made.gap.value == pytest.approx(0.603, abs=0.002)
    assert made.total.value == pytest.approx(made.loss.value + made.gap.value)
    assert np.isnan([made.total.low, made.gap.high]).all()
    # N_eff / N at 4 bits throughout is .191: the loss of a model of .191 / .994 of its size at 16 bits
    small = predict(paper(), N=1e9, D=1e11, widths=dict.fromkeys(("P_w", "P_a", "P_kv"), 4.0), post=None)
    same = predict(paper(), N=0.191 / 0.9942 * 1e9, D=1e11, widths={}, post=None)
    assert small.total.value == pytest.approx(same.total.value, abs=1e-3)


def test_fitted_sum_holds_the_truth(tables):
    frame = tables.simulate(sizes=(23_600, 82_900, 201_000, 378_000))
    found = {name: analysis.fit(name, frame, bootstrap=200) for name in ("chinchilla", "kumar_ptq")}
    made = predict(found, N=201_000, D=6e6, widths={}, post=4)
    truth = tables.loss_of(201_000, 6e6, (16, 16, 16)) + tables.gap_of(201_000, 6e6, 4)
    assert made.total.low < truth < made.total.high
    assert 0 < made.gap.low < made.gap.value < made.gap.high
    parts = np.hypot(made.loss.high - made.loss.value, made.gap.high - made.gap.value)
    assert made.total.high - made.total.value == pytest.approx(parts)
    assert made.warnings == []
    far = predict(found, N=8e9, D=6e6, widths={}, post=2).warnings
    assert [line.split(" was ")[0] for line in far] == ["chinchilla", "kumar_ptq", "kumar_ptq"]
    assert "N from 2.36e+04 to 3.78e+05, asked at 8e+09" in far[0]


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ({"N": 0.0}, "N=0: expected a number above zero"),
        ({"D": float("inf")}, "D=inf: expected"),
        ({"widths": {"P_a": 3.0}}, "P_a=3: kumar_neff_tied leaves no effective parameters"),
        ({"widths": {"P_w": 4.0}, "post": 3.0}, "post: kumar_ptq holds for models trained in 16 bits"),
        ({"widths": {"P_w": 4.0}, "post": 4.0}, "post=4: not below P_w=4 in training"),
    ],
)
def test_questions_without_an_answer(question, line):
    with pytest.raises(InputError) as fault:
        predict(paper(), **({"N": 1e8, "D": 1e9, "widths": {}, "post": None} | question))
    assert str(fault.value).startswith(line)


def test_laws_that_are_missing(tables):
    found = {"chinchilla": analysis.fit("chinchilla", tables.simulate(post=()), bootstrap=0)}
    with pytest.raises(InputError, match="no law for P_w below 16 bits among chinchilla; fit one of kumar_neff"):
        predict(found, N=1e5, D=1e6, widths={"P_w": 4.0}, post=None)
    with pytest.raises(InputError, match="post: no kumar_ptq among chinchilla"):
        predict(found, N=1e5, D=1e6, widths={}, post=4.0)


# ---- which law answers ----


@pytest.fixture(scope="module")
def found(tables):
    frame = tables.simulate(sizes=(23_600, 82_900, 201_000, 378_000), trained=tables.TRAINED)
    return {name: analysis.fit(name, frame, bootstrap=0) for name in LAWS if name in ("chinchilla", *LOW, "kumar_ptq")}


LOW = ("kumar_neff", "kumar_neff_tied")


@pytest.mark.parametrize("bits", [16.0, 6.0])
def test_predict_and_plan_ask_the_same_law(found, bits):
    made = plan(found, flops=6e11, widths=(bits,))
    widths = dict.fromkeys(made.parts, bits)
    said = predict(found, N=made.best.N.value, D=made.best.D.value, widths=widths, post=None)
    assert said.total.value == pytest.approx(made.best.loss.value, rel=1e-12)
    assert made.laws == (said.total.law,) == ("kumar_neff",)
    after = plan(found, bytes=1e5, tokens=4e6, widths=(16,), post=("int4",))
    said = predict(found, N=after.best.N.value, D=4e6, widths={}, post=4.0)
    assert said.total.value == pytest.approx(after.best.loss.value, rel=1e-12)
    assert said.total.law == " + ".join(after.laws)


def test_of_laws_with_effective_parameters_the_one_that_knows_most_answers(found):
    assert loss_law(found) is found["kumar_neff"]
    few = found | {"kumar_neff": dataclasses.replace(found["kumar_neff"], law=LAWS["kumar_neff"].without({"P_a"}))}
    assert loss_law(few) is loss_law(few, {"P_a": 4.0}) is found["kumar_neff_tied"]
    assert loss_law({"chinchilla_tied": found["chinchilla"]}) is found["chinchilla"]  # nothing better is there
    with pytest.raises(InputError, match="no law for P_a below 16 bits among chinchilla; fit one of kumar_neff"):
        loss_law({"chinchilla": found["chinchilla"]}, {"P_a": 4.0})
    held = few["kumar_neff"].law.without({"P_kv": 8.0})
    only = {"kumar_neff": dataclasses.replace(few["kumar_neff"], law=held)}
    assert loss_law(only, {"P_kv": 8.0}) is only["kumar_neff"]
    assert outside(only["kumar_neff"], {"N": 1e5, "D": 4e6}) == ["kumar_neff was fitted on P_kv = 8 alone, asked at 16"]
    with pytest.raises(InputError, match="no law for P_kv below 16 bits"):
        loss_law(only, {"P_kv": 4.0})


def test_the_unified_law_answers_for_models_trained_in_low_precision():
    unified = published("kumar_unified")
    known = unified.params | {"C_w": 0.5, "C_a": 0.5, "C_kv": 0.5}
    laws = paper() | {"kumar_unified": dataclasses.replace(unified, params=known)}
    made = predict(laws, N=1e9, D=1e11, widths={"P_w": 8.0}, post=4.0)
    frame = {"N": [1e9], "D": [1e11], "P_w": [8.0], "P_a": [16.0], "P_kv": [16.0], "P_post": [4.0]}
    frame = {name: np.array(values) for name, values in frame.items()}
    assert made.gap.law == "kumar_unified"
    assert made.gap.value == pytest.approx(float(unified.law.predict(known, frame)[0]))
    assert gap_law(laws).law.name == "kumar_ptq"
    assert gap_law({"kumar_unified": unified}).law.name == "kumar_unified"
    # 16 bits after training are no quantization
    assert predict(laws, N=1e9, D=1e11, widths={}, post=16.0).gap is None


def test_questions_among_the_rows_but_for_rounding_are_not_far(found):
    low, high = found["kumar_neff"].ranges["D"]
    assert outside(found["kumar_neff"], {"N": 1e5, "D": high * 1.005}) == []
    assert len(outside(found["kumar_neff"], {"N": 1e5, "D": low * 0.98})) == 1
