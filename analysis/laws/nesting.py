"""Which laws hold which others as special cases, and at which of their parameters.

No special case can fit better than the law that holds it. A search from a grid of starts does not know that, so a fit
is also started from where its special cases end.
"""

from collections.abc import Callable, Mapping

from analysis.laws.kumar import PARTS, ROBUST
from analysis.laws.law import Law
from analysis.laws.registry import LAWS
from analysis.laws.schemes import D_0, N_0

Params = dict[str, float]
WHOLE = {symbol: value for names in PARTS.values() for symbol, value in zip(names, (0.1, -8.0), strict=True)}
"""Where f(P) is one at all widths."""
ALL_TOKENS = {"gamma_D_w": 0.1, "n_D_w": -8.0}
FAR = 1e9  # of R_D and R_N: nothing is worn out
ROBUST_AT_ONCE = dict.fromkeys(ROBUST.values(), 20.0)
LARGEST_RATIO = 1e30


def _with(**more: float) -> Callable[[Params], Params]:
    return lambda p: {**more, **p}


def _untied(p: Params) -> Params:
    return {**p, "beta": p["alpha"]}


def _by_ratio(p: Params) -> Params:
    """C and rho for A and B."""
    first, second = p["A"] * N_0 ** -p["alpha"], p["B"] * D_0 ** -p["beta"]
    ratio = min(max(second / first if first > 0 else LARGEST_RATIO, 1 / LARGEST_RATIO), LARGEST_RATIO)
    return {**p, "rho": ratio, "C": first if first > 0 else second / ratio}


def _gadre(p: Params) -> Params:
    """a M^eta C^-eta is 6^-eta a N^-2eta."""
    eta = p["eta"]
    return {"alpha": 2 * eta, "A": p["a"] * 6**-eta, "B": p["b"] * 6**-eta, "E": p["E"]}


def _efficiencies(p: Params) -> Params:
    return {**p, **{symbol.replace("eff[", "eff_N["): value for symbol, value in p.items() if symbol[:4] == "eff["}}


def _as_well(p: Params) -> Params:
    return {**p, "gamma_D_w": p["gamma_w"], "n_D_w": p["n_w"]}


def _of_tokens(p: Params) -> Params:
    return {**p, "gamma_D_w": p["gamma_w"], "n_D_w": p["n_w"], **{s: WHOLE[s] for s in ("gamma_w", "n_w")}}


SPECIAL_CASES: Mapping[str, Mapping[str, Callable[[Params], Params]]] = {
    "chinchilla_tied": {"gadre": _gadre},
    "chinchilla": {"chinchilla_tied": _untied},
    "chinchilla_gamma": {"chinchilla": lambda p: {"gamma": 1.0, **_by_ratio(p)}},
    "muennighoff_tokens": {"chinchilla": _with(R_D=FAR)},
    "muennighoff": {"muennighoff_tokens": lambda p: {"R_N": FAR, **_by_ratio(p)}},
    "quest": {"chinchilla": _with()},
    "quartet": {
        "quest": lambda p: {"gamma": 1.0, **_by_ratio(_efficiencies(p))},
        "chinchilla_gamma": _with(),
    },
    "kumar_neff_tied": {"chinchilla_tied": _with(**WHOLE)},
    "kumar_neff": {"kumar_neff_tied": _untied, "chinchilla": _with(**WHOLE), "weights_neff": _with(**WHOLE)},
    "kumar_floating_point": {"chinchilla_tied": _with(**WHOLE)},
    "weights_additive": {"chinchilla": _with(C_w=0.0, alpha_w=1.0)},
    "weights_multiplicative": {"chinchilla": _with(C_w=1e-3, alpha_w=12.0)},
    "weights_neff": {"chinchilla": _with(**WHOLE)},
    "weights_deff": {"chinchilla": _with(**WHOLE)},
    "weights_neff_deff_tied": {"chinchilla": _with(**WHOLE)},
    "weights_neff_deff": {
        "weights_neff": _with(**ALL_TOKENS),
        "weights_deff": _of_tokens,
        "weights_neff_deff_tied": _as_well,
    },
    "sun": {"chinchilla": _with(kappa=0.0, delta=1.0, nu=1.0)},
    "panferov": {"chinchilla": _with(F=20.0, C=0.05)},
    "kumar_unified_n": {"kumar_ptq": _with(**ROBUST_AT_ONCE)},
    "kumar_unified": {"kumar_unified_n": _with(**WHOLE)},
}
"""Law -> its special cases, and what their parameters are in it. Efficiencies of which nothing is said are one."""


def special_cases(law: Law) -> list[tuple[Law, Callable[[Params], Params]]]:
    """The special cases of `law` as they apply to its rows, with what holds it held, and how their parameters are put
    into it."""
    ways = []
    for name, into in SPECIAL_CASES.get(law.name, {}).items():
        inner = LAWS[name]
        if inner.for_schemes is not None:
            inner = inner.with_schemes(law.categories)
        if set(PARTS) <= set(inner.variables):  # others are nothing without the width that they are about
            inner = inner.without(law.held)
        if not set(inner.variables) <= set(law.variables):
            continue
        fixed = {p.symbol: p.lower for p in law.parameters if p.fixed}
        own = {p.symbol for p in inner.parameters}
        if set(fixed) - own:  # what is held there may be what makes the special case
            continue
        ways.append((inner.hold(fixed), _into(law, into)))
    return ways


def _into(law: Law, into: Callable[[Params], Params]) -> Callable[[Params], Params]:
    def made(params: Params) -> Params:
        given = into(params)
        return {symbol: given.get(symbol, 1.0) for symbol in law.symbols}

    return made
