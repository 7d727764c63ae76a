"""Each law at three points against its equation, written out plainly: no logarithms, no columns, no shared pieces."""

import math

import numpy as np
import pytest

from analysis.errors import InputError
from analysis.laws.registry import LAWS
from tests.analysis.laws.test_laws import FRAME, law_and_point


def f(bits, gamma, shift):
    return 1 - math.exp(-bits / gamma + shift)


def neff(p, r):
    return r.N * f(r.P_w, p.gamma_w, p.n_w) * f(r.P_a, p.gamma_a, p.n_a) * f(r.P_kv, p.gamma_kv, p.n_kv)


def chinchilla(p, n, d, beta=None):
    return p.A * n**-p.alpha + p.B * d ** -(p.beta if beta is None else beta) + p.E


def unified(p, r, size=neff):
    gap = p.C_T * r.D**p.gamma_D / size(p, r) ** p.gamma_N * math.exp(-r.P_post / p.gamma_post)
    for bits, c in ((r.P_w, p.C_w), (r.P_a, p.C_a), (r.P_kv, p.C_kv)):
        gap *= 1 - math.exp(-c * (bits - r.P_post)) if bits > r.P_post else 0
    return gap


def sun(p, r):
    added = r.D**p.beta / r.N**p.alpha * math.log2(r.group_w) * p.kappa
    return chinchilla(p, r.N, r.D) + added / ((r.E_w + 0.5) ** p.delta * (r.M_w + 0.5) ** p.nu)


def panferov(p, r):
    def rho(s):
        return math.tanh(p.F * math.log(max(s, 1e-12), 0.25) ** p.C)

    return chinchilla(p, r.N * rho(r.sigma2_w) * rho(r.sigma2_a), r.D)


def quartet(p, r):
    kinds = {"16": (1, 1), "4": (p["eff_N[4]"], p["eff_D[4]"]), "2WO": (p["eff_N[2WO]"], p["eff_D[2WO]"])}
    of_n, of_d = kinds[r.scheme]
    inner = (r.N * of_n / 1e7) ** -p.alpha + p.rho * (r.D * of_d / 1e9) ** -p.beta
    return p.C * inner**p.gamma + p.E


def quest(p, r):
    return chinchilla(p, r.N * (1 if r.scheme == "16" else p[f"eff[{r.scheme}]"]), r.D)


def gadre(p, r):
    compute, ratio = 6 * r.N * r.D, r.D / r.N
    return p.E + (p.a * ratio**p.eta + p.b * ratio**-p.eta) * compute**-p.eta


def worn(base, whole, limit):
    return base + base * limit * (1 - math.exp(-(whole / base - 1) / limit))


def muennighoff_tokens(p, r):
    return chinchilla(p, r.N, worn(min(r.unique_tokens, r.D), r.D, p.R_D))


def muennighoff(p, r):
    a, b = p.C * 1e7**p.alpha, p.C * p.rho * 1e9**p.beta
    unique = min(r.unique_tokens, r.D)
    best = (p.beta * b * unique**-p.beta / (p.alpha * a)) ** (-1 / p.alpha)
    n, d = worn(min(best, r.N), r.N, p.R_N), worn(unique, r.D, p.R_D)
    return a * n**-p.alpha + b * d**-p.beta + p.E


def chen(p, r):
    return p.k * r.D**p.gamma_D * math.log2(r.group_w) ** p.gamma_G / r.N**p.gamma_N


def gamma_form(p, r):
    return p.C * ((r.N / 1e7) ** -p.alpha + p.rho * (r.D / 1e9) ** -p.beta) ** p.gamma + p.E


