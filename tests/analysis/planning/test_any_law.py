"""Every law of a loss can be asked: for a prediction, and for the best N and D under a budget."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.errors import InputError
from analysis.fitting.store import published
from analysis.laws.registry import LAWS
from analysis.planning.choose_law import loss_law
from analysis.planning.plan import plan
from analysis.planning.predict import predict
from tests.analysis.laws.test_laws import law_and_point

LOSSES = [name for name, law in LAWS.items() if law.response == "loss"]
AT = {
    "E_w": 4,
    "M_w": 3,
    "group_w": 32,
    "group_a": 32,
    "sigma2_w": 0.001,
    "sigma2_a": 1e-4,
    "unique_tokens": 2e9,
    "scheme": "4",
}


def asked(name):
    """A fit of that law with its published constants, or others, and the options that it needs."""
    law, known = law_and_point(name)
    fit = dataclasses.replace(published("chinchilla"), law=law, params=known)
    return {name: fit}, {k: v for k, v in AT.items() if k in law.variables and (k != "scheme" or v in law.categories)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_prediction_is_what_the_law_says(name):
    fits, at = asked(name)
    made = predict(fits, N=1e9, D=2e10, widths={}, post=None, at=at)
    law = fits[name].law
    frame = {"N": 1e9, "D": 2e10, "C": 6 * 2e19, "P_w": 16.0, "P_a": 16.0, "P_kv": 16.0, **at}
    frame = {k: np.array([v]) for k, v in frame.items() if k in law.variables}
    assert made.total.law == name
    assert made.total.value == pytest.approx(float(law.predict(fits[name].params, frame)[0]), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "compute"])
def test_a_plan_is_the_best_on_a_grid(name):
    fits, at = asked(name)
    flops, law = 1e21, fits[name].law
    made = plan(fits, flops=flops, at=at, draws=0, widths=(16,))
    N = np.geomspace(1e7, 1e12, 4001)
    # As many tokens as the budget allows, or fewer where more do harm.
    shares = np.geomspace(1e-4, 1, 400) if name == "sun" else np.ones(1)
    N, share = (v.ravel() for v in np.meshgrid(N, shares))
    frame = {"N": N, "D": flops / (6 * N) * share, **{p: np.full(len(N), 16.0) for p in ("P_w", "P_a", "P_kv")}}
    frame |= {k: np.full(len(N), v) for k, v in at.items()}
    losses = law.predict(fits[name].params, {k: v for k, v in frame.items() if k in law.variables})
    assert made.best.loss.value == pytest.approx(np.nanmin(losses), rel=1e-5)
    assert made.best.loss.value <= np.nanmin(losses) * (1 + 1e-9)
    assert made.laws == (name,)


def test_draws_give_a_plan_intervals(tables):
    frame = tables.simulate(post=(), sizes=(23_600, 82_900, 201_000, 378_000))
    fits = {"gadre": analysis.fit("gadre", frame, bootstrap=60), "chinchilla_tied": None}
    fits["chinchilla_tied"] = analysis.fit("chinchilla_tied", frame, bootstrap=60)
    one, two = (plan(fits, flops=3e12, law=name, draws=100) for name in fits)
    assert one.laws == ("gadre",) and two.laws == ("chinchilla_tied",)
    assert one.best.N.value == pytest.approx(two.best.N.value, rel=1e-3)  # one law in other symbols
    assert one.best.N.low < one.best.N.value < one.best.N.high
    assert one.best.N.high == pytest.approx(two.best.N.high, rel=0.1)


def test_more_tokens_may_harm_a_law_that_says_so():
    """Sun's law: blocks of E1M1 at a billion parameters are best after 8.1e10 tokens."""
    fits, at = asked("sun")
    at |= {"E_w": 1, "M_w": 1, "group_w": 128}
    made = plan(fits, bytes=2e9, tokens=1e13, at=at, draws=0, widths=(16,), post=("bf16",))
    assert made.best.N.value == pytest.approx(1e9, rel=1e-6) and made.best.critical
    assert made.best.D.value == pytest.approx(8.1e10, rel=0.05)


def test_which_law_answers(tables):
    frame = tables.simulate(post=())
    fits = {name: analysis.fit(name, frame, bootstrap=0) for name in ("gadre", "chinchilla_gamma", "chinchilla")}
    assert loss_law(fits).law.name == "chinchilla"
    del fits["chinchilla"]
    assert loss_law(fits).law.name == "gadre"
    assert loss_law(fits, name="chinchilla_gamma").law.name == "chinchilla_gamma"
    with pytest.raises(InputError, match="law=quest: there is no such fit; use one of gadre, chinchilla_gamma"):
        loss_law(fits, name="quest")
    with pytest.raises(InputError, match="no law for P_w below 16 bits among gadre"):
        predict(fits, N=1e5, D=1e6, widths={"P_w": 4.0}, post=None)


@pytest.mark.parametrize(
    ("name", "at", "line"),
    [
        ("sun", {}, "sun: needs E_w, M_w, group_w; say so by --at E_w=VALUE"),
        ("sun", {"E_w": 4, "M_w": 3, "group_w": "many"}, "sun: could not convert string to float: 'many'"),
        ("quest", {"scheme": "5"}, "scheme=5: the law knows 16, 1, 2"),
        ("panferov", {"sigma2_w": "x"}, "panferov: could not convert"),
    ],
)
def test_what_a_law_has_to_be_told_is_one_line(name, at, line):
    fits, _ = asked(name)
    for call in (
        lambda: predict(fits, N=1e9, D=1e10, widths={}, post=None, at=at),
        lambda: plan(fits, flops=1e20, at=at, draws=0),
    ):
        with pytest.raises(InputError) as fault:
            call()
        assert str(fault.value).startswith(line) and "\n" not in str(fault.value)


def test_formats_tell_exponent_and_mantissa():
    fits, _ = asked("sun")
    said = [
        predict(fits, N=1e9, D=1e10, widths={"P_w": 8.0}, post=None, formats=f, at=at).total.value
        for f, at in (({"P_w": "e4m3"}, {"group_w": 32}), ({}, {"E_w": 4, "M_w": 3, "group_w": 32}))
    ]
    assert said[0] == said[1]


def test_a_plan_needs_parameters_and_tokens():
    with pytest.raises(InputError, match="compute: knows C; a plan needs a law of N and D"):
        plan(asked("compute")[0], flops=1e20, draws=0)


# ---- prediction intervals, and what low precision in training adds ----


def test_a_run_scatters_about_its_law(tables):
    frame = tables.simulate(post=(), sizes=(23_600, 82_900, 201_000, 378_000), noise=3.0, seeds=4)
    fits = {"chinchilla": analysis.fit("chinchilla", frame, bootstrap=100)}
    law, run = (predict(fits, N=2e5, D=4e6, widths={}, post=None, one_run=one).total for one in (False, True))
    assert law.value == run.value and run.low < law.low < law.high < run.high
    sd = 3 * 0.003 * law.value
    reach = fits["chinchilla"].bootstrap.t * np.hypot((law.high - law.value) / fits["chinchilla"].bootstrap.t, sd)
    assert run.high - run.value == pytest.approx(reach, rel=0.2)
    inside = [
        run.low < tables.loss_of(2e5, 4e6, (16, 16, 16)) * (1 + sd / law.value * z) < run.high
        for z in np.random.default_rng(0).standard_normal(200)
    ]
    assert np.mean(inside) > 0.93


def penalties(noise=0.15, bits=(4, 6), seeds=5, sizes=(1.5e7, 3e7, 5e7, 1e8)):
    """Penalties of training in few bits, log-linear in N (arXiv 2605.25966)."""
    random, rows = np.random.default_rng(0), []
    for n in sizes:
        for p in bits:
            for seed in range(seeds):
                value = 40 * n**-0.25 * np.exp(-p / 1.4)
                rows.append((n, 1e9, p, seed, value * np.exp(noise * random.standard_normal())))
    frame = pd.DataFrame(rows, columns=["N", "D", "P_w", "seed_init", "gap_qat"])
    return frame.assign(loss=3.0 + frame["gap_qat"], run_id=[f"r{i}" for i in range(len(frame))])


@pytest.mark.parametrize("bits", [(4, 6), (6,)])
def test_a_penalty_predicts_sizes_that_were_not_fitted(bits):
    fits = {"penalty": analysis.fit("penalty", penalties(bits=bits), bootstrap=200)}
    assert fits["penalty"].params["gamma_N"] == pytest.approx(0.25, abs=0.08)
    assert ("gamma_P" in fits["penalty"].params) == (len(bits) > 1)
    random, inside = np.random.default_rng(1), []
    for size in (5e6, 8e6, 1.75e8, 2.5e8, 3.5e8):
        made = predict(fits, N=size, D=1e9, widths={"P_w": 6.0}, post=None, one_run=True)
        assert made.total.law == "penalty" and made.total.response == "gap_qat" and made.gap is None
        held_out = 40 * size**-0.25 * np.exp(-6 / 1.4) * np.exp(0.15 * random.standard_normal(50))
        inside += [made.total.low < value < made.total.high for value in held_out]
    assert 0.9 < np.mean(inside) <= 1
    with pytest.raises(InputError, match="post=3: penalty knows models as they are trained alone"):
        predict(fits, N=1e8, D=1e9, widths={"P_w": 6.0}, post=3.0)