EQUATIONS = {
    "chinchilla_gamma": gamma_form,
    "compute": lambda p, r: p.A * (6 * r.N * r.D) ** -p.alpha + p.E,
    "penalty": lambda p, r: p.k * r.N**-p.gamma_N * math.exp(-r.P_w / p.gamma_P),
    "chinchilla": lambda p, r: chinchilla(p, r.N, r.D),
    "chinchilla_tied": lambda p, r: chinchilla(p, r.N, r.D, p.alpha),
    "gadre": gadre,
    "muennighoff_tokens": muennighoff_tokens,
    "muennighoff": muennighoff,
    "kumar_ptq": lambda p, r: p.C_T * r.D**p.gamma_D / r.N**p.gamma_N * math.exp(-r.P_post / p.gamma_post),
    "kumar_unified": unified,
    "kumar_unified_n": lambda p, r: unified(p, r, lambda p, r: r.N),
    "kumar_neff": lambda p, r: chinchilla(p, neff(p, r), r.D),
    "kumar_neff_tied": lambda p, r: chinchilla(p, neff(p, r), r.D, p.alpha),
    "kumar_floating_point": lambda p, r: chinchilla(p, r.N * f(r.P_w, p.gamma_w, p.n_w), r.D, p.alpha),
    "weights_additive": lambda p, r: chinchilla(p, r.N, r.D) + p.C_w * r.P_w**-p.alpha_w,
    "weights_multiplicative": lambda p, r: (
        p.A * r.N**-p.alpha * (1 + p.C_w * r.P_w**-p.alpha_w) + p.B * r.D**-p.beta + p.E
    ),
    "weights_neff": lambda p, r: chinchilla(p, r.N * f(r.P_w, p.gamma_w, p.n_w), r.D),
    "weights_deff": lambda p, r: chinchilla(p, r.N, r.D * f(r.P_w, p.gamma_w, p.n_w)),
    "weights_neff_deff_tied": lambda p, r: chinchilla(
        p, r.N * f(r.P_w, p.gamma_w, p.n_w), r.D * f(r.P_w, p.gamma_w, p.n_w)
    ),
    "weights_neff_deff": lambda p, r: chinchilla(
        p, r.N * f(r.P_w, p.gamma_w, p.n_w), r.D * f(r.P_w, p.gamma_D_w, p.n_D_w)
    ),
    "chen_w4a4": chen,
    "chen_w4a16": chen,
    "chen_w16a4": chen,
    "sun": sun,
    "panferov": panferov,
    "quest": quest,
    "quartet": quartet,
    "ouyang": lambda p, r: p.k * r.D**p.beta / (r.N**p.alpha * r.P_post**p.gamma),
    "gaussian": lambda p, r: p.C_T * r.D**p.gamma_D / r.N**p.gamma_N * r.sigma2_post**p.kappa,
}


class Names(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("name", LAWS)
def test_equation(name):
    law, known = law_and_point(name)
    expected = [EQUATIONS[name](Names(known), Names({k: v[i].item() for k, v in FRAME.items()})) for i in range(3)]
    np.testing.assert_allclose(law.predict(known, FRAME), expected, rtol=1e-11)


def test_no_gap_where_training_had_no_more_bits_than_are_left():
    law, known = law_and_point("kumar_unified")
    frame = FRAME | {"P_w": np.array([3.0, 4.0, 5.0]), "P_post": np.array([3.0, 4.0, 4.0])}
    gaps = law.predict(known, frame)
    assert gaps[:2].tolist() == [0, 0] and gaps[2] > 0


@pytest.mark.parametrize(
    "law, at, expected",
    [
        # E1M1, E2M1, E4M3 at N = 1B, blocks of 128: where more tokens start to hurt, dL/dD = 0 (published: 8.1e10,
        # 3.9e11 and 2.7e13 tokens).
        ("sun", (1, 1), 8.1e10),
        ("sun", (2, 1), 3.9e11),
        ("sun", (4, 3), 2.7e13),
    ],
)
def test_published_critical_tokens(law, at, expected):
    law, known = law_and_point(law)
    d = np.geomspace(1e9, 1e15, 60001)
    frame = {"N": np.full(len(d), 1e9), "D": d, "group_w": np.full(len(d), 128.0)}
    frame |= {"E_w": np.full(len(d), float(at[0])), "M_w": np.full(len(d), float(at[1]))}
    assert d[law.predict(known, frame).argmin()] == pytest.approx(expected, rel=0.05)


def test_a_scheme_that_the_law_does_not_know():
    law, known = law_and_point("quest")
    with pytest.raises(InputError, match="scheme=5: the law knows 16, 1, 2"):
        law.predict(known, FRAME | {"scheme": np.array(["5", "4", "3"])})
